//! One node's part in a group's election.
//!
//! The recipe is ZooKeeper's own (ephemeral sequential znodes, each candidate watching the one before it), with two
//! additions. A candidate that finds itself lowest *proves* it with a transaction that checks its own znode and writes the
//! epoch, so that whatever it saw was true when it mattered. And whenever something is unsure (a lost reply, a new connection,
//! an event that was not expected) it surveys the candidates afresh, adopts what is its own in this session, and
//! deletes what it left behind in an earlier one.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::candidate::{Candidate, counter_warning};
use crate::command::Notice;
use crate::config::{ElectionFormat, Paths, Safeguard, Safeguards};
use crate::id::{Epoch, GroupName, NodeId, SessionId, Tag};
use crate::link::{self, Cx, Owner};
use crate::member::Leader;
use crate::request::{CreateMode, Op, Reply, Request, RequestError};
use crate::time::Moment;

mod claim;
mod rank;
mod survey;

/// What a request of the election was for. Rounds tell the answers of an abandoned survey from those that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The list of a survey, behind a `sync`.
    Survey { round: u64 },
    /// Whose is the znode that carries our guid?
    Inspect { round: u64, name: String },
    /// Our own znode is made.
    Join { round: u64 },
    /// The list that places us.
    Place { round: u64 },
    /// When a candidate was made whose suffix does not tell.
    Rank { round: u64, name: String },
    /// The znode before ours, with a watch; the transaction that made it, if that gave it its place; and all that stood before ours, if
    /// they were few.
    Predecessor { round: u64, name: String, made: Option<i64>, ahead: Vec<String> },
    /// The proof.
    Claim { round: u64 },
    /// Our znode, watched while we lead.
    Guard { round: u64 },
    /// Our znode, looked at from time to time while we follow.
    Audit { round: u64 },
    /// The epoch, read when somebody is found to stand before us.
    Witness,
    /// A znode of ours is deleted; whether that works is seen by the next survey.
    Sweep,
    /// Our own znode is deleted to leave the election.
    Leave { name: String },
    /// The sync before a survey's list; only the list's answer counts.
    Sync,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not in the election, nothing under way. `clean`: our znode was deleted, and the connection was there ever since, so that
    /// nothing can have been left behind.
    Out { clean: bool },
    /// Not known: a survey is due, now or at this moment.
    Unsure { at: Moment },
    /// Looking at who is there and what is ours.
    Surveying { inspecting: usize, ours: Vec<Candidate>, all: Vec<Candidate> },
    /// Making our znode.
    Joining,
    /// In; finding out behind whom.
    Placing,
    /// Behind somebody, when the list was made; the watch on the one before us is being set.
    Behind,
    /// In, with a suffix from the counter's end: finding out who was made when. `nearest` is the last of those before the end.
    Ranking { unread: usize, made: Vec<(i64, Candidate)>, nearest: Option<Candidate> },
    /// Behind somebody. `ahead`: all that stood before ours when we were placed; none if they were more than a few.
    Following { watch: Tag, ahead: Vec<String> },
    /// Lowest; the proof is due at this moment. With names, only if those are gone, which the proof must show as well.
    Lowest { at: Moment, gone: Vec<String> },
    /// Proving it.
    Claiming,
    /// Proved.
    Leading { epoch: Epoch, version: i32, guard: Option<Tag> },
    /// No longer leading; the guest is being told. Nothing happens here until it has been.
    Demoting { leave: bool },
    /// Deleting our znode.
    Leaving,
    /// Never again: the ACL forbids it.
    Denied,
}

#[derive(Debug, Clone)]
pub(crate) struct Election {
    group: GroupName,
    paths: Paths,
    format: ElectionFormat,
    pub phase: Phase,
    /// Our znode in the present session, as far as we know.
    own: Option<Candidate>,
    round: u64,
    /// Failures since the last success, for the back-off.
    attempts: u32,
    audit_at: Moment,
    /// Until then, who has left lets the others be first.
    yields_until: Moment,
    /// Whether the group's persistent znodes were made in this session.
    parents: bool,
    warned_counter: bool,
    /// The ACL forbids making them. That does not matter if they are there.
    pub parents_denied: bool,
    /// Znodes that are named like candidates and belong to no session: nobody's candidates, and nobody would take them away.
    planted: BTreeSet<String>,
    /// Whether this node shall be in, as of the last [`Self::drive`].
    wanted: bool,
    /// Somebody was found to stand before us, and the group has not asked yet.
    follows: bool,
    pub safeguards: Safeguards,
}

