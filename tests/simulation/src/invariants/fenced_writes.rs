//! A write that was accepted came from the term that the coordinator held at that time.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    match world.history.writes.last() {
        Some((writer, held)) if writer != held => {
            Err(format!("a write of {writer} was accepted while the epoch was {held}"))
        }
        _ => Ok(()),
    }
}
