//! `footprint`: what one candidate in a process of its own takes: memory, threads, and the time from its start until it takes part
//! (compiled guests, classes and the like cached).

use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_tests::measure::{boottime, resident};
use bellwether_tests::zookeeper::Server;

use crate::field::{Field, Kind, Layout};

/// What one start shows.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// From the start of the process until it takes part.
    pub start: Duration,
    /// What it holds of memory.
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
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?.count();
        found.push(Footprint { start, resident: resident(pid)?, threads });
    }
    Ok(found)
}
