//! A node: one session, any number of groups. The one entry is [`Node::handle`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::{Answer, Command, SwapOutcome};
use crate::config::{GroupConfig, Jitter, NodeConfig, Timing, TooShort};
use crate::event::{Ask, Event};
use crate::group::{Group, Stopping};
use crate::id::{GroupName, RequestId};
use crate::link::{Change, Counters, Cx, Link, State};
use crate::release::ReleaseError;
use crate::state::StateError;
use crate::time::Moment;

/// The state machines of one node. Feed it events, carry its commands out in order, and send it [`Event::Tick`] at
/// [`Node::deadline`].
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) link: Link,
    pub(crate) groups: BTreeMap<GroupName, Group>,
    rng: Jitter,
    counters: Counters,
    /// When a shutdown must be over, whatever stands in its way.
    stop_by: Option<Moment>,
    finished: bool,
}

macro_rules! context {
    ($node:ident, $now:expr, $out:expr) => {
        Cx {
            now: $now,
            node: &$node.config,
            link: &mut $node.link,
            out: $out,
            rng: &mut $node.rng,
            counters: &mut $node.counters,
        }
    };
}

/// What a shutdown may take besides the draining of tasks.
const STOP_MARGIN: Duration = Duration::from_secs(5);

impl Node {
    /// Makes a node that has done nothing yet; its first [`Event::Tick`] opens the session.
    ///
    /// # Errors
    /// When the session timeout leaves no time to demote a guest.
    pub fn new(config: NodeConfig, groups: impl IntoIterator<Item = GroupConfig>) -> Result<Self, TooShort> {
        let timing = Timing::new(config.session_timeout, config.tick_time)?;
        let groups = groups
            .into_iter()
            .map(|group| (group.name.clone(), Group::new(&config, group)))
            .collect::<BTreeMap<_, _>>();
        Ok(Self {
            link: Link::new(timing, config.tick_time),
            groups,
            rng: Jitter::new(config.seed),
            counters: Counters::default(),
            stop_by: None,
            finished: false,
            config,
        })
    }

