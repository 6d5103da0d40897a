//! What goes wrong, what operators do, and how it is mended.

use std::time::Duration;

use bellwether_core::request::{CreateMode, Request};

use crate::client::Cable;
use crate::node::{ROOT, group_name, guid};
use crate::options::Manners;
use crate::world::World;

/// Something goes wrong, or is mended.
pub fn inject(world: &mut World) {
    let index = world.rng.usize(0..world.nodes.len());
    let group = world.rng.usize(0..world.profile.groups);
    let runs = world.nodes[index].core.is_some();
    if world.options.rollouts && world.rng.bool() {
        return world.steer_rollouts(index, group);
    }
    match world.rng.u32(0..100) {
        0..8 => cut(world, index, Cable { up: false, down: false }),
        8..13 => cut(world, index, Cable { up: true, down: false }),
        13..18 => cut(world, index, Cable { up: false, down: true }),
        18..31 => cut(world, index, Cable::WHOLE),
        31..40 => pause_or_resume(world, index),
        40..46 if runs => {
            world.say(format_args!("fault: node-{index} crashes"));
            world.crash(index);
        }
        46..50 if runs => {
            world.say(format_args!("operator: node-{index} shall end"));
            world.shut_down(index);
        }
        50..56 => {
            world.say(format_args!("fault: the server of node-{index} is cut off from its leader"));
            world.fall_behind(index, true);
        }
        56..62 => {
            world.say(format_args!("fault: the server of node-{index} lags"));
            world.fall_behind(index, false);
        }
        62..67 => delete_one(world, group, "election"),
        67..69 => delete_one(world, group, "service_registry"),
        69..71 => {
            let unseen = world.rng.bool();
            if unseen {
                // One node does not see it, and the others make it again at once.
                cut(world, index, Cable { up: false, down: false });
            }
            delete_all(world, group);
            for other in (0..world.nodes.len()).filter(|other| unseen && *other != index) {
                world.lose_connection(other, Duration::ZERO);
            }
        }
        71..72 => delete_node(world, index),
        72..76 => {
            let quorum = !world.ensemble.quorum;
            world.say(format_args!("fault: quorum {quorum}"));
            world.set_quorum(quorum);
        }
        76..80 => {
            // The connection breaks and is made again: whatever was on its way is lost, whether it was done or not.
            world.say(format_args!("fault: node-{index} is reset"));
            world.lose_connection(index, Duration::ZERO);
        }
        80..88 if world.profile.rollouts => world.steer_rollouts(index, group),
        80..88 => {
            world.say(format_args!("operator: node-{index} shall swap in g{group}"));
            world.ask_swap(index, group);
        }
        88..92 => {
            world.say(format_args!("operator: node-{index} shall resign in g{group}"));
            world.ask_resign(index, group);
        }
        92..94 => litter(world, group),
        94..96 => raise_counters(world, group),
        // Some time in which the cluster may come to rest.
        _ => mend(world),
    }
}

/// Everything is mended.
pub fn mend(world: &mut World) {
    world.say(format_args!("everything is mended"));
    world.set_quorum(true);
    for index in 0..world.nodes.len() {
        world.set_cable(index, Cable::WHOLE);
        if world.nodes[index].paused {
            world.resume(index);
        }
        if world.nodes[index].follower.is_cut() {
            world.lose_connection(index, Duration::ZERO);
        }
    }
}

/// Everything is mended, and guests behave from now on.
pub fn calm(world: &mut World) {
    world.manners = Manners::GOOD;
    mend(world);
}

fn cut(world: &mut World, index: usize, cable: Cable) {
    world.say(format_args!("fault: node-{index} {cable:?}"));
    world.set_cable(index, cable);
}

fn pause_or_resume(world: &mut World, index: usize) {
    if world.nodes[index].paused {
        world.say(format_args!("fault: node-{index} goes on"));
        world.resume(index);
    } else if world.nodes[index].core.is_some() {
        world.say(format_args!("fault: node-{index} stands still"));
        world.pause(index);
    }
}

fn path(group: usize, below: &str) -> String {
    format!("{ROOT}/{}/{below}", group_name(group))
}

/// An operator's write; it may be refused, as when what it is about is gone already.
fn operate(world: &mut World, request: Request) {
    let _ = world.ensemble.server.operate(request);
}

fn delete_one(world: &mut World, group: usize, below: &str) {
    let parent = path(group, below);
    let Some(children) = world.ensemble.server.children(&parent).filter(|children| !children.is_empty()) else {
        return;
    };
    let name = children[world.rng.usize(0..children.len())].clone();
    world.say(format_args!("operator: deletes {parent}/{name}"));
    operate(world, Request::Delete { path: format!("{parent}/{name}"), version: None });
    if below == "election" {
        let hex: String = name.chars().filter(|c| *c != '-').collect();
        for index in (0..world.nodes.len()).filter(|index| hex.contains(guid(*index).as_str())) {
            tampered(world, index, group);
        }
    }
    world.fire();
}

fn delete_all(world: &mut World, group: usize) {
    world.say(format_args!("operator: deletes all of g{group}"));
    for below in ["election", "service_registry", "state", "running"] {
        let parent = path(group, below);
        for name in world.ensemble.server.children(&parent).unwrap_or_default() {
            operate(world, Request::Delete { path: format!("{parent}/{name}"), version: None });
        }
        operate(world, Request::Delete { path: parent, version: None });
    }
    for below in ["epoch", "release"] {
        operate(world, Request::Delete { path: path(group, below), version: None });
    }
    operate(world, Request::Delete { path: format!("{ROOT}/{}", group_name(group)), version: None });
    for index in 0..world.nodes.len() {
        tampered(world, index, group);
    }
    let step = world.step;
    world.history.rollouts.tampered(group, step);
    world.fire();
}

fn delete_node(world: &mut World, index: usize) {
    world.say(format_args!("operator: deletes the znode of node-{index}"));
    operate(world, Request::Delete { path: format!("{ROOT}/nodes/node-{index}"), version: None });
    world.fire();
}

fn tampered(world: &mut World, index: usize, group: usize) {
    let zxid = world.ensemble.server.zxid().unsigned_abs();
    world.history.tampered.insert((index, group), zxid);
}

/// Znodes of other programs appear among the children.
fn litter(world: &mut World, group: usize) {
    const IN_ELECTION: [&str; 4] = ["lock-0000000000", "x-n_0000000000", "latch-0000000001", "node-0--n_0000000000"];
    const IN_REGISTRY: [&str; 3] = ["lock-0000000000", "m_9999999999", "m_1"];
    world.say(format_args!("operator: leaves other programs' znodes in g{group}"));
    let at = world.rng.usize(0..12);
    for path in [
        path(group, &format!("election/{}", IN_ELECTION[at % 4])),
        path(group, &format!("service_registry/{}", IN_REGISTRY[at % 3])),
    ] {
        let data = b"{\"not\":\"ours\"}".as_slice().into();
        operate(world, Request::Create { path, data, mode: CreateMode::Persistent });
    }
    world.fire();
}

/// The counters that name sequential znodes stand close to 2^31, as after years of joining and leaving.
fn raise_counters(world: &mut World, group: usize) {
    if !world.profile.high_counters || world.counters_set {
        return;
    }
    world.say(format_args!("the counters of g{group} stand close to 2^31"));
    let counter = i32::MAX - world.rng.i32(0..6);
    for below in ["election", "service_registry"] {
        if world.ensemble.server.set_counter(&path(group, below), counter).is_ok() {
            world.counters_set = true;
        }
    }
}
