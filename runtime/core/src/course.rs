//! From the release that runs on this node to the one that the group's document wants of it: the guest's side of a rollout.

use std::sync::Arc;

use crate::callback::Step;
use crate::command::{Answer, Command, Level, SwapOutcome};
use crate::event::Source;
use crate::guest::Guest;
use crate::id::ReleaseId;
use crate::link::Cx;
use crate::release::{Numbered, Report, Staging};
use crate::swap::{Hand, Swap};
use crate::time::Moment;

/// A release of the group; none for the manifest's.
type Deployed = Option<Arc<Numbered>>;

/// Numbers alone do not tell: an operator may have had the group's document begin anew.
fn same(one: &Deployed, other: &Deployed) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.number == other.number && one.wanted.same_as(&other.wanted),
        (None, None) => true,
        _ => false,
    }
}

/// What the group's document wants of this node.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    pub target: Deployed,
    /// Whether a rollout brings it: after a failure the node runs what the others run, and does not try it again.
    pub coming: bool,
    /// What those run that no rollout has reached.
    pub before: Deployed,
    /// Whether a rollout is under way: the way back is kept.
    pub under_way: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Course {
    /// None until the document was read.
    aim: Option<Aim>,
    /// What runs, or ran last while an instance is being replaced; none until the first was loaded.
    runs: Option<Deployed>,
    /// What is being loaded as the first.
    loading: Deployed,
    /// Whether that is a file that an operator gave to this node alone.
    direct: bool,
    /// What ran before, and whether it was such a file, while there is a way back to it.
    earlier: Option<(Deployed, bool)>,
    /// What failed here last, and how.
    failed: Option<(Deployed, String)>,
    attempts: u32,
    retry_at: Moment,
    shown: Option<(ReleaseId, Arc<str>)>,
}

impl Course {
    /// The number of the release that runs.
    pub fn number(&self) -> Option<u64> {
        self.runs.as_ref()?.as_ref().map(|release| release.number)
    }

    /// What this node shall run, after what it has found.
    fn goal(&self) -> Option<&Deployed> {
        let aim = self.aim.as_ref()?;
        Some(if self.refused().is_some() { &aim.before } else { &aim.target })
    }

    fn arrived(&self) -> bool {
        self.goal().zip(self.runs.as_ref()).is_some_and(|(goal, runs)| same(goal, runs))
    }

    /// How what a rollout brings has failed here, if it has.
    fn refused(&self) -> Option<&String> {
        let aim = self.aim.as_ref().filter(|aim| aim.coming)?;
        self.has_failed(&aim.target)
    }

    fn has_failed(&self, which: &Deployed) -> Option<&String> {
        self.failed.as_ref().filter(|(failed, _)| same(failed, which)).map(|(_, how)| how)
    }

    /// An instance of the first release begins to be loaded: of which; none while that is not known.
    pub fn first(&mut self) -> Option<Source> {
        let goal = self.goal()?.clone();
        self.loading = goal.clone();
        Some(source(goal))
    }

    /// Whether the first release can be loaded.
    pub fn knows(&self) -> bool {
        self.aim.is_some()
    }

    /// An instance has taken over.
    pub fn shows(&mut self, release: ReleaseId, digest: Arc<str>) {
        self.shown = Some((release, digest));
    }

    fn reached(&mut self, release: Deployed) {
        self.failed.take_if(|(failed, _)| same(failed, &release));
        self.retry_at = Moment::default();
        self.runs = Some(release);
    }

    /// The first release was loaded; says whether it has yet to prove itself.
    pub fn loaded(&mut self) -> bool {
        if self.runs.is_some() {
            return false;
        }
        let loading = self.loading.take();
        self.reached(loading);
        self.comes()
    }

    /// Whether what runs is what a rollout brings.
    pub fn comes(&self) -> bool {
        self.arrived() && self.aim.as_ref().is_some_and(|aim| aim.coming) && self.refused().is_none()
    }

    /// A swap was committed.
    pub fn committed(&mut self, swap: &Swap) {
        let before = self.runs.take().map(|runs| (runs, self.direct));
        let (now, direct) = match swap.source() {
            Source::Wanted(release) => (Some(release.clone()), false),
            Source::Earlier(_) => self.earlier.take().unwrap_or_default(),
            Source::Current => before.clone().unwrap_or_default(),
            Source::Manifest => (None, false),
            Source::Component(_) | Source::Configured { .. } => (None, true),
        };
        self.earlier = before.filter(|_| !swap.returns());
        self.direct = direct;
        self.reached(now);
    }
}

fn source(target: Deployed) -> Source {
    target.map_or(Source::Manifest, Source::Wanted)
}

impl Swap {
    /// The release of the document that it leads to, if it does.
    fn leads_to(&self) -> Option<Deployed> {
        match self.source() {
            _ if self.request.is_some() => None,
            Source::Wanted(release) => Some(Some(release.clone())),
            Source::Manifest => Some(None),
            Source::Current | Source::Earlier(_) | Source::Component(_) | Source::Configured { .. } => None,
        }
    }
}

impl Guest {
    /// Takes what the document wants now.
    pub(crate) fn aim(&mut self, cx: &mut Cx<'_>, aim: Aim, in_force: bool) {
        let at_rest = !aim.under_way;
        self.course.aim = Some(aim);
        if in_force && let Some((request, _)) = self.queued.take() {
            let outcome = SwapOutcome::Refused(DEPLOYED.into());
            cx.out.push(Command::Answer { request, answer: Answer::Swapped(outcome) });
        }
        self.probation.keep = !at_rest;
        if self.course.arrived() && !self.probation.runs(cx.now) {
            self.course.attempts = 0;
            if at_rest && self.course.number().is_some() {
                // From here on it is the group that goes back, and not a node of it.
                self.course.earlier = None;
                self.probation.forget();
            }
        }
    }

