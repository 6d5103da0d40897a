//! At rest, exactly one node leads each group, its guest knows, and every other is a worker.

use bellwether_core::status::Role;

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for group in 0..world.profile.groups {
        let role = |index: usize| {
            let core = world.nodes[index].core.as_ref()?;
            core.status(world.now).groups.get(group).map(|group| group.role)
        };
        let roles: Vec<Option<Role>> = (0..world.nodes.len()).map(role).collect();
        let leader = roles.iter().position(|role| *role == Some(Role::Leader));
        let others = roles.iter().filter(|role| **role == Some(Role::Worker)).count();
        let Some(leader) = leader.filter(|_| others + 1 == roles.len()) else {
            return Err(format!("the roles in g{group} are {roles:?}"));
        };
        let side = &world.nodes[leader].groups[group];
        let told = side.live.and_then(|live| side.instances.get(&live)).and_then(|instance| instance.told);
        if told.is_none() || told != world.gate(leader, group) {
            return Err(format!("node-{leader} leads g{group}; its guest was told of {told:?}"));
        }
        if side.instances.len() != 1 {
            return Err(format!("node-{leader} keeps {} instances in g{group}", side.instances.len()));
        }
    }
    Ok(())
}
