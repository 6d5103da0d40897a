//! Seeds that once failed, each for a fault of the core that has been mended since. With that fault put back, each of them
//! fails again (that was tried when it was added; a change of the simulation itself may take that from it).

use bellwether_simulation::{Options, run};

fn hold(seeds: &[u64]) {
    for seed in seeds {
        run(*seed, Options::default()).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

/// A worker never looked whether the znode under its own id was still there: an operator deleted it, and another process could
/// have taken the id unnoticed.
#[test]
fn a_workers_own_znode_is_put_back() {
    hold(&[17, 28, 34]);
}

/// A node that was shutting down when its session ended asked to be woken for opening another, which it would not do, at once and
/// again and again.
#[test]
fn a_node_on_its_way_out_does_not_spin() {
    hold(&[287, 416, 502]);
}

/// The group was deleted and made again: the names of members began anew, and the leader took them for those it had read before.
#[test]
fn names_that_are_used_again_are_read_again() {
    hold(&[209, 7371, 7468]);
}

/// A snapshot that was refused cost the old instance its place, though a swap that fails must leave it as it was; and it went on
/// acting beside its successor.
#[test]
fn a_refused_snapshot_leaves_the_old_instance() {
    hold(&[494, 516, 1185]);
}

/// A leader whose step of a rollout was refused did not look at the document again, and took no other in its next term.
#[test]
fn a_leader_whose_step_was_refused_looks_again() {
    let options = Options { nodes: 5, ..Options::default() };
    run(2481, options).unwrap_or_else(|violation| panic!("{violation}"));
}

fn hold_in_rollouts(nodes: usize, seeds: &[u64]) {
    for seed in seeds {
        let options = Options { nodes, rollouts: true, ..Options::default() };
        run(*seed, options).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

/// A node that had been admitted started again, could not load what was coming, and had nothing to run: alone, it could never lead
/// its group back.
#[test]
fn a_node_that_cannot_load_what_comes_runs_what_was() {
    hold_in_rollouts(1, &[55, 68, 145]);
}

/// An instance was lost while its successor was being prepared: that took its place without any probation, and was taken for good.
#[test]
fn what_takes_the_place_of_a_lost_instance_proves_itself() {
    hold_in_rollouts(1, &[203]);
}

/// An operator deleted a group's znodes, and nodes that met the document when it had been put back did not miss their reports.
#[test]
fn a_report_that_was_lost_is_made_anew() {
    hold_in_rollouts(3, &[0, 68, 544]);
}

/// A node went back to its manifest's release and gave it what a file had handed over that it had run in between.
#[test]
fn the_state_that_is_kept_is_of_the_release_that_is_gone_back_to() {
    hold_in_rollouts(3, &[869]);
}
/// Seeds at which early versions of this simulation stopped.
#[test]
fn the_first_seeds_that_failed() {
    hold(&[
        7, 40, 114, 165, 191, 228, 241, 249, 256, 276, 519, 569, 619, 745, 929, 1256, 1757, 3120, 4051, 4250, 4578,
        8291,
    ]);
}
