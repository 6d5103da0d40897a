//! One group on this node: its election, its registry, its guest and its state, held together.

use crate::callback::DemotionReason;
use crate::command::{Answer, Command, Level, Notice, SwapOutcome};
use crate::config::{GroupConfig, LastResort, NodeConfig, Paths, StateAccess, Watch};
use crate::course::DEPLOYED;
use crate::election::{self, Election, Phase};
use crate::event::{Ask, Asker};
use crate::guest::{GaveUp, Guest, Present};
use crate::id::{CallId, Epoch, InstanceId, RequestId, Tag};
use crate::link::{self, Cx, Purpose};
use crate::member::Member;
use crate::members::Members;
use crate::registry::{self, Register, Registry};
use crate::release::Report;
use crate::request::{Reply, RequestError};
use crate::rollout::{self, Around, Rollouts};
use crate::state::{StateError, StateOp};
use crate::store::{self, Store};
use crate::time::Moment;

/// The end of a term, while the guest is being told.
#[derive(Debug, Clone)]
struct Demotion {
    reason: DemotionReason,
    epoch: Epoch,
    /// The guest must have been told by then: the session may end, and somebody else be elected, soon after.
    by: Moment,
}

/// How far the way out has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stopping {
    No,
    Leaving,
    Draining,
    Done,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub config: GroupConfig,
    member: Member,
    pub election: Election,
    pub registry: Registry,
    pub guest: Guest,
    store: Store,
    pub rollouts: Rollouts,
    demotion: Option<Demotion>,
    pub sitting_out: Option<Moment>,
    pub stopping: Stopping,
    /// Whether this node has ever stood in this group, as a member or as the leader.
    stood: bool,
    /// Why it never will (again).
    pub denied: Option<String>,
    published: Option<Members>,
    /// When something is due, as of the last [`Self::drive`].
    due: Option<Moment>,
}

impl Group {
    pub fn new(node: &NodeConfig, config: GroupConfig) -> Self {
        let paths = Paths::new(&node.root, &config.name, config.election_path.as_deref());
        let name = config.name.clone();
        Self {
            member: Member { id: node.id.clone(), address: node.address.clone(), labels: config.labels.clone() },
            election: Election::new(name.clone(), paths.clone(), config.election_format),
            registry: Registry::new(name.clone(), &paths),
            guest: Guest::new(&config),
            rollouts: Rollouts::new(name.clone(), node.id.clone(), &paths),
            store: Store::new(name, paths),
            demotion: None,
            sitting_out: None,
            stopping: Stopping::No,
            stood: false,
            denied: None,
            published: None,
            due: Some(Moment::default()),
            config,
        }
    }

    fn notice(&self, cx: &mut Cx<'_>, level: Level, what: &'static str, epoch: Option<Epoch>, text: String) {
        let release = self.guest.release().cloned();
        cx.notice(Notice { level, group: Some(self.config.name.clone()), epoch, release, what, text });
    }

    /// Whether the guest leads, or has not yet been told that it does not.
    pub fn leads(&self) -> bool {
        self.election.leading().is_some() || self.demotion.is_some()
    }

    /// Whether the guest is being told that it does not lead any more.
    pub fn demoting(&self) -> bool {
        self.demotion.is_some()
    }

    /// Whether this node stands in the group: as a member, or as the leader.
    pub fn stands(&self) -> bool {
        self.election.leading().is_some() || self.registry.registered()
    }

    fn present(&self) -> Present {
        let leading = self.election.leading();
        let hears = leading.is_some() || self.config.watch == Watch::All;
        Present {
            leading,
            demoting: self.demotion.as_ref().map(|demotion| (demotion.reason.clone(), demotion.by)),
            members: if hears { self.registry.members.clone() } else { None },
        }
    }

