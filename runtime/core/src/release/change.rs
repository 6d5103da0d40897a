//! The changes of the document: what is allowed when, and what comes of it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    Document, FORMAT, HISTORY, MAX_DOCUMENT, MAX_WANTED, Numbered, OnFailure, Outcome, Past, Phase, Policy, Rollout,
    Wanted,
};
use crate::id::NodeId;

/// The most that a reason or a name of a person may take, in bytes.
pub(super) const MAX_TEXT: usize = 1024;

/// Why a change of the document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only one rollout at a time.
    #[error("release {number} is on its way ({phase}): wait until it has ended, or abort it")]
    UnderWay {
        /// The release.
        number: u64,
        /// How that rollout stands.
        phase: &'static str,
    },
    /// There is nothing to do.
    #[error("the group runs this release already, as number {number}")]
    Unchanged {
        /// Under which number.
        number: u64,
    },
    /// It was never deployed, or too long ago.
    #[error("there is no release {number} in the group's history; there are {known}")]
    NoSuchNumber {
        /// The number.
        number: u64,
        /// The numbers that there are.
        known: String,
    },
    /// No other release was ever rolled out to the end.
    #[error("the group's history has no earlier release that was rolled out to its end and differs from what runs")]
    NothingEarlier,
    /// No rollout is under way.
    #[error("no rollout is under way")]
    NoRollout,
    /// The rollout does not stand as it would have to.
    #[error("the rollout of release {number} is {phase}: it cannot be {what}")]
    NotNow {
        /// The release.
        number: u64,
        /// How it stands.
        phase: &'static str,
        /// What was asked for.
        what: &'static str,
    },
    /// A policy by which no node would ever be admitted, or every one fail.
    #[error("{0}")]
    BadPolicy(&'static str),
    /// It does not fit.
    #[error("the release takes {size} bytes of JSON, and the most is {most}: shorten its configuration")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The most.
        most: usize,
    },
}

/// Cuts a text to what a document has room for.
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

pub(super) fn size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

/// The nodes of the next wave: workers in the order of their ids, and the leader alone when nobody else is left.
#[must_use]
pub fn next_wave(remaining: &BTreeSet<NodeId>, leader: Option<&NodeId>, size: u32) -> BTreeSet<NodeId> {
    let size = usize::try_from(size.max(1)).unwrap_or(usize::MAX);
    let workers: BTreeSet<NodeId> = remaining.iter().filter(|node| Some(*node) != leader).take(size).cloned().collect();
    if workers.is_empty() { remaining.clone() } else { workers }
}

impl Policy {
    /// The size of a wave: the first, or a later one.
    #[must_use]
    pub fn wave(&self, first: bool) -> u32 {
        if first && self.canaries > 0 { self.canaries } else { self.max_unavailable }
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.max_unavailable == 0 {
            return Err(Refusal::BadPolicy("max-unavailable must be 1 at least: with 0, no node could ever change"));
        }
        if self.patience.is_zero() {
            return Err(Refusal::BadPolicy("patience must be longer than 0: every node needs some time"));
        }
        Ok(())
    }
}

impl Document {
    fn idle(&self) -> Result<(), Refusal> {
        match &self.rollout {
            Some(rollout) => Err(Refusal::UnderWay { number: rollout.to.number, phase: rollout.phase.name() }),
            None => Ok(()),
        }
    }

    fn begin(
        mut self,
        wanted: Wanted,
        repeats: Option<u64>,
        policy: Policy,
        by: String,
        at: u64,
    ) -> Result<Self, Refusal> {
        self.idle()?;
        policy.check()?;
        if let Some(current) = self.current.as_ref().filter(|current| current.wanted.same_as(&wanted)) {
            return Err(Refusal::Unchanged { number: current.number });
        }
        let takes = size(&wanted);
        if takes > MAX_WANTED {
            return Err(Refusal::TooLarge { size: takes, most: MAX_WANTED });
        }
        self.format = FORMAT;
        self.last += 1;
        let to = Numbered { number: self.last, repeats, wanted, by: bounded(by), at };
        self.rollout = Some(Rollout {
            to,
            policy,
            phase: Phase::Running,
            admitted: BTreeSet::new(),
            settled: BTreeSet::new(),
            failed: None,
            aborted: None,
        });
        self.trim();
        Ok(self)
    }

    /// Begins to roll a release out.
    ///
    /// # Errors
    /// When another rollout is under way, the group runs it already, the policy makes no sense or it is too large.
    pub fn deploy(self, wanted: Wanted, policy: Policy, by: String, at: u64) -> Result<Self, Refusal> {
        self.begin(wanted, None, policy, by, at)
    }

