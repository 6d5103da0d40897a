//! A rollout is conducted by the leader of the present term alone.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    match world.history.rollouts.step {
        Some((term, held)) if term != held => {
            Err(format!("a step of a rollout in {term} was accepted while the epoch was {held}"))
        }
        _ => Ok(()),
    }
}
