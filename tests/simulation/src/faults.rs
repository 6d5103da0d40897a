//! What goes wrong.

use bellwether_core::request::Request;

use crate::client::Cable;
use crate::world::World;

const ELECTION: &str = "/bellwether/g/election";
const REGISTRY: &str = "/bellwether/g/service_registry";

/// Something goes wrong, or is mended.
pub fn inject(world: &mut World) {
    let index = world.rng.usize(0..world.nodes.len());
    match world.rng.u32(0..100) {
        0..10 => cut(world, index, Cable { up: false, down: false }),
        10..15 => cut(world, index, Cable { up: true, down: false }),
        15..20 => cut(world, index, Cable { up: false, down: true }),
        20..34 => cut(world, index, Cable::WHOLE),
        34..44 => pause_or_resume(world, index),
        44..50 => {
            world.say(format_args!("fault: node-{index} crashes"));
            if world.nodes[index].core.is_some() {
                world.crash(index);
            }
        }
        50..56 => isolate_or_rejoin(world, index),
        56..62 => delete_one(world, ELECTION),
        62..66 => delete_one(world, REGISTRY),
        66..68 => {
            delete_all(world);
        }
        68..72 => {
            let quorum = !world.quorum;
            world.say(format_args!("fault: quorum {quorum}"));
            world.set_quorum(quorum);
        }
        72..76 => {
            // The connection breaks and is made again: whatever was on its way is lost, whether it was done or not.
            world.say(format_args!("fault: node-{index} is reset"));
            world.lose_connection(index);
        }
        76..88 => {
            world.say(format_args!("operator: node-{index} shall swap"));
            world.ask_swap(index);
        }
        88..94 => {
            world.say(format_args!("operator: node-{index} shall resign"));
            world.ask_resign(index);
        }
        _ => {
            // Some time in which the cluster may come to rest.
            heal_all(world);
        }
    }
}

/// Everything is mended, and guests behave.
pub fn heal_all(world: &mut World) {
    world.say(format_args!("everything is mended"));
    world.set_quorum(true);
    for index in 0..world.nodes.len() {
        world.nodes[index].cable = Cable::WHOLE;
        if world.nodes[index].stale.is_some() {
            isolate_or_rejoin(world, index);
        }
        if world.nodes[index].paused {
            world.resume(index);
        }
    }
}

fn cut(world: &mut World, index: usize, cable: Cable) {
    world.say(format_args!("fault: node-{index} {cable:?}"));
    world.nodes[index].cable = cable;
}

fn pause_or_resume(world: &mut World, index: usize) {
    if world.nodes[index].paused {
        world.say(format_args!("fault: node-{index} goes on"));
        world.resume(index);
    } else if world.nodes[index].core.is_some() {
        world.say(format_args!("fault: node-{index} stands still"));
        world.nodes[index].paused = true;
        world.history.mark(index, |term| term.paused = true);
    }
}

/// The server that the node is connected to is cut off from its leader, or finds it again.
fn isolate_or_rejoin(world: &mut World, index: usize) {
    if world.nodes[index].stale.take().is_none() {
        world.say(format_args!("fault: the server of node-{index} is cut off from its leader"));
        world.nodes[index].stale = Some(Box::new(world.server.clone()));
    } else {
        world.say(format_args!("fault: the server of node-{index} has its leader again"));
        world.lose_connection(index);
    }
}

fn delete_one(world: &mut World, parent: &str) {
    let Some(children) = world.server.children(parent).filter(|children| !children.is_empty()) else { return };
    let name = children[world.rng.usize(0..children.len())].clone();
    world.say(format_args!("operator: deletes {parent}/{name}"));
    tampered(world);
    // It may be gone in between; then there is nothing to delete.
    let _ = world.server.operate(Request::Delete { path: format!("{parent}/{name}"), version: None });
    world.fire();
}

fn delete_all(world: &mut World) {
    world.say(format_args!("operator: deletes the whole group"));
    tampered(world);
    for parent in [ELECTION, REGISTRY, "/bellwether/g/state"] {
        for name in world.server.children(parent).unwrap_or_default() {
            let _ = world.server.operate(Request::Delete { path: format!("{parent}/{name}"), version: None });
        }
        let _ = world.server.operate(Request::Delete { path: parent.to_owned(), version: None });
    }
    for path in ["/bellwether/g/epoch", "/bellwether/g"] {
        let _ = world.server.operate(Request::Delete { path: path.to_owned(), version: None });
    }
    world.fire();
}

fn tampered(world: &mut World) {
    for index in 0..world.nodes.len() {
        world.history.mark(index, |term| term.tampered = true);
    }
}
