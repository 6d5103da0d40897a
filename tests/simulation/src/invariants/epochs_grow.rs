//! Each term that is granted has a greater epoch than every term before it. (A claim that was proved before an operator took the
//! znode away may be heard of late.)

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for (group, ((node, _), epoch, before)) in &world.history.granted {
        if before.is_some_and(|before| before >= *epoch) && !world.history.tampered(*node, *group, *epoch) {
            return Err(format!("node-{node} was granted {epoch} after {before:?}"));
        }
    }
    Ok(())
}
