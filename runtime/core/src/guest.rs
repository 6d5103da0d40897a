//! What a group's guest is told, and in which order. Nothing is queued: what the live instance was told is compared with what
//! is, so a swap or a restart loses nothing and repeats nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::callback::{CallFailure, Callback, Cause, DemotionReason, PrepareFailure, Prepared, Returned, Step};
use crate::command::{Answer, Command, Level, Notice, SwapOutcome, SwapRecord};
use crate::config::{FailurePolicy, GroupConfig, LastResort, TickConfig};
use crate::course::Course;
use crate::event::Source;
use crate::id::{CallId, Epoch, GroupName, InstanceId, ReleaseId, RequestId};
use crate::link::Cx;
use crate::members::Members;
use crate::probation::Trial;
use crate::state::Entry;
use crate::swap::{Stage, Swap};
use crate::time::Moment;

/// What is, as far as the guest is concerned.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    /// The term, while this node leads.
    pub leading: Option<Epoch>,
    /// Why it does not any more, and by when the guest must have been told.
    pub demoting: Option<(DemotionReason, Moment)>,
    /// The members, if this guest hears of them now.
    pub members: Option<Members>,
}

/// An instance and what it was told.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub prepared: Prepared,
    pub since: Moment,
    epoch: Option<Epoch>,
    members: Members,
    version: u64,
}

impl Live {
    pub fn new(prepared: Prepared, since: Moment) -> Self {
        Self { prepared, since, epoch: None, members: Members::default(), version: 0 }
    }

    pub fn id(&self) -> InstanceId {
        self.prepared.instance
    }

    /// The term that it was told of.
    pub fn told_epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The next thing that this instance must be told.
    pub fn next(&self, present: &Present, cause: Cause) -> Option<Callback> {
        match (self.epoch, present.leading) {
            (Some(told), leading) if leading != Some(told) => {
                let reason = present.demoting.as_ref().map_or(DemotionReason::Superseded, |(reason, _)| reason.clone());
                return Some(Callback::Demoted(reason));
            }
            (None, Some(epoch)) => return Some(Callback::Elected { epoch, cause }),
            _ => {}
        }
        let members = present.members.as_ref().filter(|members| !members.is_same(&self.members))?;
        self.members.change_to(members, self.version + 1).map(|change| Callback::MembersChanged(Arc::new(change)))
    }

    /// A callback is about to be entered.
    pub fn entering(&mut self, callback: &Callback, present: &Present) {
        match callback {
            Callback::Elected { epoch, .. } => self.epoch = Some(*epoch),
            Callback::MembersChanged(change) => {
                self.version = change.version;
                self.members = present.members.clone().unwrap_or_default();
            }
            _ => {}
        }
    }

    /// A callback was left, and the instance lives.
    pub fn left(&mut self, name: &str) {
        if name == "on-demoted" {
            self.epoch = None;
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub instance: InstanceId,
    pub call: CallId,
    pub name: &'static str,
    /// Whether this on-elected begins a term (and does not merely tell a new instance of one).
    pub begins_term: bool,
}

/// How often callbacks were called and how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallbackCounts {
    /// Calls that were made.
    pub called: u64,
    /// Calls that failed, of whatever kind.
    pub failed: u64,
    /// Instances that had to be replaced.
    pub restarts: u64,
}

/// What went wrong, for the group to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GaveUp {
    pub why: String,
    /// `on-elected` returned an error: the guest does not want to lead.
    pub unwilling: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub group: GroupName,
    tick: Option<TickConfig>,
    budget: Duration,
    pub policy: FailurePolicy,
    pub live: Option<Live>,
    loading: Option<InstanceId>,
    pub running: Option<Running>,
    /// The last term that an instance was told of with cause election.
    term_told: Option<Epoch>,
    /// Failures in a row, for each callback that failed last.
    pub failing: BTreeMap<&'static str, u32>,
    restart_at: Moment,
    tick_at: Moment,
    ticked_last: bool,
    changes: BTreeMap<(InstanceId, String), Option<Entry>>,
    pub swap: Option<Swap>,
    pub queued: Option<(RequestId, Source)>,
    pub stopping: bool,
    /// Whether no instance is wanted any more.
    pub ending: bool,
    pub counts: CallbackCounts,
    pub last_error: Option<String>,
    /// The swaps that have ended, oldest first, a bounded number.
    pub history: VecDeque<SwapRecord>,
    pub probation: Trial,
    pub course: Course,
    /// The release of the instance that was lost last, while there is no other.
    pub lost_release: Option<ReleaseId>,
}

