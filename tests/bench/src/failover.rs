//! `failover`: the leader's process crashes, stops where it stands, or is cut off → its successor's callback has been told.
//!
//! When that befalls it does not depend on the election before: sessions end at the boundaries of the server's ticks, so that a fixed
//! moment after an election would be a fixed, and perhaps the worst, phase. Each trial waits for another part of half a session
//! timeout, by the golden ratio, which spreads a few trials evenly.

use std::time::Duration;

use anyhow::Result;
use bellwether_tests::measure::boottime;
use bellwether_tests::proxy::{Flow, Link, Proxy};
use bellwether_tests::zookeeper::Server;
use rustix::process::Signal;

use crate::field::{Change, Field, Kind, Layout};

/// What befalls the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// SIGKILL to its process.
    Killed,
    /// SIGKILL to it and to whatever stands beside it, as when its machine fails.
    Lost,
    /// SIGSTOP; it goes on when a successor leads.
    Paused,
    /// Nothing comes through between it and the server, in either direction, until it has noticed; the connection stays.
    Cut,
}

/// One fail-over.
#[derive(Debug, Clone)]
pub struct Trial {
    /// From the signal to the successor's callback.
    pub time: Duration,
    /// After a pause, from waking up until its own callback was told that it does not lead.
    pub awake: Option<Duration>,
    /// After a cut, for how long its own callback had not been told while its successor's had.
    pub overlap: Option<Duration>,
    /// All changes of leadership in it.
    pub changes: Vec<Change>,
}

/// Its multiples, less the whole part, are spread evenly, however many there are.
const GOLDEN: f64 = 0.618_034;

/// Lets the leader of three processes of one kind meet its fate so many times.
///
/// # Errors
/// When there is no successor, or the former leader does not come back.
pub fn run(kind: Kind, server: &Server, timeout: Duration, fate: Fate, trials: usize) -> Result<Vec<Trial>> {
    let layout = Layout { processes: 3, each: 1 };
    let proxies = match fate {
        Fate::Cut => (0..layout.processes).map(|_| Proxy::start(server.address())).collect::<Result<_>>()?,
        Fate::Killed | Fate::Lost | Fate::Paused => Vec::new(),
    };
    let ways: Vec<_> = (0..layout.processes).map(|n| proxies.get(n).map_or(server.address(), Proxy::address)).collect();
    let mut field = Field::start_behind(kind, layout, &ways, timeout)?;
    let mut leader = field.wait("a leader", &vec![0; layout.processes], |change| change.elected)?;
    let mut done = Vec::with_capacity(trials);
    for trial in 1..=trials {
        std::thread::sleep(timeout.mul_f64((trial as f64 * GOLDEN).fract() / 2.0));
        let (mark, former) = (field.mark(), leader.process);
        let from = boottime();
        match fate {
            Fate::Killed => field.kill(former),
            Fate::Lost => field.lose(former)?,
            Fate::Paused => field.signal(former, Signal::STOP)?,
            Fate::Cut => proxies[former].set(Link { up: Flow::Swallow, down: Flow::Swallow }),
        }
        let next = field.wait("a successor", &mark, |change| change.elected && change.process != former)?;
        let time = next.at.saturating_sub(from);
        let noticed = || field.wait("it to notice", &mark, |change| change.process == former && !change.elected);
        let (mut awake, mut overlap) = (None, None);
        match fate {
            Fate::Killed | Fate::Lost => {}
            Fate::Paused => {
                let from = boottime();
                field.signal(former, Signal::CONT)?;
                awake = Some(noticed()?.at.saturating_sub(from));
            }
            Fate::Cut => {
                overlap = Some(noticed()?.at.saturating_sub(next.at));
                proxies[former].heal();
            }
        }
        let changes = field.changes(&mark);
        match fate {
            Fate::Killed | Fate::Lost => field.replace(former)?,
            Fate::Paused | Fate::Cut => field.whole()?,
        }
        done.push(Trial { time, awake, overlap, changes });
        leader = next;
    }
    Ok(done)
}
