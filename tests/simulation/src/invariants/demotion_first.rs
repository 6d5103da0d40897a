//! No guest is told of a term before the guest of the term before has left `on-demoted` or was stopped; unless that one's process
//! stood still, or an operator took its znode away.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for (at, newer) in world.history.open.iter().enumerate() {
        for older in &world.history.open[..at] {
            let (older, newer) = if older.epoch <= newer.epoch { (older, newer) } else { (newer, older) };
            if older.group != newer.group {
                continue;
            }
            if !older.paused && !world.history.tampered(older.process.0, older.group, older.epoch) {
                return Err(format!(
                    "node-{} was told of {} while the guest of node-{} still believed in {}",
                    newer.process.0, newer.epoch, older.process.0, older.epoch
                ));
            }
        }
    }
    Ok(())
}
