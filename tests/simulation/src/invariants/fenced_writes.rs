//! A write that was accepted came from the term that the coordinator held at that time.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    match world.history.write {
        Some(write) if write.writer != write.held => {
            Err(format!("a write of {} was accepted while the epoch was {}", write.writer, write.held))
        }
        _ => Ok(()),
    }
}
