//! Putting one release in the place of another on a running node.
//!
//! Preparing happens beside the old instance. Then, between two callbacks, the old one's state is taken, given to the new one,
//! and the new one is told of the present; only when it has taken all of that does it count. Until then the old one has
//! not been told anything, so that going back is simply going on.

use std::time::Duration;

use crate::callback::{CallFailure, Callback, Cause, GuestState, PrepareFailure, Prepared, Returned, Step};
use crate::command::{Command, SwapOutcome};
use crate::event::Source;
use crate::guest::{GaveUp, Guest, Live, Present, Running};
use crate::id::{Epoch, InstanceId, ReleaseId, RequestId};
use crate::link::Cx;
use crate::time::Moment;

#[derive(Debug, Clone)]
pub(crate) struct Swap {
    /// Who asked; nobody if the node goes back by itself.
    pub request: Option<RequestId>,
    source: Source,
    pub instance: InstanceId,
    pub stage: Stage,
    /// The term during which the handover began.
    pub leading: Option<Epoch>,
    held_since: Moment,
    tries: u32,
    /// Why the node goes back, if it does by itself.
    pub why: Option<String>,
    /// Whose state the new instance is given.
    pub hand: Hand,
    /// Whether it leads back to what ran before: that has proved itself, and what it replaces is no way back.
    pub returns: bool,
    /// Whether it was ended through no fault of its release.
    pub interrupted: bool,
    /// What was handed over, kept until the new release has proved itself.
    pub handed: Option<GuestState>,
    pub began: Moment,
    step_since: Moment,
    pub steps: Vec<(Step, Duration)>,
    pub release: Option<ReleaseId>,
}

/// Whose state a new instance is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hand {
    /// The old instance's.
    Snapshot,
    /// The last that the release to go back to has given itself.
    Kept(GuestState),
    /// None.
    Nothing,
}

#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// Read, compiled, checked and instantiated, beside the old instance.
    Preparing,
    /// Waiting for the old instance to be between two callbacks.
    Ready(Prepared),
    /// The old instance gives its state.
    Snapshot(Prepared),
    /// The new one takes it.
    Restore(Prepared),
    /// The new one is told of the present.
    Presenting(Live),
}

impl PartialEq for Stage {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A handover that a change of leadership interrupts begins anew, so often.
const TRIES: u32 = 5;

impl Swap {
    pub fn new(request: Option<RequestId>, source: Source, instance: InstanceId, now: Moment) -> Self {
        Self {
            request,
            source,
            instance,
            stage: Stage::Preparing,
            leading: None,
            held_since: now,
            tries: 0,
            why: None,
            hand: Hand::Snapshot,
            returns: false,
            interrupted: false,
            handed: None,
            began: now,
            step_since: now,
            steps: Vec::new(),
            release: None,
        }
    }

    /// A way back: to a release that ran before, with the state that it gave last.
    pub fn back(to: ReleaseId, state: Option<GuestState>, why: String, instance: InstanceId, now: Moment) -> Self {
        let hand = state.map_or(Hand::Nothing, Hand::Kept);
        Self { hand, why: Some(why), returns: true, ..Self::new(None, Source::Earlier(to), instance, now) }
    }

    pub fn returns(&self) -> bool {
        self.returns
    }

    /// The number of the release, if it was deployed to the group.
    pub fn number(&self) -> Option<u64> {
        match &self.source {
            Source::Wanted(release) => Some(release.number),
            _ => None,
        }
    }

    /// Whether the node goes back by itself.
    pub fn is_rollback(&self) -> bool {
        matches!(self.source, Source::Earlier(_))
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The release is prepared.
    pub fn prepared(&mut self, prepared: Prepared) {
        self.steps = prepared.took.to_vec();
        self.release = Some(prepared.release.clone());
        self.stage = Stage::Ready(prepared);
    }

    /// A step of the handover has ended.
    fn took(&mut self, step: Step, now: Moment) {
        self.steps.push((step, now.since(self.step_since)));
        self.step_since = now;
    }

    pub fn preparing(&self) -> bool {
        matches!(self.stage, Stage::Preparing)
    }

    pub fn ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }

    /// Whether callbacks are held for it.
    pub fn holds(&self) -> bool {
        matches!(self.stage, Stage::Snapshot(_) | Stage::Restore(_) | Stage::Presenting(_))
    }

    /// The term that the new instance was told of.
    pub fn told_epoch(&self) -> Option<Epoch> {
        match &self.stage {
            Stage::Presenting(new) => new.told_epoch(),
            _ => None,
        }
    }

