//! Releases that operators deploy to whole groups, some of them bad, and what the coordinator's documents have allowed so far.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether_core::event::{Ask, Asker, Event};
use bellwether_core::id::{Epoch, NodeId, ReleaseId};
use bellwether_core::release::{
    Artifact, Document, Numbered, OnFailure, Outcome, Phase, Policy, ReleaseError, ReleaseOp, ReleaseReply, Report,
    Rollout, Wanted,
};
use bellwether_core::request::{Op, Request};

use crate::node::{ROOT, group_name};
use crate::options::Profile;
use crate::world::World;

/// What is wrong with a release, wherever it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It cannot be prepared.
    Load,
    /// It refuses the state that it is given.
    Restore,
    /// It traps when it is to give its own.
    Snapshot,
    /// It traps when it ticks, where every node ticks and releases are on probation; elsewhere nothing is wrong with it.
    Ticks,
}

impl Flaw {
    /// What is wrong with the release of this content.
    #[must_use]
    pub fn of(content: u64) -> Option<Self> {
        match content {
            10 => Some(Self::Load),
            11 => Some(Self::Restore),
            12 => Some(Self::Snapshot),
            13 => Some(Self::Ticks),
            _ => None,
        }
    }
}

/// The contents that are deployed.
const CONTENTS: std::ops::Range<u64> = 8..18;

/// The content of a release that was deployed, which is all that tells it from others.
#[must_use]
pub fn content(release: &Numbered) -> u64 {
    release.wanted.component.digest.parse().unwrap_or(0)
}

/// The content of a release that runs.
#[must_use]
pub fn content_of(release: &ReleaseId) -> u64 {
    u64::from_str_radix(&release.0, 16).unwrap_or(0)
}

fn wanted(content: u64) -> Wanted {
    let component = Artifact { reference: "sim:".into(), digest: content.to_string() };
    Wanted { component, worker: None, config: None }
}

impl Profile {
    /// Whether a release that ticks badly is found out while it is on probation.
    #[must_use]
    pub fn proves_by_ticks(&self) -> bool {
        self.ticks && !self.probation.lasts.is_zero()
    }
}

/// A step that a document took.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The group.
    pub group: usize,
    /// The step of the simulation.
    pub step: u64,
    /// The nodes that were admitted by it.
    pub wave: BTreeSet<NodeId>,
    /// The most that there may be.
    pub most: u32,
    /// Nodes that were admitted before, exist, and never ran the release well.
    pub unsettled: BTreeSet<NodeId>,
}

/// What the documents have allowed, and what was made of it.
#[derive(Debug, Clone, Default)]
pub struct Rollouts {
    /// By group and number, the nodes that it was ever for.
    admitted: BTreeMap<(usize, u64), BTreeSet<NodeId>>,
    /// By group and number, the nodes that ever began to prepare it.
    prepared: BTreeMap<(usize, u64), BTreeSet<usize>>,
    /// The numbers that were ever for all of a group.
    current: BTreeSet<(usize, u64)>,
    /// When each node was admitted to what comes now.
    since: BTreeMap<(usize, u64, NodeId), u64>,
    /// The nodes that ran a release well.
    settled: BTreeSet<(usize, u64, NodeId)>,
    /// When a node's report was made last: until then it was none that a leader had to wait for.
    came: BTreeMap<(usize, NodeId), u64>,
    /// When an operator last took a group's znodes away.
    tampered: BTreeMap<usize, u64>,
    /// The documents as they were last.
    documents: BTreeMap<usize, Document>,
    /// The last wave that was admitted.
    pub admission: Option<Admission>,
    /// A node that prepared what was not for it.
    pub stray: Option<String>,
    /// A leader's step that was accepted: its term, and the one that the coordinator held.
    pub step: Option<(Epoch, Epoch)>,
    /// Rollouts that came to their end.
    pub done: u64,
    /// Rollouts that failed.
    pub failed: u64,
    /// Rollouts that operators aborted.
    pub aborted: u64,
    /// Questions that were answered well.
    pub answered: u64,
}

impl Rollouts {
    /// The nodes that ever began to prepare a release.
    #[must_use]
    pub fn prepared(&self, group: usize, number: u64) -> BTreeSet<usize> {
        self.prepared.get(&(group, number)).cloned().unwrap_or_default()
    }

    /// An operator has taken a group's znodes away.
    pub(crate) fn tampered(&mut self, group: usize, step: u64) {
        self.tampered.insert(group, step);
        self.documents.remove(&group);
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.aborted += other.aborted;
        self.answered += other.answered;
    }
}

fn path(group: usize, below: &str) -> String {
    format!("{ROOT}/{}/{below}", group_name(group))
}