/// Swaps that are remembered.
const HISTORY: usize = 32;

impl Guest {
    pub fn new(config: &GroupConfig) -> Self {
        Self {
            group: config.name.clone(),
            tick: config.tick,
            budget: config.callback,
            policy: config.on_failure,
            probation: Trial::new(config.probation),
            course: Course::default(),
            history: VecDeque::new(),
            lost_release: None,
            live: None,
            loading: None,
            running: None,
            term_told: None,
            failing: BTreeMap::new(),
            restart_at: Moment::default(),
            tick_at: Moment::default(),
            ticked_last: false,
            changes: BTreeMap::new(),
            swap: None,
            queued: None,
            stopping: false,
            ending: false,
            counts: CallbackCounts::default(),
            last_error: None,
        }
    }

    /// Whether no instance believes that it leads.
    pub fn demoted(&self) -> bool {
        self.live.as_ref().is_none_or(|live| live.epoch.is_none())
            && self.swap.as_ref().is_none_or(|swap| swap.told_epoch().is_none())
    }

    /// The release that runs.
    pub fn release(&self) -> Option<&ReleaseId> {
        self.live.as_ref().map(|live| &live.prepared.release)
    }

    /// No further release is taken, and a swap under way ends.
    pub fn stop_swaps(&mut self, cx: &mut Cx<'_>) {
        self.stopping = true;
        if let Some((request, _)) = self.queued.take() {
            let outcome = SwapOutcome::Refused("the node is shutting down".into());
            cx.out.push(Command::Answer { request, answer: Answer::Swapped(outcome) });
        }
        if self.swap.is_some() {
            self.roll_back(cx, "the node is shutting down".into());
        }
    }

    pub fn ask_swap(&mut self, cx: &mut Cx<'_>, request: RequestId, source: Source) {
        if self.stopping {
            let outcome = SwapOutcome::Refused("the node is shutting down".into());
            cx.out.push(Command::Answer { request, answer: Answer::Swapped(outcome) });
            return;
        }
        if let Some((older, _)) = self.queued.replace((request, source)) {
            let outcome = SwapOutcome::Refused("a newer release was asked for before this one's turn came".into());
            cx.out.push(Command::Answer { request: older, answer: Answer::Swapped(outcome) });
        }
    }

    /// The instances that may have something to watch: the live one, and the one that is about to take its place.
    pub fn observers(&self) -> Vec<InstanceId> {
        let coming = self.swap.as_ref().filter(|swap| swap.holds()).map(|swap| swap.instance);
        self.live.as_ref().map(Live::id).into_iter().chain(coming).collect()
    }

    /// The node is leaving: the instance goes, and no other takes its place.
    pub fn end(&mut self, cx: &mut Cx<'_>) {
        self.ending = true;
        self.drop_live(cx);
    }

    /// A key that an instance watches has changed. It is told when it is live, of the latest.
    pub fn state_changed(&mut self, instance: InstanceId, key: String, entry: Option<Entry>) {
        if self.observers().contains(&instance) {
            self.changes.insert((instance, key), entry);
        }
    }

    pub fn notice(&self, cx: &mut Cx<'_>, level: Level, what: &'static str, epoch: Option<Epoch>, text: String) {
        let release = self.release().cloned();
        cx.notice(Notice { level, group: Some(self.group.clone()), epoch, release, what, text });
    }

