//! What happened that the invariants are about.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_core::id::{Epoch, ReleaseId};
use bellwether_core::time::Moment;

use crate::rollouts::Rollouts;

/// A process: which node, and which of its lives.
pub type Process = (usize, u64);

/// A term as a node's guest lives it.
#[derive(Debug, Clone)]
pub struct Term {
    /// The process.
    pub process: Process,
    /// Which group.
    pub group: usize,
    /// The epoch.
    pub epoch: Epoch,
    /// `on-elected` was entered.
    pub from: Moment,
    /// Whether the process stood still at some time since.
    pub paused: bool,
}

/// A state write that the coordinator accepted.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// The term in which the guest asked for it.
    pub writer: Epoch,
    /// The epoch that the coordinator held.
    pub held: Epoch,
}

/// A task that a worker accepted.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// The worker.
    pub worker: Process,
    /// The epoch of the task.
    pub epoch: Epoch,
    /// The highest epoch that this worker had accepted before, or was told of by its core.
    pub seen: Option<Epoch>,
}

/// A release took over from another.
#[derive(Debug, Clone)]
pub struct Handover {
    /// The node.
    pub node: usize,
    /// The group.
    pub group: usize,
    /// The step in which it happened.
    pub step: u64,
    /// The release that took over.
    pub release: ReleaseId,
    /// The state of the old instance as it stood at the end, if it lived.
    pub old: Option<u64>,
    /// The last state that this release gave itself, when it ran before.
    pub given: Option<u64>,
    /// The state that the new instance was given.
    pub new: Option<u64>,
    /// Whether the node said that it goes back without the state of the release that ran.
    pub otherwise: bool,
}

/// What happened so far. The lists that grow hold only what the invariants still need.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Terms that a guest has been told of, and not yet that they are over.
    pub open: Vec<Term>,
    /// The last write that was accepted.
    pub write: Option<Write>,
    /// The last task that was accepted.
    pub task: Option<Accepted>,
    /// The highest epoch that each worker's guest has worked for, by process and group.
    pub seen: BTreeMap<(Process, usize), Epoch>,
    /// By group, the last term that was granted and the greatest before it.
    pub granted: BTreeMap<usize, (Process, Epoch, Option<Epoch>)>,
    /// By node and group, the transaction in which an operator last took away what its leadership stood on.
    pub tampered: BTreeMap<(usize, usize), u64>,
    /// The last time that another release took over.
    pub handover: Option<Handover>,
    /// A call into an instance that was in one already, or that was none of the group's.
    pub bad_call: Option<String>,
    /// A node that said it can never go on, and why.
    pub gave_up: Option<(usize, String)>,
    /// Nodes and groups whose way back goes on without the state of the release that ran.
    pub otherwise: BTreeSet<(usize, usize)>,
    /// What the groups' documents have allowed, and what was made of it.
    pub rollouts: Rollouts,
    /// Requests that reached a server.
    pub requests: u64,
    /// Elections that were won.
    pub elections: u64,
    /// Swaps that were committed.
    pub swaps: u64,
    /// Swaps that were rolled back.
    pub rollbacks: u64,
    /// State writes that were accepted.
    pub writes: u64,
    /// State writes that were refused because the writer did not lead any more.
    pub fenced: u64,
    /// Tasks that were accepted.
    pub tasks: u64,
    /// Tasks that were refused for their epoch.
    pub refused: u64,
    /// Faults and operators' deeds.
    pub faults: u64,
    /// How long after the last fault the cluster was at rest.
    pub rest_after: Option<std::time::Duration>,
    /// A sum over everything that the cores were told and wanted, in order: equal for equal runs.
    pub digest: u64,
}

impl History {
    /// Adds to the digest (FNV-1a over words).
    pub fn mix(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
    }

    /// A guest is told of a term, for the first time or again.
    pub fn enter(&mut self, process: Process, group: usize, epoch: Epoch, from: Moment) {
        let known = |term: &Term| (term.process, term.group, term.epoch) == (process, group, epoch);
        if !self.open.iter().any(known) {
            self.open.push(Term { process, group, epoch, from, paused: false });
        }
    }

    /// No guest of the process believes in a term of the group any more.
    pub fn leave(&mut self, process: Process, group: usize) {
        self.open.retain(|term| term.process != process || term.group != group);
    }

    /// The process stands still.
    pub fn pause(&mut self, process: Process) {
        for term in self.open.iter_mut().filter(|term| term.process == process) {
            term.paused = true;
        }
    }

    /// Whether an operator took away what a term stood on.
    #[must_use]
    pub fn tampered(&self, node: usize, group: usize, epoch: Epoch) -> bool {
        self.tampered.get(&(node, group)).is_some_and(|deletion| *deletion > epoch.0)
    }
}
