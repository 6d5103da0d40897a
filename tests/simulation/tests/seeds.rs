//! A fixed set of seeds, on clusters of several sizes: every invariant holds after every step, and each comes to rest.

use std::time::Duration;

use bellwether_simulation::history::History;
use bellwether_simulation::{Options, run};

/// Runs the seeds and adds up what happened.
fn all(nodes: usize, seeds: std::ops::Range<u64>) -> History {
    let mut total = History::default();
    for seed in seeds {
        let options = Options { nodes, ..Options::default() };
        let world = run(seed, options).unwrap_or_else(|violation| {
            panic!("{violation}\nreplay: tests/simulate.sh --from {seed} --seeds 1 --nodes {nodes} --trace")
        });
        total.elections += world.history.elections;
        total.writes += world.history.writes;
        total.fenced += world.history.fenced;
        total.tasks += world.history.tasks;
        total.refused += world.history.refused;
        total.swaps += world.history.swaps;
        total.rollbacks += world.history.rollbacks;
    }
    total
}

/// A simulation in which nothing happens would hold every invariant too.
fn busy(total: &History) {
    assert!(total.elections > 100 && total.swaps > 20 && total.rollbacks > 5, "{total:?}");
    assert!(total.writes > 1000 && total.tasks > 1000 && total.refused > 20, "{total:?}");
}

#[test]
fn three_nodes() {
    let total = all(3, 0..400);
    busy(&total);
    assert!(total.fenced > 10, "late writes must have met their fence: {total:?}");
}

#[test]
fn five_nodes() {
    busy(&all(5, 0..100));
}

#[test]
fn two_nodes() {
    busy(&all(2, 0..150));
}

#[test]
fn one_node_leads_alone() {
    let total = all(1, 0..50);
    assert!(total.elections > 50 && total.writes > 500, "{total:?}");
}

#[test]
fn a_short_session_on_a_coarse_tick() {
    for seed in 0..60 {
        let options = Options { timeout: Duration::from_secs(4), ..Options::default() };
        run(seed, options).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[test]
fn a_long_session_on_a_coarse_tick() {
    for seed in 0..60 {
        let options =
            Options { timeout: Duration::from_secs(20), calm: Duration::from_secs(160), ..Options::default() };
        run(seed, options).unwrap_or_else(|violation| panic!("{violation}"));
    }
}
