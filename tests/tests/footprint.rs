//! What a node costs: memory, and the time until it takes part. Printed, beside a candidate of Kazoo's; what is asserted is a guard
//! against an accident, not a goal.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use bellwether_tests::cluster::{Cluster, Line, PATIENCE};
use bellwether_tests::guests::guest;
use bellwether_tests::measure::{Figures, boottime, megabytes, print, resident};
use bellwether_tests::peers_tools::{Peer, Recipe};
use bellwether_tests::zookeeper::Server;

const GROUP: &str = "small";
/// How often a node is started.
const STARTS: usize = 10;
/// A node that holds more has something it should not have, whatever the build.
const GUARD: u64 = 120_000_000;
const TIMEOUT: Duration = Duration::from_secs(6);

/// What the starts of one kind came to.
#[derive(Debug, Default)]
struct Starts {
    times: Figures,
    held: Vec<u64>,
}

impl Starts {
    fn add(&mut self, time: Duration, held: u64) {
        self.times.push(time);
        self.held.push(held);
        self.held.sort_unstable();
    }

    fn most(&self) -> u64 {
        self.held.last().copied().unwrap_or_default()
    }
}

/// As in `resident 40.1 MB (39.8 to 40.5), after p50 …`.
impl fmt::Display for Starts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |rank: usize| self.held.get(rank).map_or(0.0, |held| megabytes(*held));
        let (median, last) = (self.held.len() / 2, self.held.len().saturating_sub(1));
        write!(
            f,
            "{} from the start of the process; resident {:.1} MB ({:.1} to {:.1})",
            self.times,
            at(median),
            at(0),
            at(last)
        )
    }
}

/// Starts a node again and again, each time until its log has a line that matches. The first start compiles the guest, and is not
/// counted.
fn starts(cluster: &Cluster, node: usize, what: &str, matches: impl Fn(&Line) -> bool) -> Result<Starts> {
    let node = cluster.node(node);
    let mut starts = Starts::default();
    for start in 0..=STARTS {
        let (mark, since) = (node.mark(), boottime());
        node.start()?;
        let line = node.wait_log(mark, what, &matches)?;
        // The stamp of the node itself, where the line has one; otherwise the time at which it was seen, some ms later.
        let stamp = line.json["fields"]["at_ns"].as_u64().map_or_else(boottime, Duration::from_nanos);
        cluster.wait_ready()?;
        if start > 0 {
            starts.add(stamp - since, resident(node.pid()?)?);
        }
        assert_eq!(node.stop()?, 0, "a node that is told to stop ends well");
    }
    Ok(starts)
}

/// Kazoo's candidate: what it holds, and how long it took from its start until it led.
fn kazoo(server: &Server, round: usize) -> Result<(u64, Duration)> {
    let since = boottime();
    // Each on a path of its own: a former one's session may still be there.
    let path = format!("/kazoo-{round}");
    let peer = Peer::start(Recipe::Kazoo, &server.address().to_string(), &path, TIMEOUT, "kazoo", 1)?;
    let deadline = boottime() + PATIENCE;
    loop {
        if let Some(elected) = peer.events(0).into_iter().find(|event| event.elected) {
            return Ok((resident(peer.pid())?, elected.at - since));
        }
        anyhow::ensure!(boottime() < deadline, "Kazoo's candidate was not elected");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_node_with_one_guest_is_small_and_soon_there() -> Result<()> {
    let server = Server::start()?;
    let cluster = Cluster::builder(server.address())
        .nodes(2)
        .session_timeout(TIMEOUT)
        .env("BELLWETHER_LOG", "info,bellwether::effects=debug")
        .group(GROUP, guest("probe"), "")
        .prepare()?;
    let leader = starts(&cluster, 0, "on-elected", |line| line.json["fields"]["effect"] == "elected-left")?;
    cluster.node(0).start()?;
    cluster.wait_leader(GROUP)?;
    let worker = starts(&cluster, 1, "registration", |line| line.tells(GROUP, "registered"))?;
    let binary = std::fs::metadata(bellwether_tests::cli::binary())?.len();
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    print(format_args!(
        "a node with one Rust guest, compiled before ({profile} profile, {:.0} MB on disk):",
        megabytes(binary)
    ));
    print(format_args!("  registered as a worker: {worker}"));
    print(format_args!("  alone, until on-elected has returned: {leader}"));
    assert!(leader.most().max(worker.most()) < GUARD, "a node holds too much: {leader}; {worker}");

    let mut peers = Starts::default();
    for round in 0..STARTS {
        match kazoo(&server, round) {
            Ok((bytes, time)) => peers.add(time, bytes),
            // It is there to compare with, not to test: without it the test says so, and has still tested ours.
            Err(error) if round == 0 => {
                print(format_args!("there is no Kazoo to compare with: {error:#}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    print(format_args!("a candidate of Kazoo's, alone, until it leads: {peers}"));
    Ok(())
}
