//! What this node says of itself, in a znode that goes with its session.

use std::time::Duration;

use super::{Purpose, RETRY, RETRY_MAX, Rollouts};
use crate::link::Cx;
use crate::release::Report;
use crate::request::{CreateMode, Reply, Request, RequestError};
use crate::time::Moment;

/// Our znode, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Own {
    Absent {
        retry_at: Moment,
    },
    /// To be looked at.
    Unknown {
        at: Moment,
    },
    Asking,
    /// It holds this report, or something that is none.
    Holds(Option<Report>),
}

#[derive(Debug, Clone)]
pub(super) struct Reporter {
    own: Own,
    /// What is being written; none while it is being taken away.
    sent: Option<Report>,
    attempts: u32,
    audit_at: Moment,
}

impl Default for Reporter {
    fn default() -> Self {
        Self { own: Own::Absent { retry_at: Moment::default() }, sent: None, attempts: 0, audit_at: Moment::default() }
    }
}

/// What is to be done about our znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Make,
    Look,
    Change,
    Remove,
}

impl Reporter {
    /// Connected (again): what was under way is unsure, and an operator may have taken away what there was.
    pub fn connected(&mut self) {
        if matches!(self.own, Own::Asking | Own::Holds(_)) {
            self.own = Own::Unknown { at: Moment::default() };
        }
    }

    /// From now on it matters that it is there.
    pub fn unsure(&mut self) {
        if matches!(self.own, Own::Holds(_)) {
            self.own = Own::Unknown { at: Moment::default() };
        }
    }

    fn due(&self, wanted: Option<&Report>, under_way: bool) -> Option<(Due, Moment)> {
        match (&self.own, wanted) {
            (Own::Absent { retry_at }, Some(_)) => Some((Due::Make, *retry_at)),
            (Own::Unknown { at }, _) => Some((Due::Look, *at)),
            (Own::Holds(_), None) => Some((Due::Remove, Moment::default())),
            (Own::Holds(held), Some(_)) if held.as_ref() != wanted => Some((Due::Change, Moment::default())),
            (Own::Holds(_), Some(_)) if under_way => Some((Due::Look, self.audit_at)),
            _ => None,
        }
    }

    pub fn deadline(&self, wanted: Option<&Report>, under_way: bool) -> Option<Moment> {
        self.due(wanted, under_way).map(|(_, at)| at)
    }

    fn later(&mut self, cx: &mut Cx<'_>) -> Moment {
        self.attempts += 1;
        cx.now + cx.rng.backoff(RETRY, RETRY_MAX, self.attempts)
    }
}

impl Rollouts {
    pub(super) fn drive_report(&mut self, cx: &mut Cx<'_>, wanted: Option<&Report>) {
        let Some((due, _)) = self.reporter.due(wanted, self.under_way()).filter(|(_, at)| *at <= cx.now) else {
            return;
        };
        let path = self.report_path(&self.me);
        let data = wanted.and_then(|report| serde_json::to_vec(report).ok()).unwrap_or_default().into();
        let (purpose, request) = match due {
            Due::Look => (Purpose::Look { round: self.round }, Request::Get { path, watch: false }),
            Due::Make => {
                let request = Request::Create { path, data, mode: CreateMode::Ephemeral };
                (Purpose::Report { round: self.round }, request)
            }
            Due::Change => (Purpose::Report { round: self.round }, Request::Set { path, data, version: None }),
            Due::Remove => (Purpose::Report { round: self.round }, Request::Delete { path, version: None }),
        };
        self.reporter.sent = wanted.cloned();
        if self.ask(cx, purpose, request).is_some() {
            self.reporter.own = Own::Asking;
        }
    }

    pub(super) fn looked(&mut self, cx: &mut Cx<'_>, result: Result<Reply, RequestError>) {
        self.reporter.audit_at = cx.now + cx.rng.around(cx.node.audit);
        self.reporter.own = match result {
            Ok(Reply::Data { data, stat }) if Self::is_ours(stat.owner, cx) => Own::Holds(Report::parse(&data)),
            Ok(Reply::Data { .. }) => {
                // Of an earlier session of ours, which the ensemble may keep alive for long: the node's id is ours alone.
                let request = Request::Delete { path: self.report_path(&self.me), version: None };
                self.reporter.sent = None;
                let asked = self.ask(cx, Purpose::Report { round: self.round }, request).is_some();
                if asked { Own::Asking } else { Own::Unknown { at: cx.now } }
            }
            Err(RequestError::NoNode) => Own::Absent { retry_at: cx.now },
            _ => Own::Unknown { at: self.reporter.later(cx) },
        };
    }

    pub(super) fn reported(&mut self, cx: &mut Cx<'_>, result: Result<Reply, RequestError>) {
        let sent = self.reporter.sent.take();
        self.reporter.own = match (result, sent) {
            (Ok(_), Some(report)) => {
                self.reporter.attempts = 0;
                self.reporter.audit_at = cx.now + cx.rng.around(cx.node.audit);
                Own::Holds(Some(report))
            }
            (Ok(_) | Err(RequestError::NoNode), None) => Own::Absent { retry_at: cx.now },
            (Err(RequestError::NoNode), Some(_)) => {
                self.make(cx, &self.running);
                Own::Absent { retry_at: self.reporter.later(cx) }
            }
            (Err(RequestError::NodeExists), _) => Own::Unknown { at: cx.now },
            (Err(_), _) => Own::Unknown { at: self.reporter.later(cx) },
        };
    }
}

/// How often the leader looks how far nodes are.
pub(super) const POLL: Duration = Duration::from_secs(1);
