//! `footprint`: what one candidate in a process of its own takes: memory, threads, and the time from its start until it takes part
//! (compiled guests, classes and the like cached). And what many groups take in one process, on its one session.

use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_tests::cluster::{Cluster, Node};
use bellwether_tests::guests::guest;
use bellwether_tests::measure::{boottime, resident_with_children, threads_and_files};
use bellwether_tests::znodes::Znodes;
use bellwether_tests::zookeeper::Server;

use crate::bed::counts;
use crate::field::{Field, Kind, Layout};

/// What one start shows.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// From the start of the process until it takes part.
    pub start: Duration,
    /// What it and its reaper hold of memory.
    pub resident: u64,
    /// Its threads.
    pub threads: usize,
}

/// Starts a process that joins two others, so many times.
///
/// # Errors
/// When one does not come up.
pub fn run(kind: Kind, server: &Server, timeout: Duration, times: usize) -> Result<Vec<Footprint>> {
    let layout = Layout { processes: 3, each: 1 };
    let mut field = Field::start(kind, layout, server, timeout)?;
    let mut found = Vec::with_capacity(times);
    for _ in 0..times {
        let leader = field.changes(&vec![0; layout.processes]).into_iter().rfind(|change| change.elected);
        let process = (leader.context("nobody leads")?.process + 1) % layout.processes;
        field.kill(process);
        // The crashed one's znodes go with its session: only then is "all take part" true for the new one.
        field.emptied(server, layout.candidates() - 1)?;
        let from = boottime();
        field.replace(process)?;
        let start = boottime().saturating_sub(from);
        let pid = field.pids()?[process];
        found.push(Footprint { start, resident: resident_with_children(pid)?, threads: threads_and_files(pid)?.0 });
    }
    Ok(found)
}

/// What one node in many groups takes.
#[derive(Debug, Clone, Copy)]
pub struct Many {
    /// As of one candidate; it takes part when it leads all of its groups.
    pub footprint: Footprint,
    /// For how long the server's counts were taken, with nothing to do.
    pub watched: Duration,
    /// Heartbeats in that time: writes to the node's own znode.
    pub heartbeats: u64,
    /// All requests in that time, heartbeats, pings and looks at its own znodes included.
    pub requests: u64,
}

/// Starts a node alone in so many groups, all on its one session.
///
/// # Errors
/// When it does not come to lead all of them.
pub fn many(server: &Server, timeout: Duration, groups: usize) -> Result<Many> {
    let root = format!("/groups-{groups}");
    let builder = Cluster::builder(server.address()).root(&root).session_timeout(timeout).node("reaper = true");
    let builder = (0..groups).fold(builder, |builder, n| builder.group(&format!("g{n}"), guest("minimal"), ""));
    let cluster = builder.prepare()?;
    let node = cluster.node(0);
    // Compiled before.
    node.start()?;
    cluster.wait_until("the node to be ready", |_| node.is_ready())?;
    node.stop()?;
    let from = boottime();
    node.start()?;
    cluster.wait_until("the node to be ready again", |_| node.is_ready() && leads(node, groups))?;
    let start = boottime().saturating_sub(from);
    let pid = node.pid()?;
    let footprint = Footprint { start, resident: resident_with_children(pid)?, threads: threads_and_files(pid)?.0 };
    let path = format!("{root}/nodes/{}", node.id());
    let znodes = Znodes::of(server.address());
    let beats = || Ok::<_, anyhow::Error>(znodes.get(&path)?.context("the node's own znode is gone")?.version);
    let watched = timeout * 2;
    let (before, first) = (counts(server)?, beats()?);
    std::thread::sleep(watched);
    let (last, after) = (beats()?, counts(server)?);
    let heartbeats = u64::try_from(last - first)?;
    Ok(Many { footprint, watched, heartbeats, requests: after.since(before).requests })
}

fn leads(node: &Node, groups: usize) -> bool {
    let status = node.status().ok();
    let led = status
        .as_ref()
        .and_then(|status| status["groups"].as_array())
        .map_or(0, |all| all.iter().filter(|group| group["role"] == "leader").count());
    led == groups
}
