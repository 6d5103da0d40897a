//! The leader's part: who is admitted next, when a release has failed, and when all is done.
//!
//! A leader goes on from the document and the reports alone, so that whoever leads next does. It looks at the reports about once a
//! second while a rollout is under way, at those alone that it waits for; and every step is a fenced write of the document in
//! the version from which it was concluded.

use std::collections::{BTreeMap, BTreeSet};

use super::reporter::POLL;
use super::{Around, Purpose, Rollouts};
use crate::config::Safeguard;
use crate::id::NodeId;
use crate::link::Cx;
use crate::release::{Document, Phase, Report, Rollout, next_wave};
use crate::request::{Op, Reply, Request, RequestError};
use crate::time::Moment;

/// What a leader has seen of the rollout that is under way.
#[derive(Debug, Clone)]
pub(super) struct Conductor {
    /// Of which release, and in which direction; of another one nothing is known.
    of: (u64, bool),
    poll_at: Moment,
    listing: bool,
    reading: BTreeSet<NodeId>,
    /// The nodes that report, and what they do; none until all were asked.
    seen: Option<BTreeSet<NodeId>>,
    reports: BTreeMap<NodeId, Report>,
    /// Since when each node is seen to be well.
    well: BTreeMap<NodeId, Moment>,
    /// Since when each node is waited for.
    awaited: BTreeMap<NodeId, Moment>,
}

impl Conductor {
    fn new(of: (u64, bool), now: Moment) -> Self {
        Self {
            of,
            poll_at: now,
            listing: false,
            reading: BTreeSet::new(),
            seen: None,
            reports: BTreeMap::new(),
            well: BTreeMap::new(),
            awaited: BTreeMap::new(),
        }
    }

    fn asking(&self) -> bool {
        self.listing || !self.reading.is_empty()
    }

    pub fn deadline(&self) -> Option<Moment> {
        (!self.asking()).then_some(self.poll_at)
    }

    /// Notes how these nodes are, and says which of them are not well.
    fn look(&mut self, now: Moment, nodes: &BTreeSet<NodeId>, well: impl Fn(&Report) -> bool) -> BTreeSet<NodeId> {
        let mut rest = BTreeSet::new();
        for node in nodes {
            if self.reports.get(node).is_some_and(&well) {
                self.well.entry(node.clone()).or_insert(now);
                self.awaited.remove(node);
            } else {
                self.well.remove(node);
                self.awaited.entry(node.clone()).or_insert(now);
                rest.insert(node.clone());
            }
        }
        self.well.retain(|node, _| nodes.contains(node));
        self.awaited.retain(|node, _| nodes.contains(node));
        rest
    }

    /// Whether a node was waited for as long as patience allows.
    fn overdue(&self, node: &NodeId, now: Moment, rollout: &Rollout) -> bool {
        self.awaited.get(node).is_some_and(|since| *since + rollout.policy.patience <= now)
    }
}

/// The nodes whose reports matter now, of those that exist.
fn awaited(rollout: &Rollout, existing: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    if matches!(rollout.phase, Phase::Back { .. }) {
        return existing.clone();
    }
    existing
        .iter()
        .filter(|node| rollout.admitted.contains(*node) && !rollout.settled.contains(*node))
        .cloned()
        .collect()
}

impl Rollouts {
    /// Does what is due while this node leads.
    pub(super) fn conduct(&mut self, cx: &mut Cx<'_>, around: &Around<'_>) {
        let Some(document) = self.document().cloned() else { return };
        let rollout = document.rollout.as_ref().filter(|rollout| !matches!(rollout.phase, Phase::Halted { .. }));
        let (Some(fence), Some(rollout)) = (&around.fence, rollout) else {
            self.conductor = None;
            return;
        };
        let of = (rollout.to.number, matches!(rollout.phase, Phase::Back { .. }));
        if self.conductor.as_ref().is_none_or(|conductor| conductor.of != of) {
            self.looks += 1;
            self.conductor = Some(Conductor::new(of, cx.now));
        }
        let Some(version) = self.settled_version() else { return };
        let Some(conductor) = self.conductor.as_mut().filter(|conductor| !conductor.asking()) else { return };
        if conductor.poll_at <= cx.now {
            conductor.poll_at = cx.now + POLL;
            conductor.listing = true;
            conductor.seen = None;
            self.looks += 1;
            let list = Request::List { path: self.running.clone(), watch: false };
            if self.ask(cx, Purpose::List { look: self.looks }, list).is_none()
                && let Some(conductor) = &mut self.conductor
            {
                conductor.listing = false;
            }
            return;
        }
        // Without the members a node that does not report (yet) would not be waited for.
        let (Some(seen), Some(members)) = (conductor.seen.take(), around.members) else { return };
        let me = self.me.clone();
        let existing: BTreeSet<NodeId> =
            seen.into_iter().chain(members.iter().map(|member| member.id.clone())).chain([me]).collect();
        let Some(next) = self.next(cx.now, &document, rollout, &existing) else { return };
        let set = Op::Set { path: self.path.clone(), data: next.encode().into(), version: Some(version) };
        let [own, epoch] = fence.clone();
        let request = Request::Multi(vec![own, epoch, set]);
        self.writing = self.ask(cx, Purpose::Conduct { round: self.round, look: self.looks }, request).is_some();
    }

