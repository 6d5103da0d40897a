//! The simulation catches what it claims to: with each safeguard taken away alone, some seed breaks the invariant that the
//! safeguard is there for, and the same seed holds every invariant with all of them in force.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "what was found is printed; helpers of tests")]

use bellwether_core::config::Safeguard;
use bellwether_simulation::{Missing, Options, run};

/// The first seed that fails without the safeguard must fail by one of `expected`.
fn caught(missing: Missing, unchecked: Option<&'static str>, seeds: u64, expected: &[&str]) {
    caught_among(Options::default(), missing, unchecked, seeds, expected);
}

/// The same, among operators who deploy releases all the time.
fn caught_in_rollouts(missing: Missing, unchecked: Option<&'static str>, seeds: u64, expected: &[&str]) {
    caught_among(Options { rollouts: true, ..Options::default() }, missing, unchecked, seeds, expected);
}

fn caught_among(sound: Options, missing: Missing, unchecked: Option<&'static str>, seeds: u64, expected: &[&str]) {
    let options = Options { missing: Some(missing), unchecked, ..sound };
    for seed in 0..seeds {
        if let Err(violation) = run(seed, options) {
            println!("without {missing:?}: {violation}");
            assert!(expected.contains(&violation.invariant), "{violation}");
            run(seed, sound).unwrap_or_else(|with| panic!("fails with all safeguards too: {with}"));
            return;
        }
    }
    panic!("no seed of {seeds} fails without {missing:?}");
}

#[test]
fn without_the_proof_of_claims_and_writes_a_stale_write_is_accepted() {
    caught(Missing::Core(Safeguard::Proof), Some("epochs_grow"), 400, &["fenced_writes", "demotion_first"]);
}

#[test]
fn without_the_proof_of_claims_a_late_claim_makes_a_leader_of_an_earlier_epoch() {
    caught(Missing::Core(Safeguard::Proof), None, 400, &["epochs_grow", "fenced_writes", "demotion_first"]);
}

#[test]
fn without_the_lease_a_gate_stays_open() {
    caught(Missing::Core(Safeguard::Lease), None, 50, &["gate_within_lease"]);
}

#[test]
fn without_the_lease_two_lead_at_once() {
    caught(Missing::Core(Safeguard::Lease), Some("gate_within_lease"), 50, &["one_gate", "demotion_first"]);
}

#[test]
fn counting_the_lease_from_what_the_leader_of_the_ensemble_was_not_told_two_lead_at_once() {
    caught(Missing::Core(Safeguard::Told), None, 1000, &["one_gate", "demotion_first"]);
}

#[test]
fn without_the_owner_check_a_dying_znode_is_led_by() {
    caught(Missing::Core(Safeguard::Owner), None, 400, &["one_gate", "demotion_first"]);
}

#[test]
fn without_the_order_of_suffixes_a_newcomer_leads_beside_the_leader() {
    caught(Missing::Core(Safeguard::SuffixOrder), None, 20, &["one_gate", "demotion_first", "epochs_grow"]);
}

#[test]
fn without_the_check_at_workers_a_stale_task_is_accepted() {
    caught(Missing::WorkerFence, None, 20, &["fenced_workers"]);
}

#[test]
fn without_admission_a_node_prepares_what_is_not_for_it() {
    caught_in_rollouts(Missing::Core(Safeguard::Admission), None, 20, &["rollout_admits"]);
}

#[test]
fn without_waiting_for_waves_more_change_at_once_than_may() {
    caught_in_rollouts(Missing::Core(Safeguard::Waves), None, 20, &["rollout_waves"]);
}

/// Lasting watches do not outlive their connection: what happens afterwards is not told.
#[test]
fn without_listing_anew_on_a_new_connection_members_are_missed() {
    caught(Missing::Core(Safeguard::Relist), Some("watches_at_rest"), 200, &["members_at_rest"]);
}