    fn wanted(&self, now: Moment) -> bool {
        self.config.candidate
            && self.stood_ready()
            && self.stopping == Stopping::No
            && self.denied.is_none()
            && self.sitting_out.is_none_or(|until| until <= now)
    }

    fn stood_ready(&self) -> bool {
        self.stood || self.guest.live.is_some()
    }

    fn register(&self) -> Register {
        if self.stopping != Stopping::No {
            Register::No
        } else if self.denied.is_none() && self.demotion.is_none() && self.election.working() && self.stood_ready() {
            Register::Yes
        } else {
            Register::Keep
        }
    }

    /// Does whatever is due, until nothing is.
    pub fn drive(&mut self, cx: &mut Cx<'_>) {
        // Each round does at least one thing; a handful is the longest chain there is.
        for _ in 0..16 {
            let before = cx.out.len();
            self.drive_once(cx);
            if cx.out.len() == before {
                break;
            }
        }
        self.due = self.next_due(cx.link, cx.now);
    }

    fn drive_once(&mut self, cx: &mut Cx<'_>) {
        let lease = cx.link.lease();
        if self.election.leading().is_some() {
            if lease.is_none_or(|until| until <= cx.now) {
                self.demote(cx, DemotionReason::LeaseLost, false);
            } else if self.stopping != Stopping::No {
                self.demote(cx, DemotionReason::Stopping, true);
            } else if cx.link.giving_up.is_some() {
                self.demote(cx, DemotionReason::SessionLost, false);
            }
        }
        if let Some(demotion) = &mut self.demotion
            && cx.link.session().is_some()
        {
            demotion.by = cx.link.demote_by();
        }
        // Before the guest hears of members: it may send them work at once.
        self.publish(cx);
        let present = self.present();
        if let Some(aim) = self.rollouts.aim().cloned() {
            self.guest.aim(cx, aim, self.rollouts.in_force());
        }
        self.guest.drive(cx, &present);
        self.store.observe_only(cx, &self.guest.observers());
        self.store.drive(cx);
        if self.guest.demoted()
            && let Some(demotion) = self.demotion.take()
        {
            let text = format!("does not lead any more: {}", demotion.reason);
            self.notice(cx, Level::Info, "demoted", Some(demotion.epoch), text);
            let others = self.registry.members.as_ref().is_some_and(|members| !members.is_empty());
            self.election.demoted(cx, others);
        }
        if self.demotion.is_none() {
            self.election.withdraw(cx);
        }
        let (wanted, able) = (self.wanted(cx.now), self.able());
        self.election.drive(cx, wanted, able, self.registry.own());
        // While the guest is told that it does not lead, the members stay watched: to let go of that is a request, and would hold up the
        // one by which our znode goes. No longer than that: the successor's member goes next, which would be told of and read in vain.
        let watch = self.leads() || self.config.watch == Watch::All;
        let registers = self.registry.about_to_register(cx.now, self.register()) && cx.link.ready();
        if self.election.follows() || registers {
            // Answered before the member is made, so that no task comes before its epoch can be judged.
            self.election.witness(cx);
        }
        self.registry.drive(cx, &self.member, self.register(), watch && self.denied.is_none());
        if self.denied.is_none() {
            let around = Around {
                report: self.report(cx.now),
                fence: self.election.fence(),
                members: self.registry.members.as_ref(),
            };
            self.rollouts.drive(cx, &around);
        }
        self.publish(cx);
        self.stop_further(cx);
    }

    /// What this node reports of its release, from the first one on that is deployed to the group.
    fn report(&self, now: Moment) -> Option<Report> {
        let deployed = self.rollouts.document().is_some_and(|document| document.deployed());
        let takes_part = deployed && self.stopping == Stopping::No;
        self.guest.report(now, &self.member.address).filter(|_| takes_part)
    }

    fn able(&self) -> bool {
        self.guest.live.is_some() && self.demotion.is_none()
    }