impl World {
    /// What is wrong with a release. One that nodes happened to take without a state may come to be what the whole group runs, and
    /// no group could come to rest by it then, nor ever run another: then nothing is wrong with it any more.
    pub(crate) fn flaw(&self, group: usize, content: u64) -> Option<Flaw> {
        let current = self.document(group).and_then(|document| document.current);
        let taken = current.is_some_and(|current| self::content(&current) == content);
        Flaw::of(content).filter(|flaw| !taken || !matches!(flaw, Flaw::Restore | Flaw::Snapshot))
    }

    /// What a group's znode holds.
    #[must_use]
    pub fn document(&self, group: usize) -> Option<Document> {
        Document::parse(&self.ensemble.server.data(&path(group, "release"))?.0).ok()
    }

    /// What a node of a group reports.
    #[must_use]
    pub fn reported(&self, group: usize, node: &NodeId) -> Option<Report> {
        let (data, _) = self.ensemble.server.data(&path(group, &format!("running/{node}")))?;
        Report::parse(&data)
    }

    /// How much longer than without rollouts a cluster may take to come to rest.
    pub(crate) fn rollouts_take(&self) -> Duration {
        if self.profile.rollouts { Duration::from_secs(120 + 60 * self.nodes.len() as u64) } else { Duration::ZERO }
    }

    /// An operator does something about the group's releases, through any node.
    pub(crate) fn steer_rollouts(&mut self, index: usize, group: usize) {
        let policy = Policy {
            canaries: self.rng.u32(0..3),
            max_unavailable: self.rng.u32(1..3),
            settle: Duration::from_millis(self.rng.u64(0..2) * 1500),
            patience: Duration::from_secs(self.rng.u64(15..40)),
            on_failure: if self.rng.u32(0..4) == 0 { OnFailure::Halt } else { OnFailure::Back },
        };
        let (by, at) = ("sim".to_owned(), self.now.since_boot().as_secs());
        let op = match self.rng.u32(0..20) {
            0..10 => {
                let wanted = Box::new(wanted(self.rng.u64(CONTENTS)));
                ReleaseOp::Deploy { wanted, policy, by, at }
            }
            10..12 => ReleaseOp::Rollback { to: None, policy, by, at },
            12..14 => ReleaseOp::Pause,
            14..16 => ReleaseOp::Resume,
            16..18 => ReleaseOp::Abort { by },
            18 => ReleaseOp::Nodes,
            _ => return self.ask_swap(index, group),
        };
        self.say(format_args!("operator: asks node-{index} in g{group} for {op:?}"));
        self.ask_release(index, group, op);
    }

    /// An operator asks a node for something about its group's releases.
    pub fn ask_release(&mut self, index: usize, group: usize, op: ReleaseOp) {
        let request = self.nodes[index].request();
        self.feed(
            index,
            Event::Ask { group: group_name(group), request, asker: Asker::Operator, ask: Ask::Release(op) },
        );
    }

    /// An operator deploys this content.
    pub fn deploy(&mut self, index: usize, group: usize, content: u64, policy: Policy) {
        let op = ReleaseOp::Deploy { wanted: Box::new(wanted(content)), policy, by: "sim".into(), at: 0 };
        self.ask_release(index, group, op);
    }

    pub(crate) fn released(&mut self, result: &Result<Box<ReleaseReply>, ReleaseError>) {
        self.say(format_args!("operator: is told {:?}", result.as_ref().map(|_| "what was asked for")));
        self.history.rollouts.answered += u64::from(result.is_ok());
    }

    /// When all is mended, operators do not leave rollouts half way.
    pub(crate) fn tidy_rollouts(&mut self) {
        for group in 0..self.profile.groups {
            let phase = self.document(group).and_then(|document| document.rollout).map(|rollout| rollout.phase);
            let op = match phase {
                Some(Phase::Paused) => ReleaseOp::Resume,
                Some(Phase::Halted { .. }) => ReleaseOp::Abort { by: "sim".into() },
                _ => continue,
            };
            let index = self.rng.usize(0..self.nodes.len());
            self.ask_release(index, group, op);
        }
    }

    /// The term in which a leader sends a step of a rollout.
    pub(crate) fn conducts(&self, index: usize, request: &Request) -> Option<Epoch> {
        let Request::Multi(operations) = request else { return None };
        (0..self.profile.groups).find_map(|group| {
            let release = path(group, "release");
            let sets = |op: &Op| matches!(op, Op::Set { path, .. } if *path == release);
            let checks = |op: &&Op| matches!(op, Op::Check { .. });
            (operations.iter().any(sets) && operations.iter().filter(checks).count() == 2)
                .then(|| self.nodes[index].groups[group].granted)
                .flatten()
        })
    }

