//! At most one node's gate is open in a group, whatever stands still and whoever is cut off; unless an operator took the older
//! leader's znode away.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for group in 0..world.profile.groups {
        let open: Vec<_> =
            (0..world.nodes.len()).filter_map(|index| Some((index, world.gate(index, group)?))).collect();
        let Some(newest) = open.iter().map(|(_, epoch)| *epoch).max() else { continue };
        for (index, epoch) in open {
            if epoch < newest && !world.history.tampered(index, group, epoch) {
                return Err(format!("the gate of node-{index} is open in {epoch}, another's in {newest}"));
            }
        }
    }
    Ok(())
}
