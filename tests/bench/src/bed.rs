//! What the candidates stand on: one ZooKeeper, and what it and the system count.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bellwether_tests::zookeeper::Server;

/// How long anything may take that shall happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What ZooKeeper has counted since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of clients, pings among them, but without our own questions.
    pub requests: u64,
    /// Watches that fired because a znode was deleted: in an election, somebody was woken.
    pub deletions: u64,
    /// Watches that fired because of anything else: changes of lists and of data.
    pub others: u64,
}

impl Counts {
    /// What was counted since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            deletions: self.deletions - before.deletions,
            others: self.others - before.others,
        }
    }
}

/// Reads what a server counts.
///
/// # Errors
/// When it does not answer.
pub fn counts(server: &Server) -> Result<Counts> {
    let all = server.mntr()?;
    let read = |name: &str| -> Result<u64> {
        let text = all.get(name).with_context(|| format!("this ZooKeeper does not count {name}"))?;
        text.parse().with_context(|| format!("{name} is {text}"))
    };
    let fired = |what: &str| read(&format!("zk_sum_node_{what}_watch_count"));
    Ok(Counts {
        // This question is one as well.
        requests: read("zk_packets_received")? - 1,
        deletions: fired("deleted")?,
        others: fired("created")? + fired("children")? + fired("changed")?,
    })
}

/// Waits until nothing that is done about a change is under way any more: no watch fires for a while.
///
/// # Errors
/// When that does not happen in time, or the server does not answer.
pub fn settled(server: &Server) -> Result<Counts> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = counts(server)?;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = counts(server)?;
        if (now.deletions, now.others) == (last.deletions, last.others) {
            return Ok(now);
        }
        last = now;
        ensure!(Instant::now() < deadline, "watches fire all the time");
    }
}

/// The time that processes have computed, in all.
///
/// # Errors
/// When one of them is gone.
pub fn computed(pids: &[i32]) -> Result<Duration> {
    let mut ticks = 0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is a name in brackets, which may hold anything; the 14th and 15th are what is wanted.
        let (_, rest) = stat.rsplit_once(')').context("this is no stat of a process")?;
        let fields = rest.split_whitespace().skip(11).take(2);
        ticks += fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    }
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}