    pub fn step(&self) -> Step {
        match self.stage {
            Stage::Preparing => Step::Read,
            Stage::Ready(_) => Step::Instantiate,
            Stage::Snapshot(_) => Step::Snapshot,
            Stage::Restore(_) => Step::Restore,
            Stage::Presenting(_) => Step::Present,
        }
    }
}

impl Guest {
    /// Begins the handover if a release is ready for it; says whether it did. The old instance is between two callbacks.
    pub(crate) fn begin_handover(&mut self, cx: &mut Cx<'_>, present: &Present) -> bool {
        let Some(swap) = &mut self.swap else { return false };
        let Stage::Ready(new) = &swap.stage else { return false };
        if present.demoting.is_some() {
            return false;
        }
        let new = new.clone();
        swap.leading = present.leading;
        swap.held_since = cx.now;
        swap.step_since = cx.now;
        let old = self.live.as_ref();
        if old.is_some_and(|old| old.prepared.release == new.release) {
            self.end_swap(cx, SwapOutcome::Unchanged(new.release));
            return false;
        }
        if let Hand::Kept(state) = &swap.hand
            && new.exports.handover
        {
            let state = state.clone();
            let instance = new.instance;
            swap.stage = Stage::Restore(new);
            self.call(cx, instance, Callback::Restore(state), false, present);
            return true;
        }
        match old.filter(|old| old.prepared.exports.handover && new.exports.handover && swap.hand == Hand::Snapshot) {
            Some(old) => {
                let instance = old.id();
                swap.stage = Stage::Snapshot(new);
                self.call(cx, instance, Callback::Snapshot, false, present);
            }
            None => {
                swap.stage = Stage::Presenting(Live::new(new, cx.now));
                self.present(cx, present);
            }
        }
        true
    }

    /// Tells the new instance the next thing, or commits.
    pub(crate) fn present(&mut self, cx: &mut Cx<'_>, present: &Present) {
        let Some(swap) = &mut self.swap else { return };
        let held_since = swap.held_since;
        let Stage::Presenting(new) = &mut swap.stage else { return };
        match new.next(present, Cause::Swap) {
            Some(callback) => {
                new.entering(&callback, present);
                let instance = new.id();
                self.call(cx, instance, callback, false, present);
            }
            None => {
                let new = new.clone();
                swap.took(Step::Present, cx.now);
                self.commit(cx, new, held_since);
            }
        }
    }

    /// Takes the end of a call that belongs to the handover.
    pub(crate) fn swap_returned(
        &mut self,
        cx: &mut Cx<'_>,
        running: &Running,
        result: Result<Returned, CallFailure>,
    ) -> Option<GaveUp> {
        let swap = self.swap.as_mut()?;
        let step = swap.step();
        match (&mut swap.stage, result) {
            (Stage::Snapshot(new), Ok(Returned::Snapshot(state))) => {
                let instance = new.instance;
                swap.stage = Stage::Restore(new.clone());
                swap.handed = Some(state.clone());
                swap.took(step, cx.now);
                let present = Present { leading: swap.leading, demoting: None, members: None };
                self.call(cx, instance, Callback::Restore(state), false, &present);
            }
            (Stage::Restore(new), Ok(_)) => {
                swap.stage = Stage::Presenting(Live::new(new.clone(), cx.now));
                swap.took(step, cx.now);
            }
            (Stage::Presenting(new), Ok(_)) => new.left(running.name),
            (_, result) => {
                // A snapshot that was refused, because it is too large, leaves the old instance as it was.
                let lost = result.as_ref().is_err_and(|failure| !failure.leaves_instance());
                let old_lost = lost && matches!(step, Step::Snapshot);
                let how = result.err().map_or_else(|| "gave no state".to_owned(), |failure| failure.to_string());
                let reason = format!("{} {how}", running.name);
                if !self.hand_over_otherwise(cx, step, &reason) {
                    self.end_swap(cx, SwapOutcome::RolledBack(PrepareFailure { step, reason: reason.clone() }));
                }
                if old_lost {
                    self.lost_release = self.live.take().map(|live| live.prepared.release);
                    return self.failed(cx, running.name, reason, Some(false));
                }
            }
        }
        None
    }

    /// Leadership changed during the handover: what the new instance was told is no longer true. It goes, the old one is told
    /// what is, and the handover begins anew with a fresh instance.
    pub(crate) fn begin_swap_again(&mut self, cx: &mut Cx<'_>, why: &str) {
        let Some(swap) = &mut self.swap else { return };
        if swap.tries >= TRIES {
            return self.roll_back(cx, why.to_owned());
        }
        swap.tries += 1;
        let spoiled = std::mem::replace(&mut swap.instance, cx.counters.instance());
        swap.stage = Stage::Preparing;
        let (instance, source) = (swap.instance, swap.source.clone());
        if self.running.as_ref().is_some_and(|running| running.instance == spoiled) {
            self.running = None;
        }
        cx.out.push(Command::Stop { group: self.group.clone(), instance: spoiled });
        cx.out.push(Command::Prepare { group: self.group.clone(), instance, source });
    }
}
