//! Every order of events of small clusters, with a bounded number of faults.

use bellwether_simulation::explore::{Explored, Faults, explore};

const NONE: Faults = Faults { breaks: 0, crashes: 0, deletions: 0, sleeps: 0 };

fn all(nodes: usize, faults: Faults) -> Explored {
    let explored = explore(nodes, faults, 2_000_000).unwrap_or_else(|found| panic!("{found}"));
    println!("{nodes} nodes, {faults:?}: {explored:?}");
    assert!(explored.states > 100 && explored.ends > 0, "{explored:?}");
    explored
}

#[test]
fn two_nodes_without_faults() {
    all(2, NONE);
}

#[test]
fn two_nodes_and_a_broken_connection() {
    all(2, Faults { breaks: 1, ..NONE });
}