    /// A node begins to prepare what was deployed.
    pub(crate) fn prepares(&mut self, index: usize, group: usize, release: &Numbered) {
        let rollouts = &mut self.history.rollouts;
        let (number, node) = (release.number, format!("node-{index}"));
        rollouts.prepared.entry((group, number)).or_default().insert(index);
        let admitted = rollouts.admitted.get(&(group, number));
        let ever = admitted.is_some_and(|nodes| nodes.iter().any(|admitted| admitted.as_str() == node));
        if !ever && !rollouts.current.contains(&(group, number)) {
            rollouts.stray = Some(format!("{node} prepares {number}, which is for {admitted:?} of g{group}"));
        }
    }

    /// A write was accepted: what does it say of the groups' releases?
    pub(crate) fn wrote(&mut self, index: usize, request: &Request, term: Option<Epoch>) {
        let (step, node) = (self.step, NodeId::new(format!("node-{index}")).ok());
        for group in 0..self.profile.groups {
            let release = path(group, "release");
            let writes = match request {
                Request::Set { path, .. } => *path == release,
                Request::Multi(operations) => {
                    operations.iter().any(|op| matches!(op, Op::Set { path, .. } if *path == release))
                }
                _ => false,
            };
            if writes {
                self.document_written(group, term);
            }
            let (Some(node), Request::Create { path: written, .. } | Request::Set { path: written, .. }) =
                (&node, request)
            else {
                continue;
            };
            if *written != path(group, &format!("running/{node}")) {
                continue;
            }
            let report = self.reported(group, node);
            let rollouts = &mut self.history.rollouts;
            let key = (group, node.clone());
            if matches!(request, Request::Create { .. }) {
                rollouts.came.insert(key, step);
            }
            if let Some(Report { running: Some(number), .. }) = report.filter(|report| report.settled(report.running)) {
                rollouts.settled.insert((group, number, node.clone()));
            }
        }
    }

    fn document_written(&mut self, group: usize, term: Option<Epoch>) {
        let Some(document) = self.document(group) else { return };
        let held = self.ensemble.server.data(&path(group, "epoch")).map(|(_, stat)| Epoch(stat.mzxid.unsigned_abs()));
        let reports: BTreeSet<String> =
            self.ensemble.server.children(&path(group, "running")).unwrap_or_default().into_iter().collect();
        let step = self.step;
        let rollouts = &mut self.history.rollouts;
        if let (Some(term), Some(held)) = (term, held) {
            rollouts.step = Some((term, held));
        }
        if let Some(current) = &document.current {
            rollouts.current.insert((group, current.number));
        }
        let tampered = rollouts.tampered.get(&group).copied().unwrap_or_default();
        let before = rollouts.documents.insert(group, document.clone());
        // What was lost is put back as somebody knew it, with all that had been admitted then.
        let restored = before.is_none() && tampered > 0;
        let before = before.unwrap_or_default();
        if document.history.last() != before.history.last() {
            match document.history.last().map(|past| &past.outcome) {
                Some(Outcome::Done) => rollouts.done += 1,
                Some(Outcome::Failed { .. }) => rollouts.failed += 1,
                Some(Outcome::Aborted { .. }) => rollouts.aborted += 1,
                None => {}
            }
        }
        let Some(Rollout { to, policy, admitted, settled, .. }) = document.rollout else { return };
        let number = to.number;
        let known = before.rollout.filter(|rollout| rollout.to.number == number);
        let before = known.map(|rollout| rollout.admitted).unwrap_or_default();
        rollouts.admitted.entry((group, number)).or_default().extend(admitted.iter().cloned());
        let wave: BTreeSet<NodeId> = admitted.difference(&before).cloned().collect();
        if wave.is_empty() {
            return;
        }
        if restored {
            rollouts.since.extend(wave.iter().map(|node| ((group, number, node.clone()), step)));
            return;
        }
        let unsettled = before.iter().filter(|node| {
            let since = rollouts.since.get(&(group, number, (*node).clone())).copied().unwrap_or_default();
            let came = rollouts.came.get(&(group, (*node).clone())).copied().unwrap_or_default();
            reports.contains(node.as_str())
                && came.max(tampered) <= since
                && !rollouts.settled.contains(&(group, number, (*node).clone()))
        });
        let unsettled = unsettled.cloned().collect();
        rollouts.since.extend(wave.iter().map(|node| ((group, number, node.clone()), step)));
        let most = policy.wave(settled.is_empty());
        rollouts.admission = Some(Admission { group, step, wave, most, unsettled });
    }
}