    /// Takes the outcome of a preparation.
    pub fn prepared(
        &mut self,
        cx: &mut Cx<'_>,
        instance: InstanceId,
        result: Result<Prepared, PrepareFailure>,
    ) -> Option<GaveUp> {
        if self.loading == Some(instance) {
            self.loading = None;
            match result {
                Ok(prepared) => {
                    let text = format!("component {} is ready", prepared.digest.get(..12).unwrap_or(&prepared.digest));
                    let release = prepared.release.clone();
                    self.go_live(cx, Live::new(prepared, cx.now));
                    if self.course.loaded() {
                        self.probation.begin_alone(cx.now, release);
                    }
                    self.notice(cx, Level::Info, "guest-ready", None, text);
                }
                Err(failure) => {
                    self.not_loaded(cx, failure.step, &failure.to_string());
                    return self.failed(cx, "load", format!("could not be loaded: {failure}"), None);
                }
            }
        } else if self.swap.as_ref().is_some_and(|swap| swap.instance == instance && swap.stage == Stage::Preparing) {
            self.swap_prepared(cx, result);
        } else if result.is_ok() {
            // Nobody waits for it any more.
            cx.out.push(Command::Stop { group: self.group.clone(), instance });
        }
        None
    }

    fn go_live(&mut self, cx: &mut Cx<'_>, live: Live) {
        cx.out.push(Command::Promote { group: self.group.clone(), instance: live.id() });
        self.changes.retain(|(instance, _), _| *instance == live.id());
        self.course.shows(live.prepared.release.clone(), live.prepared.digest.clone());
        self.live = Some(live);
    }

    /// Does what is due.
    pub fn drive(&mut self, cx: &mut Cx<'_>, present: &Present) {
        // Before anything else: its deadline also falls due while a call runs.
        self.probation.tend(cx.now);
        if let Some((_, by)) = present.demoting
            && by <= cx.now
            && !self.demoted()
        {
            let text = "on-demoted was not through in time; the instance was stopped by force".to_owned();
            self.notice(cx, Level::Warn, "stopped-by-force", None, text);
            self.drop_live(cx);
        }
        self.advance_swap(cx, present);
        if self.running.is_some() {
            return;
        }
        if self.swap.as_ref().is_some_and(Swap::holds) {
            return self.present(cx, present);
        }
        let Some(live) = &self.live else {
            if !self.ending
                && self.loading.is_none()
                && self.restart_at <= cx.now
                && self.swap.as_ref().is_none_or(Swap::preparing)
                && let Some(source) =
                    if self.counts.restarts == 0 { self.course.first() } else { Some(Source::Current) }
            {
                let instance = cx.counters.instance();
                self.loading = Some(instance);
                cx.out.push(Command::Prepare { group: self.group.clone(), instance, source });
            }
            return;
        };
        let cause = if present.leading.is_some() && self.term_told == present.leading {
            Cause::Restart
        } else {
            Cause::Election
        };
        if let Some(callback) = live.next(present, cause) {
            return self.call_live(cx, callback, present);
        }
        if self.begin_handover(cx, present) {
            return;
        }
        let tick = self.tick_due(cx.now, present);
        let observer = self.live.as_ref().filter(|live| live.prepared.exports.observer).map(Live::id);
        let next = self.changes.keys().find(|(instance, _)| Some(*instance) == observer).cloned();
        if (self.ticked_last || !tick)
            && let Some(which) = next
            && let Some(entry) = self.changes.remove(&which)
        {
            let key = which.1;
            self.ticked_last = false;
            return self.call_live(cx, Callback::StateChanged { key, entry }, present);
        }
        if tick {
            self.ticked_last = true;
            self.tick_at = cx.now + self.tick.map_or(Duration::MAX, |tick| tick.every);
            self.call_live(cx, Callback::Tick, present);
        }
    }

    fn ticks(&self, present: &Present) -> bool {
        let Some(tick) = self.tick else { return false };
        let Some(live) = &self.live else { return false };
        live.prepared.exports.ticker && (tick.always || present.leading.is_some() && live.epoch == present.leading)
    }

    fn tick_due(&self, now: Moment, present: &Present) -> bool {
        self.ticks(present) && self.tick_at <= now
    }

    pub fn deadline(&self, present: &Present) -> Option<Moment> {
        let stop = present.demoting.as_ref().filter(|_| !self.demoted()).map(|(_, by)| *by);
        let idle = self.running.is_none();
        let tick = (idle && self.ticks(present)).then_some(self.tick_at);
        let lost = self.live.is_none() && self.loading.is_none() && self.course.knows();
        let restart = (idle && !self.ending && lost).then_some(self.restart_at);
        // Looked at between two callbacks only: a deadline that nothing is done about would ring without end.
        let held = self.swap.as_ref().is_some_and(Swap::holds);
        let trial = self.probation.deadline().filter(|_| idle && !held);
        [stop, tick, restart, trial, self.course_due()].into_iter().flatten().min()
    }