    fn publish(&mut self, cx: &mut Cx<'_>) {
        let same = match (&self.published, &self.registry.members) {
            (Some(before), Some(now)) => before.is_same(now),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.published = self.registry.members.clone();
            let members = self.published.clone().unwrap_or_default();
            cx.out.push(Command::Publish { group: self.config.name.clone(), members });
        }
    }

    fn stop_further(&mut self, cx: &mut Cx<'_>) {
        let out = self.demotion.is_none() && matches!(self.election.phase, Phase::Out { .. } | Phase::Denied);
        let gone = out && self.registry.own() == Some(None);
        if self.stopping == Stopping::Leaving && (gone || !cx.link.ready() && self.demotion.is_none()) {
            self.stopping = Stopping::Draining;
            cx.out.push(Command::Drain { group: self.config.name.clone() });
        }
    }

    /// The earliest moment at which something is due. It may be earlier than need be, for what was due when this group was driven may
    /// have been put off since: the lease grows with each heartbeat.
    pub fn deadline(&self, link: &link::Link, now: Moment) -> Option<Moment> {
        // With a thousand groups, reckoning anew after each event of one of them would be most of the work. But from when on a claim is
        // worth it depends on what the session hears, whomever that concerns.
        if matches!(self.election.phase, Phase::Lowest { .. }) { self.next_due(link, now) } else { self.due }
    }

