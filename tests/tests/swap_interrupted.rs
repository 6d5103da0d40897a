//! A swap that is overtaken by the election: leadership or the session goes in the middle of it. It ends as if nothing had been
//! under way: one leader, told by its own term; the new release where it was asked for, with the state of the old one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Cluster, Node, PATIENCE};
use bellwether_tests::guests::guest;
use bellwether_tests::proxy::Proxy;
use bellwether_tests::zookeeper::Server;
use serde_json::Value;
use tempfile::TempDir;

const GROUP: &str = "g";
/// Long enough that a busy machine does not look like a fault.
const T: Duration = Duration::from_secs(3);

struct Bed {
    // Dropped in this order: nodes that lose their server would only fill their logs.
    cluster: Cluster,
    proxies: Vec<Proxy>,
    _server: Server,
    _orders: TempDir,
    leader: usize,
}

impl Bed {
    fn start() -> Result<Self> {
        let server = Server::start()?;
        let orders = TempDir::with_prefix("bw-")?;
        // What the new release does while it restores: it says so, and takes its time.
        std::fs::write(orders.path().join("restore"), "log restoring\nsleep 2000\n")?;
        let proxies: Vec<Proxy> = (0..2).map(|_| Proxy::start(server.address())).collect::<Result<_>>()?;
        let addresses: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
        let group = format!(
            "config = {{ \"on-tick\" = \"tell count\" }}\n[group.tick]\nevery = \"50ms\"\nwhen = \"always\"\n[group.limits]\n\
             callback = \"30s\"\n[[group.grants.folders]]\nhost = {:?}\nguest = \"/orders\"\n",
            orders.path()
        );
        let cluster = Cluster::builder(server.address())
            .nodes(2)
            .session_timeout(T)
            .connect(move |index| addresses[index].clone())
            .group(GROUP, guest("probe"), &group)
            .start()?;
        cluster.wait_ready()?;
        let leader = cluster.wait_leader(GROUP)?;
        cluster.wait_until("some ticks to be counted", |cluster| counted(cluster.node(leader)).len() > 5)?;
        Ok(Self { cluster, proxies, _server: server, _orders: orders, leader })
    }

    fn node(&self) -> &Node {
        self.cluster.node(self.leader)
    }

    /// Begins a swap on the leader and does `what` in the middle of it; gives the report.
    fn swap_and(&self, what: impl FnOnce() -> Result<()>) -> Result<Value> {
        let node = self.node();
        let mark = node.mark();
        std::thread::scope(|scope| {
            let swap =
                scope.spawn(|| node.cli(&["swap", GROUP, "--config", "restore=script /orders/restore", "--json"]));
            node.wait_log(mark, "the new release to restore", |line| line.guest("probe") == Some("restoring"))?;
            what()?;
            swap.join().map_err(|_| anyhow::anyhow!("the swap's thread has panicked"))??.json()
        })
    }

    /// One node leads and the other works; the former leader runs the new release, and went on counting where the old one was.
    fn consistent(&self, before: &Value, report: &Value) -> Result<usize> {
        let node = self.node();
        ensure!(report["outcome"] == "committed", "{report:#}");
        let leader = self.cluster.wait_successor(GROUP, self.leader)?;
        self.cluster.wait_ready()?;
        let after = node.group(GROUP)?;
        assert_eq!(after["release"]["id"], report["release"]);
        assert_ne!(after["release"]["id"], before["release"]["id"]);
        assert_eq!(after["role"], "worker");
        assert_eq!(after["callbacks"]["restarts"], 0, "{after:#}");
        let epoch = |group: &Value| group["epoch"].as_u64().context("no epoch");
        assert!(epoch(&self.cluster.node(leader).group(GROUP)?)? > epoch(before)?);
        let told = |name: &str| node.logged(0, |line| line.guest(name).is_some()).len();
        // Whoever was told of the term was told of its end: the old release. The new one heard of none.
        assert_eq!((told("on-elected"), told("on-demoted")), (1, 1));
        let numbers = counted(node);
        let steps: Vec<u64> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert!(steps.iter().all(|step| (2..=6).contains(step)), "the count was lost: {numbers:?}");
        Ok(leader)
    }
}

/// The numbers that the probe counted, tick by tick: two a tick, and one for each other callback.
fn counted(node: &Node) -> Vec<u64> {
    let lines = node.logged(0, |line| line.guest("tell").is_some());
    let number = |text: &str| text.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    lines.iter().filter_map(|line| number(line.guest("tell")?)).collect()
}

#[test]
fn leadership_that_moves_in_the_middle_of_a_swap() -> Result<()> {
    let bed = Bed::start()?;
    let before = bed.node().group(GROUP)?;
    let session = bed.node().status()?["session"]["id"].clone();
    let report = bed.swap_and(|| {
        let resigned = bed.node().cli(&["resign", GROUP])?;
        ensure!(resigned.code() == Some(0), "{}", resigned.stderr);
        Ok(())
    })?;
    let successor = bed.consistent(&before, &report)?;
    assert_eq!(bed.node().status()?["session"]["id"], session, "the session stays");

    // And back: the new release leads as the old one did.
    ensure!(bed.cluster.node(successor).cli(&["resign", GROUP])?.code() == Some(0), "it leads");
    assert_eq!(bed.cluster.wait_successor(GROUP, successor)?, bed.leader);
    Ok(())
}

#[test]
fn a_session_that_is_lost_in_the_middle_of_a_swap() -> Result<()> {
    let bed = Bed::start()?;
    let before = bed.node().group(GROUP)?;
    let session = bed.node().status()?["session"]["id"].clone();
    let report = bed.swap_and(|| {
        bed.proxies[bed.leader].cut();
        bed.cluster.wait_successor(GROUP, bed.leader).map(drop)
    })?;
    bed.proxies[bed.leader].heal();
    bed.cluster.wait_for("the node to have another session", PATIENCE, |_| {
        let now = bed.node().status().ok()?["session"]["id"].clone();
        (now.is_string() && now != session).then_some(())
    })?;
    bed.consistent(&before, &report).map(drop)
}