    /// The document after the next step; none while there is something to wait for.
    fn next(
        &mut self,
        now: Moment,
        document: &Document,
        rollout: &Rollout,
        existing: &BTreeSet<NodeId>,
    ) -> Option<Document> {
        let conductor = self.conductor.as_mut()?;
        let nodes = awaited(rollout, existing);
        if matches!(rollout.phase, Phase::Back { .. }) {
            let current = document.current.as_ref().map(|current| current.number);
            let left = conductor.look(now, &nodes, |report| report.settled(current));
            let given_up = left.iter().all(|node| conductor.overdue(node, now, rollout));
            return given_up.then(|| document.clone().end(&left));
        }
        let to = rollout.to.number;
        let failed = |node: &NodeId| conductor.reports.get(node)?.failed(to).map(ToOwned::to_owned);
        if let Some((node, how)) = nodes.iter().find_map(|node| Some((node.clone(), failed(node)?))) {
            return Some(document.clone().fail(node, how));
        }
        let left = conductor.look(now, &nodes, |report| report.settled(Some(to)));
        if let Some(late) = left.iter().find(|node| conductor.overdue(node, now, rollout)) {
            let state = match conductor.reports.get(late) {
                Some(report) => format!("it runs {} and is {:?}", number(report.running), report.state).to_lowercase(),
                None => "it does not report".to_owned(),
            };
            let how = format!("did not settle within {:?}: {state}", rollout.policy.patience);
            return Some(document.clone().fail(late.clone(), how));
        }
        let waits = !left.is_empty() && self.safeguards.hold(Safeguard::Waves);
        let unsettled = conductor.well.values().any(|since| now < *since + rollout.policy.settle);
        if waits || unsettled || rollout.phase != Phase::Running {
            return None;
        }
        let remaining: BTreeSet<NodeId> = existing.difference(&rollout.admitted).cloned().collect();
        if remaining.is_empty() {
            return left.is_empty().then(|| document.clone().end(&BTreeSet::new()));
        }
        let settled: BTreeSet<NodeId> = conductor.well.keys().cloned().collect();
        // As long as nobody ran it well, whoever is next is a canary.
        let first = rollout.settled.is_empty() && settled.is_empty();
        let wave = next_wave(&remaining, Some(&self.me), rollout.policy.wave(first));
        Some(document.clone().admit(wave, settled))
    }

    /// Who reports: the reports that matter are read.
    pub(super) fn listed(&mut self, cx: &mut Cx<'_>, result: Result<Reply, RequestError>) {
        let document = self.document().cloned();
        let Some(conductor) = &mut self.conductor else { return };
        conductor.listing = false;
        let names = match result {
            Ok(Reply::Children { names, .. }) => names,
            // Nobody ever reported.
            Err(RequestError::NoNode) => Vec::new(),
            _ => return,
        };
        let Some(document) = document else { return };
        let Some(rollout) = &document.rollout else { return };
        let seen: BTreeSet<NodeId> = names.iter().filter_map(|name| NodeId::new(name).ok()).collect();
        conductor.reports.retain(|node, _| seen.contains(node));
        let current = document.current.as_ref().map(|current| current.number);
        let goes_back = matches!(rollout.phase, Phase::Back { .. });
        let known =
            |node: &NodeId| goes_back && conductor.reports.get(node).is_some_and(|report| report.settled(current));
        let asked: BTreeSet<NodeId> = awaited(rollout, &seen).into_iter().filter(|node| !known(node)).collect();
        conductor.reading = asked.clone();
        conductor.seen = Some(seen);
        for node in asked {
            let request = Request::Get { path: self.report_path(&node), watch: false };
            self.ask(cx, Purpose::Peer { look: self.looks, node }, request);
        }
    }

    pub(super) fn peer_read(&mut self, node: NodeId, result: Result<Reply, RequestError>) {
        let Some(conductor) = &mut self.conductor else { return };
        conductor.reading.remove(&node);
        let report = match &result {
            Ok(Reply::Data { data, .. }) => Report::parse(data),
            Err(RequestError::NoNode) => {
                // It went in between.
                if let Some(seen) = &mut conductor.seen {
                    seen.remove(&node);
                }
                None
            }
            _ => {
                // Not known: nothing is concluded from this look.
                conductor.seen = None;
                return;
            }
        };
        match report {
            Some(report) => conductor.reports.insert(node, report),
            None => conductor.reports.remove(&node),
        };
    }
}

fn number(running: Option<u64>) -> String {
    running.map_or_else(|| "its manifest's release".to_owned(), |number| format!("release {number}"))
}
