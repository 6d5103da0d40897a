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

/// Seeds at which early versions of this simulation stopped.
#[test]
fn the_first_seeds_that_failed() {
    hold(&[
        7, 40, 114, 165, 191, 228, 241, 249, 256, 276, 519, 569, 619, 745, 929, 1256, 1757, 3120, 4051, 4250, 4578,
        8291,
    ]);
}