    /// The same node, with these safeguards alone.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn with_safeguards(mut self, safeguards: crate::config::Safeguards) -> Self {
        self.link.safeguards = safeguards;
        for group in self.groups.values_mut() {
            group.election.safeguards = safeguards;
            group.rollouts.safeguards = safeguards;
        }
        self
    }

    /// Takes one event; gives what must be done, in order.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        if self.finished {
            return out;
        }
        let unsure_before = self.link.giving_up.is_some();
        if self.link.lease().is_some_and(|until| until <= now)
            && self.groups.values().any(|group| group.election.leading().is_some())
        {
            // Whatever has come, a lease that has run out is dealt with first: the process may have been paused.
            self.with_all(now, &mut out, |_, _| {});
        }
        match event {
            Event::Session { generation, event } => {
                let change = context!(self, now, &mut out).session_event(generation, event);
                self.session_changed(now, change, &mut out);
            }
            Event::Prepared { group, instance, result } => {
                self.with(&group, now, &mut out, |group, cx| group.prepared(cx, instance, result));
            }
            Event::Returned { group, instance, call, result } => {
                self.with(&group, now, &mut out, |group, cx| group.returned(cx, instance, call, result));
            }
            Event::Ask { group, request, asker, ask } => {
                if self.groups.contains_key(&group) {
                    self.with(&group, now, &mut out, |group, cx| group.ask(cx, request, asker, ask));
                } else {
                    out.push(no_such_group(request, &ask, &group));
                }
            }
            Event::TasksEnded { group, release, outcomes } => {
                self.with(&group, now, &mut out, |group, cx| group.guest.tasks_ended(cx, &release, outcomes));
            }
            Event::Drained { group } => self.with(&group, now, &mut out, |group, cx| group.drained(cx)),
            Event::Shutdown => {
                self.stop_by.get_or_insert(now + self.config.drain + STOP_MARGIN + self.link.timing.timeout);
                self.with_all(now, &mut out, |group, cx| group.shut_down(cx));
            }
            Event::Tick => self.with_due(now, &mut out),
        }
        self.tend(now, &mut out);
        if !unsure_before && self.link.giving_up.is_some() {
            // Whoever leads by this session must be told before it is closed.
            self.with_all(now, &mut out, |_, _| {});
            self.tend(now, &mut out);
        }
        self.finished |= out.iter().any(|command| matches!(command, Command::Finished { .. }));
        #[cfg(any(debug_assertions, test))]
        crate::invariant::check(self, now);
        out
    }

    fn with(
        &mut self,
        name: &GroupName,
        now: Moment,
        out: &mut Vec<Command>,
        what: impl FnOnce(&mut Group, &mut Cx<'_>),
    ) {
        let mut cx = context!(self, now, out);
        if let Some(group) = self.groups.get_mut(name) {
            what(group, &mut cx);
            group.drive(&mut cx);
        }
    }

    fn with_all(&mut self, now: Moment, out: &mut Vec<Command>, mut what: impl FnMut(&mut Group, &mut Cx<'_>)) {
        let mut cx = context!(self, now, out);
        for group in self.groups.values_mut() {
            what(group, &mut cx);
            group.drive(&mut cx);
        }
    }

    fn with_due(&mut self, now: Moment, out: &mut Vec<Command>) {
        let mut cx = context!(self, now, out);
        for group in self.groups.values_mut() {
            if group.deadline(cx.link, now).is_some_and(|due| due <= now) {
                group.drive(&mut cx);
            }
        }
    }

    fn session_changed(&mut self, now: Moment, change: Change, out: &mut Vec<Command>) {
        match change {
            Change::None => {}
            Change::Connected => self.with_all(now, out, |group, cx| group.connected(cx)),
            Change::Closed => self.with_all(now, out, |group, cx| group.session_lost(cx)),
            Change::Lost { permanent } => {
                self.with_all(now, out, |group, cx| group.session_lost(cx));
                if let Some(why) = permanent {
                    out.push(Command::Finished { error: Some(why) });
                }
            }
            Change::Answered(name, purpose, tag, result) => {
                self.with(&name, now, out, |group, cx| group.answered(cx, purpose, tag, result));
            }
            Change::Fired(name, purpose, tag) => {
                self.with(&name, now, out, |group, cx| group.fired(cx, &purpose, tag));
            }
            Change::ChildChanged(name, tag, child) => {
                self.with(&name, now, out, |group, _| group.child_changed(tag, child));
            }
        }
    }

    /// What concerns the session as a whole.
    fn tend(&mut self, now: Moment, out: &mut Vec<Command>) {
        let leads = self.leads();
        let stopped = self.stop_by.is_some() && self.groups.values().all(|group| group.stopping == Stopping::Done);
        let late = self.stop_by.is_some_and(|by| by <= now);
        let demoting_or_leading = self.groups.values().any(Group::leads);
        let mut cx = context!(self, now, out);
        if stopped || late {
            cx.close_session();
            let closed = matches!(cx.link.state, State::Closed { .. } | State::Over);
            if closed || late {
                out.push(Command::Finished { error: None });
            }
            return;
        }
        if cx.link.giving_up.is_some() && !demoting_or_leading {
            cx.close_session();
        }
        if self.stop_by.is_none() || cx.link.session().is_some() {
            cx.tend();
        }
        if leads {
            cx.beat();
        }
    }

    fn leads(&self) -> bool {
        self.groups
            .values()
            .any(|group| group.leads() || matches!(group.election.phase, crate::election::Phase::Claiming))
    }

    /// When [`Event::Tick`] is due next.
    #[must_use]
    pub fn deadline(&self, now: Moment) -> Option<Moment> {
        if self.finished {
            return None;
        }
        let groups = self.groups.values().filter_map(|group| group.deadline(&self.link, now));
        // On the way out, no further session is opened.
        let link = self.link.deadline(self.leads());
        let link = link.filter(|_| self.stop_by.is_none() || self.link.session().is_some());
        groups.chain(link).chain(self.stop_by).min()
    }
}

fn no_such_group(request: RequestId, ask: &Ask, group: &GroupName) -> Command {
    let why = format!("this node has no group {:?}", group.as_str());
    let answer = match ask {
        Ask::State(_) => Answer::State(Err(StateError::Other(why))),
        Ask::Leader => Answer::Leader(Err(why)),
        Ask::Resign => Answer::Resigned(false),
        Ask::Swap(_) => Answer::Swapped(SwapOutcome::Refused(why)),
        Ask::Release(_) => Answer::Release(Err(ReleaseError::Other(why))),
    };
    Command::Answer { request, answer }
}