    /// What runs has failed, or could not be put in the place of what ran.
    pub(crate) fn course_failed(&mut self, cx: &mut Cx<'_>, which: Option<Arc<Numbered>>, why: String) {
        self.course.failed = Some((which, why));
        self.later(cx);
    }

    fn later(&mut self, cx: &mut Cx<'_>) {
        self.course.attempts += 1;
        let pause = cx.rng.backoff(self.policy.backoff, self.policy.backoff_max, self.course.attempts);
        self.course.retry_at = cx.now + pause;
    }

    /// What runs has failed while it was to prove itself.
    pub(crate) fn runs_badly(&mut self, cx: &mut Cx<'_>, why: &str) {
        if let Some(Some(release)) = self.course.runs.clone() {
            self.course_failed(cx, Some(release), why.to_owned());
        }
    }

    /// The first release could not be loaded. What cannot be read may be there soon; anything else is the release's fault.
    pub(crate) fn not_loaded(&mut self, cx: &mut Cx<'_>, step: Step, why: &str) {
        let again = self.failing.get("load").is_some_and(|failures| *failures >= self.policy.restarts);
        if (step != Step::Read || again) && self.course.runs.is_none() && self.course.loading.is_some() {
            let release = self.course.loading.clone();
            self.course_failed(cx, release, why.to_owned());
        }
    }

    /// When the next step towards the wanted release is due; none if there is nothing to do, or not now.
    pub(crate) fn course_due(&self) -> Option<Moment> {
        self.course.goal()?;
        let busy = self.stopping || self.ending || self.swap.is_some() || self.queued.is_some();
        if busy || self.course.runs.is_none() || self.course.arrived() {
            return None;
        }
        Some(self.course.retry_at)
    }

    /// Goes on towards the release that the document wants, and away from one that it does not want any more.
    pub(crate) fn follow(&mut self, cx: &mut Cx<'_>) {
        let Some(goal) = self.course.goal().cloned() else { return };
        let strays = self.swap.as_ref().and_then(Swap::leads_to).is_some_and(|to| !same(&to, &goal));
        if strays {
            self.roll_back(cx, "the group wants another release by now".into());
        }
        if self.course_due().is_some_and(|at| at <= cx.now) {
            let number = goal.as_ref().map(|release| release.number);
            let returns = number < self.course.number();
            let instance = cx.counters.instance();
            let mut swap = Swap::new(None, source(goal), instance, cx.now);
            swap.returns = returns;
            cx.out.push(Command::Prepare { group: self.group.clone(), instance, source: swap.source().clone() });
            self.swap = Some(swap);
        }
    }

    /// A swap ended without a commit.
    pub(crate) fn course_interrupted(&mut self, cx: &mut Cx<'_>, swap: &Swap, outcome: &SwapOutcome) {
        let Some(to) = swap.leads_to() else { return };
        match outcome {
            SwapOutcome::Unchanged(_) => self.course.reached(to),
            SwapOutcome::RolledBack(failure) if !swap.interrupted => self.course_failed(cx, to, failure.to_string()),
            _ => self.later(cx),
        }
    }

    /// On the way back, no fault of what is left behind may keep the node there: if the state of the release that runs cannot be
    /// had, or is refused, the one that the earlier release gave itself takes its place, and else there is none.
    pub(crate) fn hand_over_otherwise(&mut self, cx: &mut Cx<'_>, step: Step, why: &str) -> bool {
        let Some(swap) = self.swap.as_mut().filter(|swap| swap.returns && swap.leads_to().is_some()) else {
            return false;
        };
        if !matches!(step, Step::Snapshot | Step::Restore) || swap.hand == Hand::Nothing {
            return false;
        }
        let earlier = self.course.earlier.as_ref().filter(|(_, direct)| !direct);
        let kept = earlier.zip(swap.leads_to()).is_some_and(|((earlier, _), to)| same(earlier, &to));
        let kept = self.probation.handed.clone().filter(|_| kept && swap.hand == Hand::Snapshot);
        let text = if kept.is_some() {
            format!("{why}; the release before is given the state that it handed over itself")
        } else {
            format!("{why}; the release before begins without a state")
        };
        swap.hand = kept.map_or(Hand::Nothing, Hand::Kept);
        self.notice(cx, Level::Error, "handover-failed", None, text);
        self.begin_swap_again(cx, why);
        true
    }

    /// What this node reports.
    pub(crate) fn report(&self, now: Moment, address: &str) -> Option<Report> {
        let aim = self.course.aim.as_ref()?;
        let failed = self.course.has_failed(&aim.target).filter(|_| aim.coming || !self.course.arrived());
        let number = aim.target.as_ref().map_or(0, |target| target.number);
        let runs = self.course.runs.as_ref().is_some_and(|runs| same(runs, &aim.target));
        let state = match failed {
            Some(reason) => Staging::Failed { number, reason: crate::release::bounded(reason.clone()) },
            None if !runs => Staging::Staging,
            None if aim.coming && self.probation.runs(now) => Staging::Proving,
            None => Staging::Settled,
        };
        let (release, digest) = match &self.course.shown {
            Some((release, digest)) => (release.0.to_string(), digest.to_string()),
            None => Default::default(),
        };
        Some(Report { running: self.course.number(), release, digest, state, address: address.to_owned() })
    }
}

/// Why one node alone is not given another release.
pub(crate) const DEPLOYED: &str =
    "the group's release is deployed to all of its nodes: deploy another one to the group";