    fn call_live(&mut self, cx: &mut Cx<'_>, callback: Callback, present: &Present) {
        let Some(live) = &mut self.live else { return };
        live.entering(&callback, present);
        let instance = live.id();
        let begins_term = matches!(callback, Callback::Elected { cause: Cause::Election, .. });
        if begins_term {
            self.term_told = present.leading;
            self.tick_at = cx.now + self.tick.map_or(Duration::MAX, |tick| tick.every);
        }
        self.call(cx, instance, callback, begins_term, present);
    }

    pub fn call(
        &mut self,
        cx: &mut Cx<'_>,
        instance: InstanceId,
        callback: Callback,
        begins_term: bool,
        present: &Present,
    ) {
        let call = cx.counters.call();
        self.counts.called += 1;
        let left = present.demoting.as_ref().map_or(Duration::MAX, |(_, by)| by.since(cx.now));
        self.running = Some(Running { instance, call, name: callback.name(), begins_term });
        let budget = self.budget.min(left);
        cx.out.push(Command::Call { group: self.group.clone(), instance, call, callback, budget });
    }

    /// Takes the end of a call.
    pub fn returned(
        &mut self,
        cx: &mut Cx<'_>,
        instance: InstanceId,
        call: CallId,
        result: Result<Returned, CallFailure>,
    ) -> Option<GaveUp> {
        let running = self.running.take_if(|running| running.instance == instance && running.call == call)?;
        if result.is_err() {
            self.counts.failed += 1;
        }
        if self.swap.as_ref().is_some_and(Swap::holds) {
            return self.swap_returned(cx, &running, result);
        }
        let live = self.live.as_mut().filter(|live| live.id() == instance)?;
        match result {
            Ok(_) => {
                live.left(running.name);
                self.failing.remove(running.name);
                self.callback_ended(cx, false);
                None
            }
            Err(failure) if failure.leaves_instance() => {
                live.left(running.name);
                let text = format!("{} {failure}", running.name);
                self.last_error = Some(text.clone());
                self.notice(cx, Level::Warn, "callback-failed", None, text.clone());
                if self.failed_on_probation(cx, &text) {
                    return None;
                }
                running.begins_term.then_some(GaveUp { why: text, unwilling: true })
            }
            Err(failure) => {
                self.lost_release = self.live.take().map(|live| live.prepared.release);
                self.failed(cx, running.name, format!("{} {failure}", running.name), Some(running.begins_term))
            }
        }
    }

    /// Stops the live instance by force; another takes its place.
    pub fn drop_live(&mut self, cx: &mut Cx<'_>) {
        if let Some(live) = self.live.take() {
            if self.running.as_ref().is_some_and(|running| running.instance == live.id()) {
                self.running = None;
            }
            cx.out.push(Command::Stop { group: self.group.clone(), instance: live.id() });
            self.lost_release = Some(live.prepared.release);
            self.counts.restarts += 1;
            self.restart_at = cx.now;
        }
        if self.swap.as_ref().is_some_and(Swap::holds) {
            self.begin_swap_again(cx, "leadership changed");
        }
    }

    /// Counts a failure that cost the instance, and sets the time of the next.
    pub fn failed(
        &mut self,
        cx: &mut Cx<'_>,
        what: &'static str,
        text: String,
        begins_term: Option<bool>,
    ) -> Option<GaveUp> {
        let failures = self.failing.entry(what).or_default();
        *failures += 1;
        let failures = *failures;
        if begins_term.is_some() {
            self.counts.restarts += 1;
        }
        let pause = cx.rng.backoff(self.policy.backoff, self.policy.backoff_max, failures);
        self.restart_at = cx.now + pause;
        self.last_error = Some(text.clone());
        if self.failed_on_probation(cx, &text) {
            return None;
        }
        self.notice(cx, Level::Error, "guest-failed", None, format!("{text}; a fresh instance follows in {pause:?}"));
        if failures > self.policy.restarts && self.policy.then == LastResort::Rollback && self.go_back(cx, &text) {
            return None;
        }
        (failures > self.policy.restarts || begins_term == Some(true)).then_some(GaveUp { why: text, unwilling: false })
    }

