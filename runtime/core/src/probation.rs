//! A new release serves on probation for a while; if it fails, the node goes back to the one before, by itself, and does not
//! try the bad one again.

use std::collections::VecDeque;

use crate::callback::{GuestState, PrepareFailure, Prepared, Step};
use crate::command::{Command, Level, SwapOutcome};
use crate::config::Probation;
use crate::guest::Guest;
use crate::id::ReleaseId;
use crate::link::Cx;
use crate::swap::Swap;
use crate::time::Moment;
use crate::work::Outcomes;

/// What is known of the release that runs and the one before.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    config: Probation,
    until: Option<Moment>,
    /// The release on probation.
    release: Option<ReleaseId>,
    failures: u32,
    callbacks: Outcomes,
    /// The release before, and the state that it gave when it handed over.
    previous: Option<ReleaseId>,
    pub handed: Option<GuestState>,
    /// Whether that is kept when the release has proved itself: the group may go back as long as a rollout is under way.
    pub keep: bool,
    /// Whether it has proved itself.
    proved: bool,
    /// Releases that failed, and how: a bounded number.
    bad: VecDeque<(ReleaseId, String)>,
}

/// Bad releases that are remembered.
const BAD: usize = 32;

impl Trial {
    pub fn new(config: Probation) -> Self {
        Self {
            config,
            until: None,
            release: None,
            failures: 0,
            callbacks: Outcomes::default(),
            previous: None,
            handed: None,
            keep: false,
            proved: false,
            bad: VecDeque::new(),
        }
    }

    /// The release `to` has taken over.
    pub fn begin(
        &mut self,
        now: Moment,
        rollback: bool,
        to: ReleaseId,
        from: Option<ReleaseId>,
        handed: Option<GuestState>,
    ) {
        self.release = Some(to);
        self.failures = 0;
        self.callbacks = Outcomes::default();
        // What was gone back to has proved itself before, and what it replaced is no way back.
        self.until = (!rollback && !self.config.lasts.is_zero() && from.is_some()).then(|| now + self.config.lasts);
        (self.previous, self.handed) = if rollback { (None, None) } else { (from, handed) };
        self.proved = false;
    }

    /// The first release since the node started must prove itself, though there is nothing to go back to.
    pub fn begin_alone(&mut self, now: Moment, release: ReleaseId) {
        self.release = Some(release);
        self.until = (!self.config.lasts.is_zero()).then(|| now + self.config.lasts);
    }

    /// There is no way back any more.
    pub fn forget(&mut self) {
        (self.previous, self.handed) = (None, None);
    }

    /// Whether the release that runs is on probation.
    pub fn runs(&self, now: Moment) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Once it has proved itself, the state that was handed over is of no use any more.
    pub fn tend(&mut self, now: Moment) {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
            self.proved = true;
        }
        if self.proved && !self.keep {
            self.handed = None;
        }
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.until
    }

    /// What there is to say against the release because of how such calls have ended.
    fn judged(&self, what: &str, calls: Outcomes) -> Option<String> {
        let limit = self.config.error_rate;
        let enough = calls.ended >= u64::from(self.config.at_least);
        (enough && limit.exceeded_by(calls)).then(|| {
            let Outcomes { ended, failed } = calls;
            format!("{failed} of its {ended} {what} failed, where probation allows {limit} (`error_rate`)")
        })
    }

    fn mark(&mut self, release: ReleaseId, why: String) {
        if self.bad.len() == BAD {
            self.bad.pop_front();
        }
        self.bad.push_back((release, why));
    }

    fn verdict(&self, release: &ReleaseId) -> Option<&str> {
        self.bad.iter().find(|(bad, _)| bad == release).map(|(_, why)| why.as_str())
    }
}

impl Guest {
    /// A callback has failed; says whether the node goes back because of it.
    pub(crate) fn failed_on_probation(&mut self, cx: &mut Cx<'_>, why: &str) -> bool {
        if !self.probation.runs(cx.now) {
            return false;
        }
        self.probation.failures += 1;
        self.probation.failures > self.probation.config.failures && self.fails_probation(cx, why)
            || self.callback_ended(cx, true)
    }

    /// The release that runs has failed; says whether there is one to go back to.
    fn fails_probation(&mut self, cx: &mut Cx<'_>, why: &str) -> bool {
        let goes = self.go_back(cx, why);
        if !goes {
            self.runs_badly(cx, why);
        }
        goes
    }

    /// A callback has ended; says whether the node goes back because too many of them have failed.
    pub(crate) fn callback_ended(&mut self, cx: &mut Cx<'_>, failed: bool) -> bool {
        if !self.probation.runs(cx.now) {
            return false;
        }
        self.probation.callbacks.count(failed);
        self.weigh(cx, "callbacks", self.probation.callbacks)
    }

    /// Tasks of a release have ended.
    pub(crate) fn tasks_ended(&mut self, cx: &mut Cx<'_>, release: &ReleaseId, outcomes: Outcomes) {
        // What is told late, of a release that has been replaced since, counts for nothing.
        if self.probation.runs(cx.now) && self.probation.release.as_ref() == Some(release) {
            self.weigh(cx, "tasks", outcomes);
        }
    }

    fn weigh(&mut self, cx: &mut Cx<'_>, what: &str, calls: Outcomes) -> bool {
        let Some(why) = self.probation.judged(what, calls) else { return false };
        let goes = self.fails_probation(cx, &why);
        if goes {
            self.last_error = Some(why);
        }
        goes
    }

    /// Begins to go back to the release before; says whether there is one.
    pub(crate) fn go_back(&mut self, cx: &mut Cx<'_>, why: &str) -> bool {
        let Some(previous) = self.probation.previous.take() else { return false };
        self.runs_badly(cx, why);
        if self.swap.is_some() {
            self.roll_back(cx, format!("the release that runs has failed ({why}), and the node goes back"));
        }
        let state = self.probation.handed.take();
        self.probation.until = None;
        let failed = self.live.as_ref().map(|live| live.prepared.release.clone()).or_else(|| self.lost_release.take());
        if let Some(failed) = failed {
            self.probation.mark(failed, why.to_owned());
        }
        self.notice(cx, Level::Error, "probation-failed", None, format!("goes back to release {previous}: {why}"));
        let instance = cx.counters.instance();
        let swap = Swap::back(previous, state, why.to_owned(), instance, cx.now);
        cx.out.push(Command::Prepare { group: self.group.clone(), instance, source: swap.source().clone() });
        self.swap = Some(swap);
        true
    }

    /// Takes the outcome of preparing a release that is to take over.
    pub(crate) fn swap_prepared(&mut self, cx: &mut Cx<'_>, result: Result<Prepared, PrepareFailure>) {
        let Some(swap) = &mut self.swap else { return };
        match result {
            Ok(prepared) => {
                let release = prepared.release.clone();
                swap.prepared(prepared);
                if let Some(why) = self.probation.verdict(&release).filter(|_| swap.request.is_some()) {
                    let reason = format!(
                        "this release failed its probation on this node before, and is not tried again until the node restarts: {why}"
                    );
                    self.end_swap(cx, SwapOutcome::RolledBack(PrepareFailure { step: Step::Probation, reason }));
                }
            }
            Err(failure) => self.end_swap(cx, SwapOutcome::RolledBack(failure)),
        }
    }
}
