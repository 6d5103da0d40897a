//! A node prepares a release that was deployed only if its group runs it, or a rollout has admitted this node to it: one that fails
//! on the first nodes is never prepared on any other.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    world.history.rollouts.stray.clone().map_or(Ok(()), Err)
}
