//! Releases swapped again and again, on the leader and on the workers, while tasks flow: nothing is lost, nothing is done twice, and
//! nobody but the operator notices.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bellwether_tests::cluster::{Cluster, Node};
use bellwether_tests::guests::guest_bytes;
use bellwether_tests::load::{Tally, sessions, swapped};
use bellwether_tests::measure::{Figures, megabytes, print, resident};
use bellwether_tests::zookeeper::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

const GROUP: &str = "busy";
const NODES: usize = 3;
/// How many swaps at least, on all nodes together.
const SWAPS: usize = 1000;
/// How many swaps at the beginning and at the end are compared in what the nodes hold of memory.
const COMPARED: usize = 100;
/// On each node.
const ROUNDS: usize = SWAPS.div_ceil(NODES);

/// Two components that do the same and are not the same release: the second has a section more, of no meaning.
fn releases(folder: &Path) -> Result<[std::path::PathBuf; 2]> {
    let paths = [folder.join("even.wasm"), folder.join("odd.wasm")];
    let mut bytes = guest_bytes("probe");
    std::fs::write(&paths[0], &bytes)?;
    bytes.extend(b"\x00\x06\x05again");
    std::fs::write(&paths[1], &bytes)?;
    Ok(paths)
}

fn mean(bytes: &[u64]) -> u64 {
    bytes.iter().sum::<u64>() / bytes.len().max(1) as u64
}

#[test]
fn thousand_swaps_while_callbacks_and_tasks_flow_lose_nothing_and_repeat_nothing() -> Result<()> {
    let server = Server::start()?;
    let folder = TempDir::with_prefix("bw-")?;
    let done = folder.path().join("done");
    std::fs::create_dir(&done)?;
    let components = releases(folder.path())?;
    let group = format!(
        "[group.config]\non-tick = \"batch 8 20000 /done\"\n[group.tick]\nevery = \"10ms\"\n[group.limits]\ncallback = \"30s\"\n\
         [[group.grants.folders]]\nhost = {done:?}\nguest = \"/done\"\nmode = \"write\"\n"
    );
    let cluster = Cluster::builder(server.address())
        .nodes(NODES)
        .session_timeout(Duration::from_secs(6))
        // The allocator's pools a thread, which fill at random, would hide what is measured.
        .env("MALLOC_ARENA_MAX", "1")
        .group(GROUP, &components[0], &group)
        .start()?;
    cluster.wait_ready()?;
    let leader = cluster.node(cluster.wait_leader(GROUP)?);
    let epoch = leader.group(GROUP)?["epoch"].as_u64();
    let held = sessions(&cluster)?;
    let (mut of_leader, mut of_workers) = (Figures::default(), Figures::default());
    let mut memory = vec![Vec::new(); cluster.nodes().len()];
    let mut seen = Tally::beyond(&cluster, leader, GROUP, 0)?.batches;
    let mut under_way = 0;
    let began = Instant::now();
    for round in 1..=ROUNDS {
        for (index, node) in cluster.nodes().iter().enumerate() {
            under_way += node.group(GROUP)?["tasks"]["in_flight"].as_u64().unwrap_or_default();
            let pause = swapped(node, GROUP, Some(&components[round % 2]), &[])?;
            if node.id() == leader.id() {
                of_leader.push(pause)
            } else {
                of_workers.push(pause)
            };
            memory[index].push(resident(node.pid()?)?);
        }
        // Tasks flow on between two rounds, and so while each of them lasts.
        seen = Tally::beyond(&cluster, leader, GROUP, seen)?.batches;
    }
    let took = began.elapsed();

    std::fs::write(done.join("stop"), "")?;
    let called = |node: &Node| node.group(GROUP).ok()?["callbacks"]["called"].as_u64();
    let then = called(leader).context("no count of callbacks")?;
    // A callback is counted when it begins, and the next one begins when it has ended.
    cluster.wait_until("the last batch to end", |_| called(leader).is_some_and(|now| now >= then + 2))?;

    let tally = Tally::read(leader, GROUP)?.context("no counts")?;
    assert_eq!((tally.answered, tally.failed), (tally.issued, 0), "every task was answered: {tally:?}");
    let files: BTreeSet<String> = std::fs::read_dir(&done)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    let expected: BTreeSet<String> = (0..tally.issued).map(|n| n.to_string()).chain(["stop".to_owned()]).collect();
    let strange: Vec<_> = files.symmetric_difference(&expected).collect();
    assert!(strange.is_empty(), "tasks lost or done twice: {strange:?}");

    assert_eq!(sessions(&cluster)?, held, "a session was lost");
    assert_eq!((Some(tally.epoch), leader.group(GROUP)?["epoch"].as_u64()), (epoch, epoch), "leadership moved");
    let (mut tasks, mut elected, mut retold) = (0, 0, 0);
    for node in cluster.nodes() {
        let group = node.group(GROUP)?;
        for nothing in
            ["/callbacks/failed", "/callbacks/restarts", "/tasks/failed", "/tasks/refused", "/tasks/in_flight"]
        {
            assert_eq!(group.pointer(nothing), Some(&json!(0)), "{}: {nothing} of {group:#}", node.id());
        }
        assert_eq!(group["last_error"], Value::Null, "{}", node.id());
        tasks += group["tasks"]["done"].as_u64().unwrap_or_default();
        elected += node.logged(0, |line| line.tells(GROUP, "elected")).len();
        let told = |line: &bellwether_tests::cluster::Line| {
            line.guest("on-elected").is_some_and(|text| text == format!("epoch {} by Cause::Swap", tally.epoch))
        };
        retold += node.logged(0, told).len();
    }
    assert_eq!(tasks, tally.issued, "the workers counted other tasks than the leader");
    assert_eq!(
        (elected, retold),
        (1, ROUNDS),
        "elected once, and each new release on the leader was told of that term"
    );

    assert!(under_way > 0, "no swap met a task under way: nothing was shown");
    print(format_args!(
        "{} swaps on {NODES} nodes in {:.0} s, {} tasks in {} batches meanwhile; the swaps met {under_way} tasks under way",
        ROUNDS * NODES,
        took.as_secs_f64(),
        tally.issued,
        tally.batches
    ));
    print(format_args!("pause of callbacks on the leader (a counter of state): {of_leader}"));
    print(format_args!("pause of callbacks on the workers: {of_workers}"));
    let compared = COMPARED / NODES;
    for (node, memory) in cluster.nodes().iter().zip(&memory) {
        let (first, last) = (mean(&memory[..compared]), mean(&memory[memory.len() - compared..]));
        print(format_args!(
            "{}: {:.1} MB over its first {compared} swaps, {:.1} MB over its last",
            node.id(),
            megabytes(first),
            megabytes(last)
        ));
        // 13 KiB a swap, where an instance or a component that is not let go takes a hundred times as much.
        assert!(last < first + (4 << 20), "{}: memory grew from {first} to {last} bytes", node.id());
    }
    Ok(())
}