    fn next_due(&self, link: &link::Link, now: Moment) -> Option<Moment> {
        let lease = self.election.leading().and(link.lease());
        let able = self.able() && self.registry.own().is_some();
        [
            lease,
            self.guest.deadline(&self.present()),
            self.election.deadline(link, now, able),
            self.registry.deadline(link, self.register()),
            self.rollouts
                .deadline(link, self.election.leading().is_some(), self.report(now).as_ref())
                .filter(|_| self.denied.is_none()),
            self.store.deadline(link),
            self.sitting_out.filter(|until| *until > now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ends the term: effects first, then the guest is told, and only then may the election go on.
    fn demote(&mut self, cx: &mut Cx<'_>, reason: DemotionReason, leave: bool) {
        let Some(epoch) = self.election.leading() else {
            if leave {
                self.election.leave_after_demotion();
            }
            return;
        };
        cx.out.push(Command::Revoke { group: self.config.name.clone() });
        let text = format!("leadership ends: {reason}");
        self.notice(cx, Level::Info, "demoting", Some(epoch), text);
        self.election.demote(cx, leave);
        self.demotion = Some(Demotion { reason, epoch, by: cx.link.demote_by() });
        self.store.not_leading(cx, self.config.state == StateAccess::All);
    }

    fn gave_up(&mut self, cx: &mut Cx<'_>, GaveUp { why, unwilling }: GaveUp) {
        match self.config.on_failure.then {
            // A guest that does not want to lead does not lead, whatever is done about failures.
            LastResort::Restart | LastResort::Stop if unwilling => {}
            LastResort::Restart => return,
            LastResort::Stop => {
                let text = format!("leaves the group, as on_failure says: {why}");
                self.notice(cx, Level::Error, "left-group", self.election.leading(), text);
                self.demote(cx, DemotionReason::Failed(why), true);
                return self.shut_down(cx);
            }
            // A way back was looked for before it came to this.
            LastResort::Resign | LastResort::Rollback => {}
        }
        let pause = self.config.on_failure.sit_out;
        let until = cx.now + cx.rng.around(pause);
        self.sitting_out = Some(until);
        let epoch = self.election.leading();
        self.notice(
            cx,
            Level::Error,
            "sitting-out",
            epoch,
            format!("stays out of the election for about {pause:?}: {why}"),
        );
        self.demote(cx, DemotionReason::Failed(why), true);
    }

    fn deny(&mut self, cx: &mut Cx<'_>, why: String) {
        self.notice(cx, Level::Error, "denied", self.election.leading(), why.clone());
        self.demote(cx, DemotionReason::Superseded, false);
        self.denied = Some(why.clone());
        if !self.stood {
            cx.out.push(Command::Finished { error: Some(why) });
        }
    }

    /// Begins to leave for good.
    pub fn shut_down(&mut self, cx: &mut Cx<'_>) {
        if self.stopping == Stopping::No {
            self.stopping = Stopping::Leaving;
            self.guest.stop_swaps(cx);
        }
    }

    pub fn drained(&mut self, cx: &mut Cx<'_>) {
        self.stopping = Stopping::Done;
        self.guest.end(cx);
    }

    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        self.election.connected(cx);
        self.registry.connected(cx);
        self.store.connected(cx, self.election.fence());
        self.rollouts.connected(cx);
    }

    pub fn session_lost(&mut self, cx: &mut Cx<'_>) {
        self.demote(cx, DemotionReason::SessionLost, false);
        self.election.session_lost();
        self.registry.session_lost();
        self.store.session_lost(cx);
        self.rollouts.session_lost(cx);
    }

    pub fn prepared(
        &mut self,
        cx: &mut Cx<'_>,
        instance: InstanceId,
        result: Result<crate::callback::Prepared, crate::callback::PrepareFailure>,
    ) {
        if let Some(gave_up) = self.guest.prepared(cx, instance, result) {
            self.gave_up(cx, gave_up);
        }
    }

    pub fn returned(
        &mut self,
        cx: &mut Cx<'_>,
        instance: InstanceId,
        call: CallId,
        result: Result<crate::callback::Returned, crate::callback::CallFailure>,
    ) {
        if let Some(gave_up) = self.guest.returned(cx, instance, call, result) {
            self.gave_up(cx, gave_up);
        }
    }

    pub fn ask(&mut self, cx: &mut Cx<'_>, request: RequestId, asker: Asker, ask: Ask) {
        match ask {
            Ask::Leader => self.store.ask_leader(cx, request),
            Ask::Resign => {
                let led = self.election.leading().is_some();
                self.demote(cx, DemotionReason::Resigned, true);
                cx.out.push(Command::Answer { request, answer: Answer::Resigned(led) });
            }
            Ask::Swap(source) => {
                let refused = match self.rollouts.document() {
                    Some(_) if self.rollouts.in_force() => Some(DEPLOYED),
                    Some(_) => None,
                    None => Some("it is not known yet what release the group runs: the coordinator has not answered"),
                };
                match refused {
                    None => self.guest.ask_swap(cx, request, source),
                    Some(why) => {
                        let answer = Answer::Swapped(SwapOutcome::Refused(why.into()));
                        cx.out.push(Command::Answer { request, answer });
                    }
                }
            }
            Ask::Release(op) => self.rollouts.put_question(cx, request, asker, op),
            Ask::State(op) => match self.may(asker, &op) {
                Ok(()) => {
                    let fence = if matches!(asker, Asker::Guest(_)) { self.election.fence() } else { None };
                    self.store.put_question(cx, request, asker, op, fence);
                }
                Err(error) => cx.out.push(Command::Answer { request, answer: Answer::State(Err(error)) }),
            },
        }
    }

    fn may(&self, asker: Asker, op: &StateOp) -> Result<(), StateError> {
        let reads = !matches!(op, StateOp::Put { .. } | StateOp::Delete { .. });
        match (asker, self.config.state) {
            (Asker::Operator, _) if reads => Ok(()),
            (_, StateAccess::None) => Err(StateError::NotGranted("state".into())),
            (Asker::Guest(instance), _) if !self.guest.observers().contains(&instance) => Err(StateError::NotLeader),
            (Asker::Guest(_), _) if self.election.leading().is_some() => Ok(()),
            (Asker::Guest(_) | Asker::Worker, StateAccess::All) if reads => Ok(()),
            _ => Err(StateError::NotLeader),
        }
    }

    pub fn fired(&mut self, cx: &mut Cx<'_>, purpose: &Purpose, tag: Tag) {
        match purpose {
            Purpose::Parent => {}
            Purpose::Election(_) => self.election.fired(cx, tag),
            Purpose::Registry(_) => self.registry.fired(tag),
            Purpose::Store(purpose) => self.store.fired(cx, purpose, tag),
            Purpose::Rollout(_) => self.rollouts.fired(tag),
        }
    }

    pub fn child_changed(&mut self, tag: Tag, name: String) {
        self.registry.child_changed(tag, name);
    }

    pub fn answered(&mut self, cx: &mut Cx<'_>, purpose: Purpose, tag: Tag, result: Result<Reply, RequestError>) {
        match purpose {
            Purpose::Parent => {
                if result == Err(RequestError::NoAuth) {
                    // ZooKeeper looks at the ACL before it looks whether the znode exists already.
                    self.election.parents_denied = true;
                }
            }
            Purpose::Election(purpose) => {
                if result == Err(RequestError::NoAuth) {
                    // While the election still knows that it led.
                    self.demote(cx, DemotionReason::Superseded, true);
                }
                self.election_answered(cx, purpose, tag, result);
            }
            Purpose::Registry(purpose) => match self.registry.answered(cx, purpose, tag, result) {
                registry::Outcome::Nothing => {}
                registry::Outcome::Registered => {
                    self.stood = true;
                    self.notice(cx, Level::Info, "registered", None, "registered as a worker".into());
                }
                registry::Outcome::ParentsGone if self.election.parents_denied => {
                    let group = &self.config.name;
                    let why = format!(
                        "the registry of {group} is not there, and the ACL of {} denies this node's identity to make it (NoAuth)",
                        cx.node.root
                    );
                    self.deny(cx, why);
                }
                registry::Outcome::ParentsGone => self.election.parents_gone(cx),
                registry::Outcome::Denied(why) => self.deny(cx, why),
            },
            Purpose::Rollout(purpose) => {
                let denied = self.election.parents_denied;
                match self.rollouts.answered(cx, purpose, tag, result, denied) {
                    rollout::Outcome::Nothing => {}
                    rollout::Outcome::Superseded => self.demote(cx, DemotionReason::Superseded, false),
                    rollout::Outcome::Denied(why) => self.deny(cx, why),
                }
            }
            Purpose::Store(purpose) => {
                let fence = self.election.fence();
                match self.store.answered(cx, purpose, tag, result, fence) {
                    store::Outcome::Nothing => {}
                    store::Outcome::Superseded => self.demote(cx, DemotionReason::Superseded, false),
                    store::Outcome::Changed(instance, key, entry) => self.guest.state_changed(instance, key, entry),
                }
            }
        }
    }

    fn election_answered(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: election::Purpose,
        tag: Tag,
        result: Result<Reply, RequestError>,
    ) {
        match self.election.answered(cx, purpose, tag, result) {
            election::Outcome::Nothing => {}
            election::Outcome::Won(epoch) => self.won(cx, epoch),
            election::Outcome::Superseded => self.demote(cx, DemotionReason::Superseded, false),
            election::Outcome::Witnessed(epoch) => {
                cx.out.push(Command::Witness { group: self.config.name.clone(), epoch });
            }
            election::Outcome::Denied(why) => self.deny(cx, why),
            election::Outcome::MemberGone => self.registry.taken_away(),
        }
    }

    fn won(&mut self, cx: &mut Cx<'_>, epoch: Epoch) {
        self.stood = true;
        self.registry.taken_away();
        let Some(until) = cx.link.lease() else { return };
        let group = self.config.name.clone();
        cx.out.push(Command::Witness { group: group.clone(), epoch });
        cx.out.push(Command::Grant { group, epoch, until });
        self.notice(cx, Level::Info, "elected", Some(epoch), "leads from now on".into());
    }
}
