//! Every order of events of small clusters, with a bounded number of faults: the states are counted, so that a search that does not
//! get anywhere is noticed, and a missing safeguard is found here too.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "what was found is printed; helpers of tests")]

use bellwether_core::config::Safeguard;
use bellwether_simulation::Missing;
use bellwether_simulation::explore::{Faults, explore};

const NONE: Faults = Faults { breaks: 0, crashes: 0, deletions: 0, sleeps: 0 };
/// More states than this are more than a test should visit: the core has more to say than it had, or a fault more is allowed.
const MOST: usize = 800_000;

fn all(nodes: usize, faults: Faults, at_least: usize) {
    let explored = explore(nodes, faults, None, MOST).unwrap_or_else(|found| panic!("{found}"));
    println!("{nodes} nodes, {faults:?}: {explored:?}");
    assert!(explored.states >= at_least && explored.ends > 0, "{explored:?}");
}

fn found(nodes: usize, faults: Faults, missing: Safeguard, expected: &[&str]) {
    let what = explore(nodes, faults, Some(Missing::Core(missing)), MOST).unwrap_err();
    println!("without {missing:?}: {what}");
    assert!(expected.iter().any(|invariant| what.starts_with(invariant)), "{what}");
}

#[test]
fn two_nodes_without_faults() {
    all(2, NONE, 500);
}

#[test]
fn three_nodes_without_faults() {
    all(3, NONE, 10_000);
}

#[test]
fn two_nodes_and_a_connection_that_breaks_at_any_moment() {
    all(2, Faults { breaks: 1, ..NONE }, 10_000);
}

#[test]
fn two_nodes_and_a_process_that_crashes_at_any_moment() {
    all(2, Faults { crashes: 1, ..NONE }, 50_000);
}

#[test]
fn two_nodes_and_an_operator_who_deletes_an_election_znode_at_any_moment() {
    all(2, Faults { deletions: 1, ..NONE }, 50_000);
}

#[test]
fn two_nodes_that_stand_still_at_any_moment() {
    all(2, Faults { sleeps: 1, ..NONE }, 10_000);
}

#[test]
fn a_wrong_order_is_found() {
    found(2, NONE, Safeguard::SuffixOrder, &["one_gate", "fenced_writes", "epochs_grow", "one_leader_at_rest"]);
}

#[test]
fn a_missing_proof_is_found() {
    found(2, Faults { deletions: 1, ..NONE }, Safeguard::Proof, &["one_gate", "fenced_writes", "epochs_grow"]);
}
