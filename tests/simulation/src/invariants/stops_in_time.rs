//! A node that is asked to end does so, whatever stands in its way.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for (index, node) in world.nodes.iter().enumerate() {
        if let Some(by) = node.stop_by.filter(|by| *by < world.now && !node.paused) {
            return Err(format!("node-{index} was to have ended by {by}"));
        }
    }
    Ok(())
}
