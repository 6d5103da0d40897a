//! No gate is open later than two thirds of the session timeout after the last acknowledged write was sent.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for (index, node) in world.nodes.iter().enumerate() {
        let end = node.proved + world.options.timeout * 2 / 3;
        for group in 0..node.groups.len() {
            if let Some(epoch) = world.gate(index, group).filter(|_| world.now >= end) {
                return Err(format!("the gate of node-{index} is open in {epoch}; its lease ended at {end}"));
            }
        }
    }
    Ok(())
}
