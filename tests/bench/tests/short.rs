//! The benchmarks in a short form, so that they do not rot. Counts and order are asserted, never times.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bellwether_bench::failover::{self, Fate};
use bellwether_bench::field::{Change, Kind, Layout, zookeeper};
use bellwether_bench::handover::{self, Rest};
use bellwether_bench::{callback, footprint, registry, swap, tasks};

/// Short, for what waits for the end of a session.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Long, for what must not be disturbed by one.
const LONG: Duration = Duration::from_secs(20);

/// Who was elected, in order; each with a greater epoch than the one before.
fn elected(changes: &[Change]) -> Vec<&Change> {
    let elected: Vec<_> = changes.iter().filter(|change| change.elected).collect();
    assert!(elected.is_sorted_by(|before, after| before.epoch < after.epoch), "{elected:#?}");
    elected
}

#[test]
fn each_resignation_moves_leadership_once_and_wakes_one_candidate() -> Result<()> {
    let server = zookeeper()?;
    let operations = 12;
    let plan = handover::Plan { operations, warm_up: 3, rest: Rest::Whole, timeout: LONG };
    for layout in [Layout { processes: 3, each: 1 }, Layout { processes: 1, each: 10 }] {
        let measured = handover::run(Kind::Bellwether, layout, &server, &plan)?;
        assert_eq!(measured.times.len(), operations);
        assert_eq!(elected(&measured.changes).len(), operations, "{:#?}", measured.changes);
        // The former leader has been told before its successor: the two alternate.
        assert!(measured.changes.iter().enumerate().all(|(at, change)| change.elected == (at % 2 == 1)));
        let demotions = measured.changes.iter().filter(|change| !change.elected).count();
        assert_eq!(demotions, operations);
        // The successor's watch on the leader's znode, and no other; but for a former leader that now and then has not let go of the members
        // yet when its successor's goes.
        let few = operations as u64..=operations as u64 + 3;
        assert!(few.contains(&measured.counts.deletions), "{:?}", measured.counts);
    }
    Ok(())
}

#[test]
fn a_bare_recipe_moves_leadership_as_well() -> Result<()> {
    let server = zookeeper()?;
    let plan = handover::Plan { operations: 12, warm_up: 3, rest: Rest::Whole, timeout: LONG };
    for layout in [Layout { processes: 3, each: 1 }, Layout { processes: 1, each: 10 }] {
        let measured = handover::run(Kind::Bare, layout, &server, &plan)?;
        assert_eq!((measured.times.len(), measured.counts.deletions), (12, 12), "{:?}", measured.counts);
        assert!(measured.changes.iter().enumerate().all(|(at, change)| change.elected == (at % 2 == 1)));
    }
    Ok(())
}

#[test]
fn a_crash_a_pause_and_a_cut_have_one_successor_each() -> Result<()> {
    let server = zookeeper()?;
    for fate in [Fate::Killed, Fate::Lost, Fate::Paused, Fate::Cut] {
        let trials = failover::run(Kind::Bellwether, &server, TIMEOUT, fate, 1)?;
        assert_eq!(trials.len(), 1);
        assert_eq!(elected(&trials[0].changes).len(), 1, "{trials:#?}");
        assert_eq!(trials[0].awake.is_some(), fate == Fate::Paused);
        // Whose link is cut has been told before its successor.
        assert_eq!(trials[0].overlap, (fate == Fate::Cut).then_some(Duration::ZERO));
    }
    Ok(())
}

#[test]
fn a_footprint_is_taken() -> Result<()> {
    let server = zookeeper()?;
    let found = footprint::run(Kind::Bellwether, &server, TIMEOUT, 1)?;
    assert_eq!(found.len(), 1);
    assert!(found[0].threads > 1 && found[0].resident > 1 << 20, "{found:?}");
    Ok(())
}

#[test]
fn heartbeats_are_as_many_in_many_groups_as_in_one() -> Result<()> {
    let server = zookeeper()?;
    for groups in [1, 30] {
        let found = footprint::many(&server, TIMEOUT, groups)?;
        // One each sixth of the session timeout, in two of them.
        assert!((1..=13).contains(&found.heartbeats), "{groups} groups: {found:?}");
    }
    Ok(())
}

#[test]
fn tasks_are_measured_and_an_echo_beside_them() -> Result<()> {
    let server = zookeeper()?;
    for bytes in [0, 100_000] {
        let plan = tasks::Plan { bytes, sends: 5, workers: vec![1, 2], pieces: 4, scatters: 2 };
        let ours = tasks::bellwether(&server, &bytes.to_string(), &plan)?;
        let echoed = tasks::echoed(Path::new(env!("CARGO_BIN_EXE_bellwether-bench")), &plan)?;
        for measured in [ours, echoed] {
            assert_eq!(measured.rates.iter().map(|(workers, _)| *workers).collect::<Vec<_>>(), plan.workers);
            assert!(measured.rates.iter().all(|(_, rate)| rate.is_finite() && *rate > 0.0), "{measured:?}");
        }
    }
    Ok(())
}

#[test]
fn a_join_costs_the_same_however_many_members_there_are() -> Result<()> {
    let server = zookeeper()?;
    let few = registry::run(Kind::Bellwether, &server, "few", registry::Plan { members: 10, joins: 5, storm: 40 })?;
    let many = registry::run(Kind::Bellwether, &server, "many", registry::Plan { members: 400, joins: 5, storm: 40 })?;
    for measured in [&few, &many] {
        assert_eq!(measured.times.len(), 5);
        // For each the new member, and a few heartbeats and pings meanwhile; never the others again.
        assert!((5..100).contains(&measured.read), "{measured:?}");
    }
    Ok(())
}

#[test]
fn swaps_are_measured_while_every_call_is_answered() -> Result<()> {
    let server = zookeeper()?;
    for what in [swap::Swapped::State(0), swap::Swapped::State(64 << 10)] {
        let plan = swap::Plan { what, swaps: 10, rest: Duration::from_millis(20), rate: 200 };
        let measured = swap::run(&server, &what.to_string().replace(' ', "-"), &plan)?;
        assert_eq!((measured.pauses.len(), &measured.failed), (10, &BTreeMap::new()));
        assert!(measured.callers.iter().all(|calls| !calls.is_empty()), "{measured:?}");
    }
    let compiling = swap::compile(&server, "small", 200, 64 << 10, Duration::from_millis(200))?;
    assert_eq!(compiling.failed, BTreeMap::new());
    assert!(compiling.callers.iter().all(|calls| !calls.is_empty()), "{compiling:?}");
    Ok(())
}

#[test]
fn calls_into_a_guest_are_measured() -> Result<()> {
    for apart in [false, true] {
        let measured = callback::run(&[0, 100], apart, 200)?;
        assert_eq!(measured.iter().map(|one| one.members).collect::<Vec<_>>(), [0, 100]);
        assert!(measured.iter().all(|one| !one.median().is_zero()), "{measured:?}");
    }
    Ok(())
}
