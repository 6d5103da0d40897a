//! What happened that the invariants are about.

use bellwether_core::id::Epoch;
use bellwether_core::time::Moment;

/// A term as a node's guest lived it.
#[derive(Debug, Clone)]
pub struct Term {
    /// The node.
    pub node: usize,
    /// Which of its processes: a restart makes another.
    pub incarnation: u64,
    /// The epoch.
    pub epoch: Epoch,
    /// `on-elected` was entered.
    pub from: Moment,
    /// `on-demoted` was left, or the instance was stopped, or its process ended.
    pub until: Option<Moment>,
    /// Whether the process stood still at some time in between.
    pub paused: bool,
    /// Whether an operator (not the coordinator) took the node's znode away in between.
    pub tampered: bool,
}

/// What happened so far.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Every term, in the order in which they were entered.
    pub terms: Vec<Term>,
    /// For each state write that was accepted: the writer's epoch and the epoch that the coordinator held.
    pub writes: Vec<(Epoch, Epoch)>,
    /// For each worker (node, incarnation): the epochs of the tasks it accepted, in order.
    pub tasks: Vec<(usize, u64, Epoch)>,
    /// Elections that were won.
    pub elections: u64,
    /// Swaps that were committed.
    pub swaps: u64,
    /// State writes that were accepted.
    pub accepted: u64,
}

impl History {
    /// A term ends for the guest.
    pub fn leave(&mut self, node: usize, incarnation: u64, at: Moment) {
        for term in &mut self.terms {
            if term.node == node && term.incarnation == incarnation && term.until.is_none() {
                term.until = Some(at);
            }
        }
    }

    /// Something happened to a node that voids a promise while it lasts.
    pub fn mark(&mut self, node: usize, what: impl Fn(&mut Term)) {
        for term in &mut self.terms {
            if term.node == node && term.until.is_none() {
                what(term);
            }
        }
    }
}
