//! Nothing that happens here is for good, so no node may say that it can never go on.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    match &world.history.gave_up {
        Some((index, why)) => Err(format!("node-{index} gave up: {why}")),
        None => Ok(()),
    }
}
