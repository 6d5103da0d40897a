//! `registry`: a member joins → whoever watches has been told.
//!
//! Members are znodes that one and the same program makes, in the same way for all kinds, below a leader's registry or below a
//! path that a CuratorCache watches. The clock starts before the znode is asked for and stops in `on-members-changed`, or in
//! the cache's listener. All stamps are of the wall clock, the only one that guests have.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bellwether_tests::cluster::{Cluster, Node};
use bellwether_tests::guests::guest;
use bellwether_tests::measure::Figures;
use bellwether_tests::peers_tools::Peer;
use bellwether_tests::zookeeper::Server;

use crate::bed::{PATIENCE, settled};
use crate::field::Kind;

/// What is done once.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Members that are there before.
    pub members: usize,
    /// Joins, one after the other.
    pub joins: usize,
    /// Members that join all at once afterwards; none if 0.
    pub storm: usize,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Measured {
    /// From each join until it was heard of.
    pub times: Figures,
    /// What the joins cost whoever watches, in requests, pings left out as far as they can be told.
    pub read: u64,
    /// From the first of the storm until the last was heard of.
    pub storm: Duration,
    /// In how many calls the storm was told.
    pub calls: usize,
}

const GROUP: &str = "bench";

/// Who watches.
enum Watcher {
    Leader(Cluster),
    Cache(Peer),
}

impl Watcher {
    /// The stamps of all calls so far and how many members each told of, once there are `count` members in all.
    fn heard(&self, count: usize) -> Result<Vec<(Duration, usize)>> {
        match self {
            Self::Cache(peer) => Ok(peer.heard(count)?.into_iter().map(|at| (at, 1)).collect()),
            Self::Leader(cluster) => {
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let calls = told(cluster.node(0));
                    if calls.iter().map(|(_, joined)| joined).sum::<usize>() >= count {
                        return Ok(calls);
                    }
                    if Instant::now() > deadline {
                        bail!("waited {PATIENCE:?} in vain for {count} members\n{}", cluster.report());
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }
}

/// What the guest `stamp` has written.
fn told(node: &Node) -> Vec<(Duration, usize)> {
    let lines = node.logged(0, |line| line.guest("members").is_some());
    let call = |text: &str| {
        let (at, joined) = text.split_once(' ')?;
        Some((Duration::from_nanos(at.parse().ok()?), joined.parse().ok()?))
    };
    lines.iter().filter_map(|line| call(line.guest("members")?)).collect()
}

/// Measures joins at one kind; `name` tells this measurement's registry from others on the same server.
///
/// # Errors
/// When something does not come up, or is not told of a member.
pub fn run(kind: Kind, server: &Server, name: &str, plan: Plan) -> Result<Measured> {
    let connect = server.address().to_string();
    let joiner = Peer::registry(&connect)?;
    let (watcher, path) = match kind {
        Kind::Bellwether => {
            let root = format!("/registry-{name}");
            let builder = Cluster::builder(&connect).root(&root).session_timeout(Duration::from_secs(30));
            let cluster = builder.group(GROUP, guest("stamp"), "").start()?;
            cluster.wait_leader(GROUP)?;
            (Watcher::Leader(cluster), format!("{root}/{GROUP}/service_registry"))
        }
        Kind::Other(_) | Kind::Bare | Kind::Echo => {
            let (cache, path) = (Peer::registry(&connect)?, format!("/cache-{name}"));
            cache.ask(&format!("watch {path}"))?;
            (Watcher::Cache(cache), path)
        }
    };
    let join = |name: &str, count: usize| -> Result<Duration> {
        let stamp = joiner.ask(&format!("join {path} {name} {count}"))?;
        Ok(Duration::from_nanos(stamp.trim().parse().context("the joiner's stamp")?))
    };
    join("before", plan.members)?;
    let mut calls = watcher.heard(plan.members)?.len();
    let mut times = Figures::default();
    let before = settled(server)?;
    for n in 0..plan.joins {
        let from = join(&format!("one-{n}"), 1)?;
        let heard = watcher.heard(plan.members + n + 1)?;
        ensure!(heard.len() == calls + 1, "one join was told in {} calls", heard.len() - calls);
        calls = heard.len();
        times.push(heard[calls - 1].0.saturating_sub(from));
    }
    // The joiner's own requests are known. Pings and heartbeats of these long sessions come every few seconds.
    let read = settled(server)?.since(before).requests - plan.joins as u64;
    let mut storm = Duration::ZERO;
    if plan.storm > 0 {
        let from = join("storm", plan.storm)?;
        let heard = watcher.heard(plan.members + plan.joins + plan.storm)?;
        let last = heard.iter().map(|(at, _)| *at).max().context("nothing was heard")?;
        storm = last.saturating_sub(from);
        calls = heard.len() - calls;
    }
    Ok(Measured { times, read, storm, calls })
}
