//! At rest, each node has one session, one znode under its id and one in each election; nothing else is left of anybody.

use bellwether_core::id::SessionId;

use crate::node::{ROOT, group_name};
use crate::world::World;

impl World {
    /// The ephemeral children of a znode, with their owners.
    #[must_use]
    pub fn ephemeral(&self, parent: &str) -> Vec<(String, SessionId)> {
        let server = &self.ensemble.server;
        let owned = |name: String| {
            let owner = server.data(&format!("{parent}/{name}"))?.1.owner?;
            Some((name, owner))
        };
        server.children(parent).unwrap_or_default().into_iter().filter_map(owned).collect()
    }
}

pub(super) fn check(world: &World) -> Result<(), String> {
    let mut sessions: Vec<i64> = Vec::new();
    for (index, node) in world.nodes.iter().enumerate() {
        let session = node.core.as_ref().and_then(|core| core.status(world.now).session);
        sessions.push(session.ok_or_else(|| format!("node-{index} has no session"))?.0);
    }
    sessions.sort_unstable();
    let living: Vec<i64> = world.ensemble.server.sessions().into_iter().map(|session| session.0).collect();
    if living != sessions {
        return Err(format!("the nodes have the sessions {sessions:?}, the server {living:?}"));
    }
    let parents = (0..world.profile.groups).map(|group| format!("{ROOT}/{}/election", group_name(group)));
    for parent in parents.chain([format!("{ROOT}/nodes")]) {
        let mut owners: Vec<i64> = world.ephemeral(&parent).into_iter().map(|(_, owner)| owner.0).collect();
        owners.sort_unstable();
        if owners != sessions {
            return Err(format!("{parent} holds {:?}; the sessions are {sessions:?}", world.ephemeral(&parent)));
        }
    }
    Ok(())
}
