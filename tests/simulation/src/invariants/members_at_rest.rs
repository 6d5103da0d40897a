//! At rest, the leader knows every other node as a member, and nobody else; the registry holds no more than that.

use std::collections::BTreeSet;

use bellwether_core::status::Role;

use crate::node::{ROOT, group_name};
use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for group in 0..world.profile.groups {
        for (index, node) in world.nodes.iter().enumerate() {
            let Some(status) = node.core.as_ref().map(|core| core.status(world.now)) else { continue };
            let Some(status) = status.groups.into_iter().nth(group).filter(|group| group.role == Role::Leader) else {
                continue;
            };
            let known: BTreeSet<String> =
                status.members.unwrap_or_default().iter().map(|member| member.id.to_string()).collect();
            let expected: BTreeSet<String> =
                (0..world.nodes.len()).filter(|other| *other != index).map(|other| format!("node-{other}")).collect();
            if known != expected {
                let kept = world.ephemeral(&format!("{ROOT}/{}/service_registry", group_name(group)));
                return Err(format!(
                    "the leader of g{group} knows {known:?} instead of {expected:?}; there are {kept:?}"
                ));
            }
            let registered = world.ephemeral(&format!("{ROOT}/{}/service_registry", group_name(group))).len();
            if registered != expected.len() {
                return Err(format!("g{group} has {registered} members instead of {}", expected.len()));
            }
        }
    }
    Ok(())
}
