//! At rest, N candidates hold N−1 watches on one another: each follower one, on the candidate before it; the leader watches its own
//! znode instead. Besides these there are only those of what the group shall run, of the registry and of the keys that guests asked
//! for; the nodes and the server agree on how many there are.

use bellwether_core::config::Watch;

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let groups = world.profile.groups;
    let mut held = 0;
    for (index, node) in world.nodes.iter().enumerate() {
        let Some(core) = &node.core else { continue };
        let watches = core.status(world.now).watches;
        held += watches;
        let leads = (0..groups).filter(|group| world.gate(index, *group).is_some()).count();
        // One of the election in each group, one of what it shall run, and one of the registry where this node watches it.
        let expected = 2 * groups + if world.profile.watch == Watch::All { groups } else { leads };
        let exact = leads == 0 || !world.profile.observer;
        if exact && watches != expected || watches < expected {
            return Err(format!("node-{index} holds {watches} watches instead of {expected}"));
        }
    }
    let kept = world.ensemble.server.watch_count();
    if held == kept { Ok(()) } else { Err(format!("the nodes hold {held} watches, the server {kept}")) }
}
