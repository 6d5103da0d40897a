//! Releases swapped again and again, on the leader and on the workers, while tasks flow: nothing is lost, nothing is done twice, and
//! nobody but the operator notices.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Cluster, Node};
use bellwether_tests::guests::guest_bytes;
use bellwether_tests::measure::{Figures, megabytes, print, resident};
use bellwether_tests::zookeeper::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

const GROUP: &str = "busy";
const SWAPS: usize = 100;
/// How many swaps at the beginning and at the end are compared in what the nodes hold of memory.
const COMPARED: usize = 20;

/// What the probe's leader writes down after each batch (`guests/testing/probe/src/load.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    batches: u64,
    issued: u64,
    answered: u64,
    failed: u64,
    epoch: u64,
}

fn tally(leader: &Node) -> Result<Option<Tally>> {
    let Some(text) = leader.state(GROUP, "load")? else { return Ok(None) };
    let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [batches, issued, answered, failed, epoch] = numbers[..] else {
        anyhow::bail!("the leader's counts are {text:?}");
    };
    Ok(Some(Tally { batches, issued, answered, failed, epoch }))
}

/// Two components that do the same and are not the same release: the second has a section more, of no meaning.
fn releases(folder: &Path) -> Result<[std::path::PathBuf; 2]> {
    let paths = [folder.join("even.wasm"), folder.join("odd.wasm")];
    let mut bytes = guest_bytes("probe");
    std::fs::write(&paths[0], &bytes)?;
    bytes.extend(b"\x00\x06\x05again");
    std::fs::write(&paths[1], &bytes)?;
    Ok(paths)
}

/// Swaps and gives the pause of callbacks that the node reports.
fn swap(node: &Node, component: &Path) -> Result<Duration> {
    let request = json!({ "component": component }).to_string();
    let (code, body) = node.http("POST", &format!("/v1/nodes/{}/groups/{GROUP}/swap", node.id()), &request)?;
    ensure!(code == 200, "{} did not swap: {code} {body}", node.id());
    let report: Value = serde_json::from_str(&body)?;
    ensure!(report["outcome"] == "committed" && report["release"] != report["from"], "{}: {body}", node.id());
    let pause = report["pause_us"].as_u64().with_context(|| format!("{}: no pause in {body}", node.id()))?;
    Ok(Duration::from_micros(pause))
}

fn sessions(cluster: &Cluster) -> Result<Vec<String>> {
    let id = |node: &Node| Ok(node.status()?["session"]["id"].as_str().context("no session")?.to_owned());
    cluster.nodes().iter().map(id).collect()
}

fn mean(bytes: &[u64]) -> u64 {
    bytes.iter().sum::<u64>() / bytes.len().max(1) as u64
}

#[test]
fn a_hundred_swaps_while_tasks_flow_lose_nothing_and_repeat_nothing() -> Result<()> {
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
        .nodes(3)
        .session_timeout(Duration::from_secs(6))
        // The allocator's pools a thread, which fill at random, would hide what is measured.
        .env("MALLOC_ARENA_MAX", "1")
        .group(GROUP, &components[0], &group)
        .start()?;
    cluster.wait_ready()?;
    let leader = cluster.node(cluster.wait_leader(GROUP)?);
    let epoch = leader.group(GROUP)?["epoch"].as_u64();
    let held = sessions(&cluster)?;
    let batches = |beyond: u64| {
        cluster.wait_for("tasks to flow", Duration::from_secs(60), |_| {
            tally(leader).ok().flatten().filter(|tally| tally.batches > beyond).map(|tally| tally.batches)
        })
    };

    let (mut of_leader, mut of_workers) = (Figures::default(), Figures::default());
    let mut memory = vec![Vec::new(); cluster.nodes().len()];
    let mut seen = batches(0)?;
    let mut under_way = 0;
    for round in 1..=SWAPS {
        for (index, node) in cluster.nodes().iter().enumerate() {
            under_way += node.group(GROUP)?["tasks"]["in_flight"].as_u64().unwrap_or_default();
            let pause = swap(node, &components[round % 2])?;
            if node.id() == leader.id() {
                of_leader.push(pause)
            } else {
                of_workers.push(pause)
            };
            memory[index].push(resident(node.pid()?)?);
        }
        // Tasks flow on between two rounds, and so while each of them lasts.
        seen = batches(seen)?;
    }

    std::fs::write(done.join("stop"), "")?;
    let called = |node: &Node| node.group(GROUP).ok()?["callbacks"]["called"].as_u64();
    let then = called(leader).context("no count of callbacks")?;
    // A callback is counted when it begins, and the next one begins when it has ended.
    cluster.wait_until("the last batch to end", |_| called(leader).is_some_and(|now| now >= then + 2))?;

    let tally = tally(leader)?.context("no counts")?;
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
    assert_eq!((elected, retold), (1, SWAPS), "elected once, and each new release on the leader was told of that term");

    assert!(under_way > 0, "no swap met a task under way: nothing was shown");
    print(format_args!(
        "{} tasks in {} batches over {SWAPS} swaps on each of 3 nodes, which met {under_way} tasks under way",
        tally.issued, tally.batches
    ));
    print(format_args!("pause of callbacks on the leader (a counter of state): {of_leader}"));
    print(format_args!("pause of callbacks on the workers: {of_workers}"));
    for (node, memory) in cluster.nodes().iter().zip(&memory) {
        let (first, last) = (mean(&memory[..COMPARED]), mean(&memory[memory.len() - COMPARED..]));
        print(format_args!(
            "{}: {:.1} MB over the first {COMPARED} swaps, {:.1} MB over the last",
            node.id(),
            megabytes(first),
            megabytes(last)
        ));
        // 50 KiB a swap, where an instance or a component that is not let go takes more.
        assert!(last < first + (4 << 20), "{}: memory grew from {first} to {last} bytes", node.id());
    }
    Ok(())
}
