//! `handover`: the leader gives up → its successor's callback has been told.
//!
//! The clock starts before the leader is told (by the admin API here, by a line on standard input at the peers) and stops when the
//! successor's `on-elected` has returned, or the peer's listener is entered.

use std::time::Duration;

use anyhow::{Result, ensure};
use bellwether_tests::measure::{Figures, resident_with_children};
use bellwether_tests::zookeeper::Server;

use crate::bed::{Counts, computed, settled};
use crate::field::{Change, Field, Kind, Layout};

/// What is waited for between two hand-overs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// So long, which disturbs nobody.
    Pause(Duration),
    /// Until every candidate says that it takes part again: asking costs something, but then each holds its watch for certain.
    Whole,
}

/// How one kind is measured once.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Hand-overs that count.
    pub operations: usize,
    /// Hand-overs before, which do not.
    pub warm_up: usize,
    /// What is waited for between two.
    pub rest: Rest,
    /// The session timeout.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The times.
    pub times: Figures,
    /// How much of each it took until the former leader had been told.
    pub demotions: Figures,
    /// All changes of leadership, those of the warm-up left out.
    pub changes: Vec<Change>,
    /// What the server counted.
    pub counts: Counts,
    /// What the candidates' processes computed.
    pub computed: Duration,
    /// What they held of memory at the end.
    pub resident: u64,
}

/// Measures `operations` hand-overs among the candidates of one kind.
///
/// # Errors
/// When leadership does not move as it should.
pub fn run(kind: Kind, layout: Layout, server: &Server, plan: &Plan) -> Result<Measured> {
    let field = Field::start(kind, layout, server, plan.timeout)?;
    let start = vec![0; layout.processes];
    let mut leader = field.wait("a leader", &start, |change| change.elected)?;
    for _ in 0..plan.warm_up {
        leader = once(&field, &leader, layout, plan.rest)?.next;
    }
    let (from, before) = (field.mark(), settled(server)?);
    let busy = computed(&field.pids()?)?;
    let (mut times, mut demotions) = (Figures::default(), Figures::default());
    for _ in 0..plan.operations {
        let Moved { next, time, demoted } = once(&field, &leader, layout, plan.rest)?;
        leader = next;
        times.push(time);
        demotions.push(demoted);
    }
    let computed = computed(&field.pids()?)?.saturating_sub(busy);
    let counts = settled(server)?.since(before);
    let resident = field.pids()?.into_iter().map(resident_with_children).sum::<Result<u64>>()?;
    Ok(Measured { times, demotions, changes: field.changes(&from), counts, computed, resident })
}

/// One hand-over.
struct Moved {
    next: Change,
    time: Duration,
    demoted: Duration,
}

fn once(field: &Field, leader: &Change, layout: Layout, rest: Rest) -> Result<Moved> {
    match rest {
        Rest::Pause(pause) => std::thread::sleep(pause),
        Rest::Whole => field.whole()?,
    }
    let mark = field.mark();
    let from = field.resign(leader)?;
    let next = field.wait("a successor", &mark, |change| change.elected)?;
    ensure!(layout.candidates() == 1 || next.id != leader.id, "{} follows itself", leader.id);
    let told = field.wait("the former leader to be told", &mark, |change| !change.elected && change.id == leader.id)?;
    let (time, demoted) = (next.at.saturating_sub(from), told.at.saturating_sub(from));
    Ok(Moved { next, time, demoted })
}
