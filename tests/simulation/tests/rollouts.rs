//! Rollouts among the faults, and without any: what they do when nothing else happens.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use bellwether_core::release::{OnFailure, Outcome, Phase, Policy};
use bellwether_simulation::history::History;
use bellwether_simulation::rollouts::Flaw;
use bellwether_simulation::{Options, World, run};

/// Runs the seeds with operators who deploy again and again, and adds up what became of it.
fn all(nodes: usize, seeds: std::ops::Range<u64>) {
    let mut total = History::default();
    for seed in seeds.clone() {
        let world = run(seed, Options { nodes, rollouts: true, ..Options::default() }).unwrap_or_else(|violation| {
            panic!("{violation}\nreplay: tests/simulate.sh --from {seed} --seeds 1 --nodes {nodes} --rollouts --trace")
        });
        total.rollouts.add(&world.history.rollouts);
    }
    let rollouts = &total.rollouts;
    let least = (seeds.end - seeds.start) / 5;
    assert!(rollouts.done > least && rollouts.failed > least && rollouts.aborted > least, "{rollouts:?}");
}

#[test]
fn one_node() {
    all(1, 0..200);
}

#[test]
fn two_nodes() {
    all(2, 0..200);
}

#[test]
fn three_nodes() {
    all(3, 0..300);
}

#[test]
fn five_nodes() {
    all(5, 0..150);
}

/// A group at rest, on which nothing is ever deployed but by the test.
fn quiet(nodes: usize) -> World {
    let mut world = World::plain(7, Options { nodes, ..Options::default() });
    rest(&mut world);
    world
}

fn rest(world: &mut World) {
    let now = world.now;
    world.come_to_rest(now).unwrap_or_else(|violation| panic!("{violation}"));
}

fn outcome(world: &World) -> Outcome {
    world.document(0).unwrap().history.last().unwrap().outcome.clone()
}

/// The most that nodes may take for one step each: a look a second, a swap, and the looks at the cluster.
const GOOD: u64 = 8;
const BAD: u64 = 10;

#[test]
fn leadership_stays_where_it_is_through_rollouts_and_ways_back() {
    assert_eq!((Flaw::of(GOOD), Flaw::of(BAD), Flaw::of(11)), (None, Some(Flaw::Load), Some(Flaw::Restore)));
    for nodes in [1, 2, 5] {
        let mut world = quiet(nodes);
        let led = world.history.granted.clone();
        world.deploy(nodes - 1, 0, GOOD, Policy::default());
        rest(&mut world);
        assert_eq!(outcome(&world), Outcome::Done, "{nodes} nodes");
        for bad in [BAD, 11] {
            world.deploy(0, 0, bad, Policy::default());
            rest(&mut world);
            assert!(matches!(outcome(&world), Outcome::Failed { .. }), "{nodes} nodes: {:?}", outcome(&world));
        }
        let document = world.document(0).unwrap();
        assert_eq!(document.current.map(|current| current.number), Some(1));
        assert_eq!(world.history.granted, led, "{nodes} nodes: leadership has moved");
        assert_eq!(world.history.elections, 1);
    }
}

#[test]
fn what_fails_on_the_canary_is_prepared_nowhere_else() {
    let mut world = quiet(5);
    world.deploy(0, 0, BAD, Policy::default());
    rest(&mut world);
    assert_eq!(world.history.rollouts.prepared(0, 1).len(), 1, "{:?}", world.history.rollouts.prepared(0, 1));
    let mut world = quiet(5);
    world.deploy(0, 0, BAD, Policy { canaries: 2, ..Policy::default() });
    rest(&mut world);
    assert_eq!(world.history.rollouts.prepared(0, 1).len(), 2);
}

#[test]
fn who_halts_stays_halted_until_an_operator_decides() {
    let mut world = quiet(3);
    world.deploy(0, 0, BAD, Policy { on_failure: OnFailure::Halt, ..Policy::default() });
    let until = world.now + Duration::from_secs(60);
    world.go_on(until).unwrap();
    let rollout = world.document(0).unwrap().rollout.unwrap();
    assert!(matches!(rollout.phase, Phase::Halted { .. }), "{rollout:?}");
    assert_eq!(rollout.admitted.len(), 1, "{rollout:?}");
    // The operators of the simulation abort what is halted.
    rest(&mut world);
    assert_eq!(outcome(&world), Outcome::Aborted { by: "sim".into() });
}

#[test]
fn a_paused_rollout_admits_nobody() {
    let mut world = quiet(5);
    world.deploy(0, 0, GOOD, Policy { settle: Duration::from_secs(5), ..Policy::default() });
    let until = world.now + Duration::from_secs(3);
    world.go_on(until).unwrap();
    let admitted = |world: &World| -> BTreeSet<String> {
        world.document(0).unwrap().rollout.unwrap().admitted.iter().map(ToString::to_string).collect()
    };
    let before = admitted(&world);
    assert_eq!(before.len(), 1);
    world.ask_release(0, 0, bellwether_core::release::ReleaseOp::Pause);
    let until = world.now + Duration::from_secs(60);
    world.go_on(until).unwrap();
    assert_eq!(admitted(&world), before);
    rest(&mut world);
    assert_eq!(outcome(&world), Outcome::Done, "the operators of the simulation resume what is paused");
}

#[test]
fn at_rest_a_deployed_group_costs_no_more_requests_than_one_that_never_was() {
    // When exactly each audit falls differs: by 2 % in ten minutes, and by less than 1 % in a hundred.
    let while_at_rest = |world: &mut World| {
        let (before, until) = (world.history.requests, world.now + Duration::from_secs(6000));
        world.go_on(until).unwrap();
        world.history.requests - before
    };
    let mut world = quiet(3);
    let never = while_at_rest(&mut world);
    world.deploy(0, 0, GOOD, Policy::default());
    rest(&mut world);
    let deployed = while_at_rest(&mut world);
    assert!(deployed.abs_diff(never) * 100 <= never * 2, "{deployed} requests instead of {never}");
}
