//! At rest, exactly one node leads, its guest knows, and every other is a worker.

use bellwether_core::status::Role;

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let roles: Vec<Option<Role>> = world
        .nodes
        .iter()
        .map(|node| node.core.as_ref().and_then(|core| core.status(world.now).groups.first().map(|group| group.role)))
        .collect();
    let leaders = roles.iter().filter(|role| **role == Some(Role::Leader)).count();
    let others = roles.iter().filter(|role| matches!(role, Some(Role::Worker | Role::SittingOut))).count();
    if leaders == 1 && leaders + others == world.nodes.len() {
        Ok(())
    } else {
        Err(format!("at rest the roles are {roles:?}"))
    }
}
