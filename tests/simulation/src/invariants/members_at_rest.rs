//! At rest, the leader knows every other node as a member, and nobody else; the registry holds no more than that.

use std::collections::BTreeSet;

use bellwether_core::status::Role;

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let all: BTreeSet<String> = (0..world.nodes.len()).map(|index| format!("node-{index}")).collect();
    for (index, node) in world.nodes.iter().enumerate() {
        let Some(group) = node.core.as_ref().and_then(|core| core.status(world.now).groups.into_iter().next()) else {
            continue;
        };
        if group.role != Role::Leader {
            continue;
        }
        let known: BTreeSet<String> =
            group.members.unwrap_or_default().iter().map(|member| member.id.to_string()).collect();
        let expected: BTreeSet<String> = all.iter().filter(|id| **id != format!("node-{index}")).cloned().collect();
        if known != expected {
            return Err(format!("the leader knows {known:?} instead of {expected:?}"));
        }
        let registered = world.server.children("/bellwether/g/service_registry").unwrap_or_default().len();
        if registered != expected.len() {
            return Err(format!("the registry has {registered} members instead of {}", expected.len()));
        }
    }
    Ok(())
}
