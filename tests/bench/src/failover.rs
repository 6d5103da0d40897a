//! `failover`: the leader's process crashes, or stops where it stands → its successor's callback has been told.

use std::time::Duration;

use anyhow::Result;
use bellwether_tests::measure::boottime;
use bellwether_tests::zookeeper::Server;
use rustix::process::Signal;

use crate::field::{Change, Field, Kind, Layout};

/// What befalls the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// SIGKILL.
    Killed,
    /// SIGSTOP; it goes on when a successor leads.
    Paused,
}

/// One fail-over.
#[derive(Debug, Clone)]
pub struct Trial {
    /// From the signal to the successor's callback.
    pub time: Duration,
    /// After a pause, from waking up until its own callback was told that it does not lead; none after a crash.
    pub awake: Option<Duration>,
    /// All changes of leadership in it.
    pub changes: Vec<Change>,
}

/// Lets the leader of three processes of one kind meet its fate so many times.
///
/// # Errors
/// When there is no successor, or the former leader does not come back.
pub fn run(kind: Kind, server: &Server, timeout: Duration, fate: Fate, trials: usize) -> Result<Vec<Trial>> {
    let layout = Layout { processes: 3, each: 1 };
    let mut field = Field::start(kind, layout, server, timeout)?;
    let mut leader = field.wait("a leader", &vec![0; layout.processes], |change| change.elected)?;
    let mut done = Vec::with_capacity(trials);
    for _ in 0..trials {
        let (mark, former) = (field.mark(), leader.process);
        let from = boottime();
        match fate {
            Fate::Killed => field.kill(former),
            Fate::Paused => field.signal(former, Signal::STOP)?,
        }
        let next = field.wait("a successor", &mark, |change| change.elected && change.process != former)?;
        let time = next.at.saturating_sub(from);
        let awake = match fate {
            Fate::Killed => None,
            Fate::Paused => {
                let from = boottime();
                field.signal(former, Signal::CONT)?;
                let told = field
                    .wait("the former leader to notice", &mark, |change| change.process == former && !change.elected)?;
                Some(told.at.saturating_sub(from))
            }
        };
        let changes = field.changes(&mark);
        match fate {
            Fate::Killed => field.replace(former)?,
            Fate::Paused => field.whole()?,
        }
        done.push(Trial { time, awake, changes });
        leader = next;
    }
    Ok(done)
}