/// What the group must do about an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Nothing,
    /// The claim is proved.
    Won(Epoch),
    /// What we led by is gone.
    Superseded,
    /// An epoch was read.
    Witnessed(Epoch),
    /// The ACL forbids it.
    Denied(String),
    /// The znode of our member was not where the claim thought it was.
    MemberGone,
}

/// A successor that is there has claimed by then, mostly; all that the former leader asks for meanwhile would hold that up.
const YIELD: Duration = Duration::from_millis(10);
const SURVEY_PAUSE: Duration = Duration::from_millis(50);
const SURVEY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A claim proves of so many that they are gone. With more, a list is cheaper; and each takes a number from the counter of the names.
const FEW: usize = 3;
/// So many surveys or claims in a row may end without a clear answer; then the session is given up.
const UNSURE_MAX: u32 = 20;
/// So many of them are remembered.
const PLANTED_MAX: usize = 1024;

impl Election {
    pub fn new(group: GroupName, paths: Paths, format: ElectionFormat) -> Self {
        Self {
            group,
            paths,
            format,
            phase: Phase::Unsure { at: Moment::default() },
            own: None,
            round: 0,
            attempts: 0,
            audit_at: Moment::default(),
            yields_until: Moment::default(),
            parents: false,
            warned_counter: false,
            parents_denied: false,
            planted: BTreeSet::new(),
            wanted: false,
            follows: false,
            safeguards: Safeguards::default(),
        }
    }

