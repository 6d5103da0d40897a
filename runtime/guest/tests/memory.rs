//! A process of its own, since it looks at the memory of the whole process.

#![allow(clippy::expect_used, reason = "a test says what it relies on")]

mod support;

use bellwether_core::callback::Callback;
use support::{PATIENCE, Script};

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the resident size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_instances_leave_nothing_behind() {
    let linked = support::linked(&Default::default(), &Default::default(), &[("on-tick", "allocate-mib 4")]).await;
    let mut sizes = Vec::new();
    for round in 0..1_100 {
        let instance = linked.instantiate(Script::new()).await.expect("an instance");
        instance.call(Callback::Tick, PATIENCE).await.expect("a tick");
        // Both ends: dropped by its owner, and stopped by force.
        if round % 2 == 0 {
            instance.stop();
        }
        let ended = instance.clone();
        drop(instance);
        ended.stop();
        ended.closed().await;
        if round % 100 == 99 {
            sizes.push(resident_kib());
        }
    }
    let (warm, last) = (sizes[0], sizes[sizes.len() - 1]);
    assert!(last < warm + (24 << 10), "the process grows: {sizes:?} KiB");
}