    /// Takes the next release in turn.
    fn advance_swap(&mut self, cx: &mut Cx<'_>, present: &Present) {
        if self.swap.as_ref().is_some_and(|swap| swap.holds() && swap.leading != present.leading) {
            self.begin_swap_again(cx, "leadership changed");
        }
        if self.swap.is_none()
            && let Some((request, source)) = self.queued.take()
        {
            let instance = cx.counters.instance();
            cx.out.push(Command::Prepare { group: self.group.clone(), instance, source: source.clone() });
            self.swap = Some(Swap::new(Some(request), source, instance, cx.now));
        }
        self.follow(cx);
        if self.live.is_none() && self.running.is_none() && self.swap.as_ref().is_some_and(Swap::ready) {
            self.begin_handover(cx, present);
        }
    }

    fn step(&self) -> Step {
        self.swap.as_ref().map_or(Step::Read, Swap::step)
    }

    /// Ends a swap through no fault of its release.
    pub fn roll_back(&mut self, cx: &mut Cx<'_>, reason: String) {
        let step = self.step();
        if let Some(swap) = &mut self.swap {
            swap.interrupted = true;
        }
        self.end_swap(cx, SwapOutcome::RolledBack(PrepareFailure { step, reason }));
    }

    /// Ends a swap that did not commit; whatever was made for it goes.
    pub fn end_swap(&mut self, cx: &mut Cx<'_>, outcome: SwapOutcome) {
        let Some(swap) = self.swap.take() else { return };
        let committed = matches!(outcome, SwapOutcome::Committed { .. });
        if !committed && swap.stage != Stage::Preparing {
            if self.running.as_ref().is_some_and(|running| running.instance == swap.instance) {
                self.running = None;
            }
            cx.out.push(Command::Stop { group: self.group.clone(), instance: swap.instance });
        }
        let (level, what, text) = match &outcome {
            SwapOutcome::Committed { pause, .. } => {
                (Level::Info, "swapped", format!("the new release has taken over; callbacks were held for {pause:?}"))
            }
            SwapOutcome::Unchanged(_) => (Level::Info, "swap-unchanged", "this release runs already".to_owned()),
            SwapOutcome::RolledBack(failure) => {
                (Level::Error, "swap-rolled-back", format!("the old release goes on: {failure}"))
            }
            SwapOutcome::Refused(why) => (Level::Warn, "swap-refused", why.clone()),
        };
        self.notice(cx, level, what, None, text);
        if !committed {
            self.course_interrupted(cx, &swap, &outcome);
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(SwapRecord {
            rollback: swap.is_rollback(),
            number: swap.number(),
            why: swap.why,
            release: swap.release,
            from: match &outcome {
                SwapOutcome::Committed { from, .. } => from.clone(),
                _ => self.release().cloned(),
            },
            outcome: outcome.clone(),
            began: swap.began,
            ended: cx.now,
            steps: swap.steps,
        });
        if let Some(request) = swap.request {
            cx.out.push(Command::Answer { request, answer: Answer::Swapped(outcome) });
        }
    }

    /// Puts the new instance in the place of the old.
    pub fn commit(&mut self, cx: &mut Cx<'_>, new: Live, held_since: Moment) {
        let old = self.live.take();
        let to = new.prepared.release.clone();
        // A release whose instance was just lost is a way back as well: without it, the new one would not be on probation.
        let lost = self.lost_release.take().filter(|lost| *lost != to);
        let from = old.as_ref().map(|old| old.prepared.release.clone()).or(lost);
        if let Some(swap) = &mut self.swap {
            let alone = from.is_none() && !swap.returns();
            self.probation.begin(cx.now, swap.returns(), to.clone(), from.clone(), swap.handed.take());
            self.course.committed(swap);
            if alone && self.course.comes() {
                self.probation.begin_alone(cx.now, to.clone());
            }
        }
        self.go_live(cx, new);
        if let Some(loading) = self.loading.take() {
            cx.out.push(Command::Stop { group: self.group.clone(), instance: loading });
        }
        if let Some(old) = &old {
            cx.out.push(Command::Stop { group: self.group.clone(), instance: old.id() });
        }
        self.failing.clear();
        self.end_swap(cx, SwapOutcome::Committed { from, to, pause: cx.now.since(held_since) });
    }
}