    pub fn leading(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Leading { epoch, .. } => Some(epoch),
            _ => None,
        }
    }

    /// Reads the epoch, so that tasks of older terms are refused from the first on.
    pub fn witness(&self, cx: &mut Cx<'_>) {
        // Whoever is in has made a znode in this session, or found it after a sync, and no server that it talks to is behind that. What
        // was seen of later epochs stays.
        if self.own.is_none() {
            self.ask(cx, Purpose::Sync, Request::Sync { path: self.paths.epoch.clone() });
        }
        self.ask(cx, Purpose::Witness, Request::Get { path: self.paths.epoch.clone(), watch: false });
    }

    /// Whether this node is a worker for certain: somebody is before it, or it is not in at all.
    pub fn working(&self) -> bool {
        matches!(self.phase, Phase::Behind | Phase::Following { .. })
            || matches!(self.phase, Phase::Out { .. }) && !self.wanted
    }

    /// What a fenced write checks: our own znode, and that nobody has claimed since.
    pub fn fence(&self) -> Option<[Op; 2]> {
        match (&self.phase, &self.own) {
            (Phase::Leading { version, .. }, Some(own)) => {
                let version = self.safeguards.hold(Safeguard::Proof).then_some(*version);
                Some([self.standing(own), Op::Check { path: self.paths.epoch.clone(), version }])
            }
            _ => None,
        }
    }

    /// Whether `one` stands before `other`.
    fn before(&self, one: &Candidate, other: &Candidate) -> bool {
        if self.safeguards.hold(Safeguard::SuffixOrder) { one.seq < other.seq } else { one.name < other.name }
    }

    /// Whether a znode that carries our guid belongs to the present session.
    fn is_ours(&self, cx: &Cx<'_>, owner: Option<SessionId>) -> bool {
        owner.is_some() && (owner == cx.link.session() || !self.safeguards.hold(Safeguard::Owner))
    }

    /// The own znode of this session, and whether it is thought to exist.
    #[cfg(any(debug_assertions, test))]
    pub fn has_place(&self) -> bool {
        self.own.is_some()
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.paths.election)
    }

    fn ask(&self, cx: &mut Cx<'_>, purpose: Purpose, request: Request) -> Option<Tag> {
        cx.submit(Owner::Group(self.group.clone(), link::Purpose::Election(purpose)), request)
    }

    /// Forgets what the session held; it is gone.
    pub fn session_lost(&mut self) {
        self.own = None;
        self.parents = false;
        self.planted.clear();
        self.round += 1;
        if !matches!(self.phase, Phase::Demoting { .. } | Phase::Denied) {
            self.phase = Phase::Unsure { at: Moment::default() };
        }
    }

    /// Connected (again): whatever was under way is unsure.
    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        match &mut self.phase {
            Phase::Leading { guard, .. } => {
                if let Some(tag) = guard.take() {
                    cx.forget(tag);
                }
                self.guard(cx);
            }
            Phase::Out { clean } => *clean = false,
            Phase::Demoting { .. } | Phase::Denied => {}
            Phase::Following { watch, .. } => {
                let watch = *watch;
                cx.forget(watch);
                self.unsure(Moment::default());
            }
            _ => self.unsure(Moment::default()),
        }
    }

    fn unsure(&mut self, at: Moment) {
        self.round += 1;
        self.phase = Phase::Unsure { at };
    }

    fn again_later(&mut self, cx: &mut Cx<'_>, why: &str) {
        self.attempts += 1;
        if self.attempts > UNSURE_MAX {
            self.attempts = 0;
            cx.abandon(format!("group {}: the election stays unclear ({why})", self.group));
        }
        let pause = cx.rng.backoff(SURVEY_PAUSE, SURVEY_PAUSE_MAX, self.attempts);
        self.unsure(cx.now + pause);
    }

    /// Does what is due. `wanted`: whether this node shall be in. `member` is the name of its member, if it has one; `None`
    /// while that is not settled, for the proof takes the member away.
    pub fn drive(&mut self, cx: &mut Cx<'_>, wanted: bool, able: bool, member: Option<Option<&str>>) {
        self.wanted = wanted;
        match &self.phase {
            Phase::Unsure { at } if *at <= cx.now && cx.link.ready() => self.survey(cx),
            Phase::Out { .. } if self.yields_until > cx.now => {}
            // There is nothing to survey.
            Phase::Out { clean: true } if wanted && cx.link.ready() => {
                self.round += 1;
                self.join(cx);
            }
            Phase::Out { .. } if wanted => {
                self.unsure(cx.now);
                if cx.link.ready() {
                    self.survey(cx);
                }
            }
            Phase::Following { watch, .. } if !wanted => {
                let watch = *watch;
                cx.forget(watch);
                self.leave(cx);
            }
            Phase::Following { .. } | Phase::Leading { .. } if self.audit_at <= cx.now && cx.link.ready() => {
                self.audit(cx)
            }
            Phase::Lowest { .. } if !wanted => self.leave(cx),
            Phase::Lowest { at, gone } if cx.link.ready() => {
                let due = able && *at <= cx.now && cx.link.claim_from(cx.now).is_some_and(|from| from <= cx.now);
                match member.filter(|_| due) {
                    Some(member) => {
                        let gone = gone.clone();
                        self.claim(cx, member, &gone);
                    }
                    // Not to be proved now: then it is looked at, and watched if it is still there.
                    None if !gone.is_empty() => self.list(cx),
                    None => {}
                }
            }
            _ => {}
        }
    }

    pub fn deadline(&self, link: &link::Link, now: Moment, able: bool) -> Option<Moment> {
        match self.phase {
            _ if !link.ready() => None,
            Phase::Unsure { at } => Some(at),
            Phase::Lowest { at, .. } if able => link.claim_from(now).map(|from| from.max(at)),
            Phase::Following { .. } | Phase::Leading { .. } => Some(self.audit_at),
            Phase::Out { .. } if self.wanted => Some(self.yields_until),
            _ => None,
        }
    }

    fn audit(&mut self, cx: &mut Cx<'_>) {
        self.audit_at = cx.now + cx.rng.around(cx.node.audit);
        if let Some(own) = &self.own {
            let request = Request::Get { path: self.path(&own.name), watch: false };
            self.ask(cx, Purpose::Audit { round: self.round }, request);
        }
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.round += 1;
        match &self.own {
            Some(own) => {
                let (name, path) = (own.name.clone(), self.path(&own.name));
                self.phase = Phase::Leaving;
                self.ask(cx, Purpose::Leave { name }, Request::Delete { path, version: None });
            }
            None => self.unsure(cx.now),
        }
    }

    /// Stops leading. The znode stays until [`Self::demoted`], so that nobody takes over before the guest has been told.
    pub fn demote(&mut self, cx: &mut Cx<'_>, leave: bool) {
        if let Phase::Leading { guard: Some(guard), .. } = self.phase {
            cx.forget(guard);
        }
        self.round += 1;
        self.phase = Phase::Demoting { leave };
    }

    /// The guest has been told, or stopped. `others`: whether there are members, of whom one may lead.
    pub fn demoted(&mut self, cx: &mut Cx<'_>, others: bool) {
        match self.phase {
            Phase::Demoting { leave: true } => {
                if others {
                    self.yields_until = cx.now + YIELD;
                }
                self.leave(cx);
            }
            Phase::Demoting { leave: false } => self.unsure(cx.now),
            _ => {}
        }
    }

    /// Denied, and no guest leads any more: our znode must not keep the others waiting for as long as the session lives.
    pub fn withdraw(&mut self, cx: &mut Cx<'_>) {
        if self.phase == Phase::Denied
            && cx.link.connected()
            && let Some(own) = self.own.take()
        {
            self.sweep(cx, &own.name);
        }
    }

    /// The group's persistent znodes are gone: the next survey makes them again.
    pub fn parents_gone(&mut self, cx: &mut Cx<'_>) {
        self.parents = false;
        if let Phase::Following { watch, .. } = self.phase {
            cx.forget(watch);
        }
        if matches!(self.phase, Phase::Out { .. } | Phase::Following { .. }) {
            self.again_later(cx, "the group's znodes are gone");
        }
    }

    /// A further reason to leave came up while the guest is being told.
    pub fn leave_after_demotion(&mut self) {
        if let Phase::Demoting { leave } = &mut self.phase {
            *leave = true;
        }
    }

    fn join(&mut self, cx: &mut Cx<'_>) {
        let data = self.format.data(&cx.node.id, &cx.node.address);
        let path = self.path(&self.format.prefix(&cx.node.id, &cx.node.guid));
        let request = Request::Create { path, data: data.into_bytes().into(), mode: CreateMode::EphemeralSequential };
        self.phase = Phase::Joining;
        self.ask(cx, Purpose::Join { round: self.round }, request);
        // Made by the time that the list is: one connection's requests are done in order.
        self.ask_place(cx);
    }

    fn list(&mut self, cx: &mut Cx<'_>) {
        self.phase = Phase::Placing;
        self.ask_place(cx);
    }

    fn ask_place(&self, cx: &mut Cx<'_>) {
        let list = Request::List { path: self.paths.election.clone(), watch: false };
        self.ask(cx, Purpose::Place { round: self.round }, list);
    }

    /// Finds our place among `all`. Whatever its age, a list that has our znode as the lowest stays true: lower ones
    /// can only leave. That ours still exists is what the claim proves.
    fn place(&mut self, cx: &mut Cx<'_>, all: &[Candidate]) {
        let Some(own) = self.own.clone().filter(|own| all.iter().any(|other| other.name == own.name)) else {
            self.own = None;
            return self.again_later(cx, "our znode is gone");
        };
        if own.is_of_the_end() && self.safeguards.hold(Safeguard::SuffixOrder) {
            return self.rank(cx, all);
        }
        let ahead: Vec<&Candidate> = all.iter().filter(|other| self.before(other, &own)).collect();
        let few = if ahead.len() <= FEW { ahead.iter().map(|one| one.name.clone()).collect() } else { Vec::new() };
        let nearest =
            ahead.into_iter().reduce(|nearest, other| if self.before(nearest, other) { other } else { nearest });
        self.behind(cx, nearest.map(|nearest| (nearest.name.clone(), None)), few);
    }

    fn behind(&mut self, cx: &mut Cx<'_>, predecessor: Option<(String, Option<i64>)>, ahead: Vec<String>) {
        let Some((name, made)) = predecessor else {
            self.phase = Phase::Lowest { at: cx.now, gone: Vec::new() };
            return;
        };
        self.phase = Phase::Behind;
        self.follows = true;
        let request = Request::Get { path: self.path(&name), watch: true };
        self.ask(cx, Purpose::Predecessor { round: self.round, name, made, ahead }, request);
    }

    fn sort(&self, names: &[String]) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = names
            .iter()
            .filter(|name| !self.planted.contains(*name))
            .filter_map(|name| self.format.parse(name))
            .collect();
        all.sort_by_key(|candidate| candidate.seq);
        all
    }

    /// A watch of the election has fired: look again, whatever it says. If few were before us, trying to claim is the quickest look:
    /// lower ones can only leave, and the claim fails if one of those has not.
    pub fn fired(&mut self, cx: &mut Cx<'_>, tag: Tag) {
        match &mut self.phase {
            Phase::Following { watch, ahead } if *watch == tag && !ahead.is_empty() => {
                self.phase = Phase::Lowest { at: cx.now, gone: std::mem::take(ahead) };
            }
            Phase::Following { watch, .. } if *watch == tag => self.list(cx),
            Phase::Leading { guard, .. } if *guard == Some(tag) => {
                *guard = None;
                self.guard(cx);
            }
            _ => {}
        }
    }

    /// Takes an answer.
    pub fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: Purpose,
        tag: Tag,
        result: Result<Reply, RequestError>,
    ) -> Outcome {
        let nothing_there = match &result {
            Err(RequestError::NoNode) => {
                matches!(purpose, Purpose::Survey { .. } | Purpose::Place { .. } | Purpose::Join { .. })
            }
            Err(RequestError::Multi { index: 1, error }) => **error == RequestError::NoNode,
            _ => false,
        };
        if result == Err(RequestError::NoAuth) || nothing_there && self.parents_denied {
            // Told with the first of several answers. What else comes is dealt with: a znode that was made all the same must go.
            return if self.phase == Phase::Denied { Outcome::Nothing } else { self.deny() };
        }
        match purpose {
            Purpose::Sync | Purpose::Sweep => {}
            Purpose::Leave { name } => self.left(cx, &name, &result),
            Purpose::Join { round } => self.joined(cx, round, result),
            Purpose::Witness => {
                if let Ok(Reply::Data { data, stat }) = result {
                    // Empty until somebody has led; then any epoch is a later one.
                    let epoch = if data.is_empty() { Epoch(0) } else { Epoch(stat.mzxid.unsigned_abs()) };
                    return Outcome::Witnessed(epoch);
                }
            }
            Purpose::Survey { round } if round == self.round => match result {
                Ok(Reply::Children { names, .. }) => self.surveyed(cx, &names),
                result => self.unclear(cx, &result),
            },
            Purpose::Inspect { round, name } if round == self.round => self.inspected(cx, &name, result),
            Purpose::Place { round } if round == self.round => match result {
                Ok(Reply::Children { names, .. }) => self.place(cx, &self.sort(&names)),
                result => self.unclear(cx, &result),
            },
            Purpose::Rank { round, name } if round == self.round => self.ranked(cx, name, result),
            Purpose::Predecessor { round, name, made, ahead } if round == self.round => match result {
                Ok(Reply::Data { stat, .. }) if stat.owner.is_none() => {
                    cx.forget(tag);
                    self.planted(cx, name);
                }
                // Gone, and another of the same name has come: it may be behind us.
                Ok(Reply::Data { stat, .. }) if made.is_some_and(|made| made != stat.czxid) => {
                    cx.forget(tag);
                    self.list(cx);
                }
                Ok(_) => self.follow(cx, tag, ahead),
                Err(RequestError::NoNode) => self.list(cx),
                result => self.unclear(cx, &result),
            },
            Purpose::Predecessor { .. } => cx.forget(tag),
            Purpose::Claim { round } if round == self.round => return self.claimed(cx, result),
            Purpose::Guard { round } if round == self.round => return self.guarded(cx, tag, &result),
            Purpose::Guard { .. } => cx.forget(tag),
            Purpose::Audit { round } if round == self.round => match result {
                Ok(Reply::Data { stat, .. }) if self.is_ours(cx, stat.owner) => {
                    if matches!(self.phase, Phase::Leading { guard: None, .. }) {
                        // The guard was refused.
                        self.guard(cx);
                    }
                }
                Ok(_) | Err(RequestError::NoNode) if self.leading().is_some() => {
                    self.own = None;
                    return Outcome::Superseded;
                }
                Ok(_) | Err(RequestError::NoNode) => {
                    if let Phase::Following { watch, .. } = self.phase {
                        cx.forget(watch);
                    }
                    self.own = None;
                    self.unsure(cx.now);
                }
                Err(_) => {}
            },
            // The answer to a survey that was given up.
            Purpose::Survey { .. }
            | Purpose::Inspect { .. }
            | Purpose::Place { .. }
            | Purpose::Rank { .. }
            | Purpose::Claim { .. }
            | Purpose::Audit { .. } => {}
        }
        Outcome::Nothing
    }

    fn deny(&mut self) -> Outcome {
        self.phase = Phase::Denied;
        // What is still under way must not bring the election back to life.
        self.round += 1;
        Outcome::Denied(format!(
            "the ACL of {} or of a znode below it denies this node's identity what it needs (NoAuth): correct the \
             credentials under [coordination] auth, or the ACL",
            self.paths.group
        ))
    }

    /// No clear answer. If the connection broke, the next one begins with a survey; if the server refused, one is due later.
    fn unclear(&mut self, cx: &mut Cx<'_>, result: &Result<Reply, RequestError>) {
        match result {
            Err(RequestError::NoNode) => {
                self.parents = false;
                self.again_later(cx, "the group's znodes are gone");
            }
            Err(error) => self.again_later(cx, &error.to_string()),
            Ok(_) => self.again_later(cx, "an answer of the wrong kind"),
        }
    }

    fn joined(&mut self, cx: &mut Cx<'_>, round: u64, result: Result<Reply, RequestError>) {
        let created = match result {
            Ok(Reply::Created { path }) => path,
            result if round == self.round => return self.unclear(cx, &result),
            _ => return,
        };
        let Some(candidate) = created.rsplit('/').next().and_then(|name| self.format.parse(name)) else {
            return self.again_later(cx, "the server named our znode in a way that was not expected");
        };
        if round != self.round {
            // Nobody waits for it any more. The survey that came after has adopted it, or it goes.
            if self.own.as_ref() != Some(&candidate) {
                self.sweep(cx, &candidate.name);
            }
            return;
        }
        if !self.warned_counter
            && let Some(text) = counter_warning(&self.paths.election, candidate.seq)
        {
            self.warned_counter = true;
            cx.notice(Notice::warning(&self.group, "counter-high", text));
        }
        self.own = Some(candidate);
        self.phase = Phase::Placing;
    }

    fn follow(&mut self, cx: &mut Cx<'_>, watch: Tag, ahead: Vec<String>) {
        self.attempts = 0;
        self.audit_at = cx.now + cx.rng.around(cx.node.audit);
        self.phase = Phase::Following { watch, ahead };
    }

    /// Whether somebody was found to stand before us since this was asked last.
    pub fn follows(&mut self) -> bool {
        std::mem::take(&mut self.follows)
    }

    fn left(&mut self, cx: &mut Cx<'_>, name: &str, result: &Result<Reply, RequestError>) {
        if matches!(result, Ok(_) | Err(RequestError::NoNode)) {
            if self.own.as_ref().is_some_and(|own| own.name == name) {
                self.own = None;
            }
            if self.phase == Phase::Leaving {
                self.phase = Phase::Out { clean: true };
            }
        } else if self.phase == Phase::Leaving {
            self.again_later(cx, "our znode could not be deleted");
        }
    }
}

/// The leader that the epoch znode names.
pub(crate) fn leader_of(data: &[u8], mzxid: i64) -> Option<Leader> {
    #[derive(serde::Deserialize)]
    struct Claim {
        id: NodeId,
        address: String,
    }
    let claim: Claim = serde_json::from_slice(data).ok()?;
    Some(Leader { id: claim.id, epoch: Epoch(mzxid.unsigned_abs()), address: claim.address })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_order_is_that_of_the_suffix_alone() {
        let names = [format!("b-{GUID}-n_0000000009"), "x".to_owned(), format!("a-{GUID}-n_0000000010")];
        let group = GroupName::new("g").unwrap();
        let election = Election::new(group.clone(), Paths::new("", &group, None), ElectionFormat::Bellwether);
        let order: Vec<i64> = election.sort(&names).iter().map(|candidate| candidate.seq).collect();
        assert_eq!(order, [9, 10]);
    }
}