    /// Begins to roll an earlier release out again, under a new number: that of the history with this number, or the last before
    /// what runs that was rolled out to its end.
    ///
    /// # Errors
    /// When another rollout is under way, there is no such release, or the group runs it already.
    pub fn rollback(self, to: Option<u64>, policy: Policy, by: String, at: u64) -> Result<Self, Refusal> {
        self.idle()?;
        let found = match to {
            Some(number) => {
                let past = self.history.iter().map(|past| &past.release).chain(&self.current);
                let numbers: BTreeSet<u64> = past.clone().map(|release| release.number).collect();
                let known: Vec<String> = numbers.iter().map(u64::to_string).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                past.rev().find(|past| past.number == number).ok_or(Refusal::NoSuchNumber { number, known })?
            }
            None => {
                let other =
                    |wanted: &Wanted| self.current.as_ref().is_none_or(|current| !current.wanted.same_as(wanted));
                let mut done = self.history.iter().rev().filter(|past| past.outcome == Outcome::Done);
                &done.find(|past| other(&past.release.wanted)).ok_or(Refusal::NothingEarlier)?.release
            }
        };
        let (number, wanted) = (found.number, found.wanted.clone());
        self.begin(wanted, Some(number), policy, by, at)
    }

    fn change(mut self, what: &'static str, change: impl FnOnce(&mut Rollout) -> bool) -> Result<Self, Refusal> {
        let rollout = self.rollout.as_mut().ok_or(Refusal::NoRollout)?;
        let (number, phase) = (rollout.to.number, rollout.phase.name());
        if change(rollout) { Ok(self) } else { Err(Refusal::NotNow { number, phase, what }) }
    }

    /// Admits no further node.
    ///
    /// # Errors
    /// When no rollout is running.
    pub fn pause(self) -> Result<Self, Refusal> {
        self.change("paused", |rollout| {
            let running = rollout.phase == Phase::Running;
            if running {
                rollout.phase = Phase::Paused;
            }
            running
        })
    }

    /// Admits nodes again.
    ///
    /// # Errors
    /// When no rollout is paused.
    pub fn resume(self) -> Result<Self, Refusal> {
        self.change("resumed", |rollout| {
            let paused = rollout.phase == Phase::Paused;
            if paused {
                rollout.phase = Phase::Running;
            }
            paused
        })
    }

    /// Takes every node back to the release before.
    ///
    /// # Errors
    /// When no rollout is under way, or it goes back already.
    pub fn abort(self, by: String) -> Result<Self, Refusal> {
        self.change("aborted", |rollout| {
            let forward = !matches!(rollout.phase, Phase::Back { .. });
            if forward {
                let by = bounded(by);
                rollout.phase = Phase::Back { reason: format!("aborted by {by}") };
                rollout.aborted = Some(by);
            }
            forward
        })
    }

    /// A further wave is admitted; `settled` have run the release well.
    #[must_use]
    pub fn admit(mut self, wave: BTreeSet<NodeId>, settled: BTreeSet<NodeId>) -> Self {
        if let Some(rollout) = &mut self.rollout {
            rollout.admitted.extend(wave);
            rollout.settled.extend(settled);
        }
        self
    }

    /// A node has failed: the group goes back, or waits for an operator, as the policy says.
    #[must_use]
    pub fn fail(mut self, node: NodeId, reason: String) -> Self {
        if let Some(rollout) = &mut self.rollout {
            let how = bounded(reason);
            let reason = format!("{node}: {how}");
            rollout.phase = match rollout.policy.on_failure {
                OnFailure::Back => Phase::Back { reason },
                OnFailure::Halt => Phase::Halted { reason },
            };
            rollout.failed = Some((node, how));
        }
        self
    }

    /// The rollout has come to its end: every node runs the release, or has gone back. `left` are nodes that have not.
    #[must_use]
    pub fn end(mut self, left: &BTreeSet<NodeId>) -> Self {
        let Some(rollout) = self.rollout.take() else { return self };
        let outcome = match (rollout.phase, rollout.aborted) {
            (Phase::Back { .. }, Some(by)) => Outcome::Aborted { by },
            (Phase::Back { reason } | Phase::Halted { reason }, _) => {
                let first: Vec<&str> = left.iter().take(5).map(NodeId::as_str).collect();
                let more = if left.len() > first.len() { ", …" } else { "" };
                let left = match first.as_slice() {
                    [] => String::new(),
                    names => format!(" ({} of the nodes are not back yet: {}{more})", left.len(), names.join(", ")),
                };
                Outcome::Failed { reason: format!("{reason}{left}") }
            }
            (Phase::Running | Phase::Paused, _) => Outcome::Done,
        };
        if outcome == Outcome::Done {
            self.current = Some(rollout.to.clone());
        }
        self.history.push(Past { release: rollout.to, outcome });
        self.trim();
        self
    }

    /// Forgets the oldest of the history, until the rest has room.
    fn trim(&mut self) {
        let many = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..many);
        while !self.history.is_empty() && size(self) > MAX_DOCUMENT {
            self.history.remove(0);
        }
    }
}
