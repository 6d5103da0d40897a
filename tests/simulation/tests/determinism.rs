//! The same seed gives the same run.

use bellwether_simulation::{Options, run};

#[test]
fn the_same_seed_twice_gives_the_same_history_step_by_step() {
    for seed in [0, 1, 7, 42, 1256, u64::MAX] {
        let one = run(seed, Options::default()).unwrap();
        let two = run(seed, Options::default()).unwrap();
        assert_eq!((one.step, one.now, one.history.digest), (two.step, two.now, two.history.digest), "seed {seed}");
        assert_eq!(format!("{:?}", one.history), format!("{:?}", two.history), "seed {seed}");
        assert_eq!(one.ensemble.server, two.ensemble.server, "seed {seed}");
        let cores = |world: &bellwether_simulation::World| {
            world.nodes.iter().map(|node| format!("{:?}", node.core)).collect::<Vec<_>>()
        };
        assert_eq!(cores(&one), cores(&two), "seed {seed}");
    }
}

#[test]
fn different_seeds_give_different_runs() {
    let digests: std::collections::BTreeSet<u64> =
        (0..50).map(|seed| run(seed, Options::default()).unwrap().history.digest).collect();
    assert_eq!(digests.len(), 50);
}
