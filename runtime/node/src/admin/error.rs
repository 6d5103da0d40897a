//! How a request to the admin API fails, in Rust and on the wire.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bellwether_core::callback::PrepareFailure;
use bellwether_core::id::NodeId;
use bellwether_core::member::Leader;
use bellwether_core::state::StateError;
use serde::{Deserialize, Serialize};

use super::status::SwapReport;

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The node has no such group.
    #[error("no group {name:?} on this node; {}", known_text("it has", known))]
    UnknownGroup {
        /// The name.
        name: String,
        /// The groups it has.
        known: Vec<String>,
    },
    /// This process has no such node.
    #[error("no node {name:?} in this process; {}", known_text("it runs", known))]
    UnknownNode {
        /// The id.
        name: String,
        /// The nodes it runs.
        known: Vec<String>,
    },
    /// The group's state has no such key.
    #[error("no key {0:?} in the group's state")]
    UnknownKey(String),
    /// Only the leader can do this, and this node does not lead.
    #[error("this node does not lead{}", leader_text(leader.as_ref()))]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<Leader>,
    },
    /// Something else has to end first.
    #[error("busy: {0}")]
    Busy(String),
    /// The group's document does not allow it: nothing was done.
    #[error("refused: {0}")]
    Refused(String),
    /// It was tried and failed.
    #[error("{step} failed: {reason}")]
    Failed {
        /// What failed.
        step: String,
        /// Why, for a person.
        reason: String,
    },
    /// It cannot be done now: the coordinator does not answer, or the node is stopping.
    #[error("not available: {0}")]
    Unavailable(String),
    /// No outcome in time. It may still come.
    #[error("{0}")]
    TimedOut(String),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
}

fn known_text(verb: &str, known: &[String]) -> String {
    if known.is_empty() { format!("{verb} none") } else { format!("{verb} {}", known.join(", ")) }
}

fn leader_text(leader: Option<&Leader>) -> String {
    leader.map(|leader| format!("; {} does, since epoch {}", leader.id, leader.epoch)).unwrap_or_default()
}

impl From<PrepareFailure> for ControlError {
    fn from(failure: PrepareFailure) -> Self {
        Self::Failed { step: failure.step.to_string(), reason: failure.reason }
    }
}

impl From<StateError> for ControlError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::NotLeader => Self::NotLeader { leader: None },
            StateError::BadKey(_) => Self::BadRequest(error.to_string()),
            StateError::Unavailable(reason) => Self::Unavailable(reason),
            other => Self::Failed { step: "state".to_owned(), reason: other.to_string() },
        }
    }
}

/// The kind of an error on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// 404: no such group.
    UnknownGroup,
    /// 404: no such node.
    UnknownNode,
    /// 404: no such key.
    UnknownKey,
    /// 404: no such call; 405: not with this method.
    UnknownCall,
    /// 409: this node does not lead.
    NotLeader,
    /// 409: something else has to end first.
    Busy,
    /// 409: the group's document does not allow it: another rollout is under way, the release runs already …
    Refused,
    /// 422: it was tried and failed; a swap that was rolled back.
    Failed,
    /// 503: it cannot be done now.
    Unavailable,
    /// 504: no outcome in time.
    TimedOut,
    /// 400, 413 or 415: the request makes no sense.
    BadRequest,
    /// 403: the request came by way of a web page.
    Forbidden,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

/// What every error says on the wire, under the key `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind it is.
    pub kind: ErrorKind,
    /// What happened, for a person.
    pub message: String,
    /// The names that do exist, if an unknown one was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<String>,
    /// Who leads, if this node does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leader>,
    /// The step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The swap that was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<SwapReport>,
}

/// An error's whole body on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// The error.
    pub error: ErrorBody,
}

impl ErrorBody {
    /// One that has only a kind and a message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), known: Vec::new(), leader: None, step: None, reason: None, report: None }
    }
}

/// A response that reports an error.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: Box<ErrorBody>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, body: ErrorBody) -> Self {
        Self { status, body: Box::new(body) }
    }

    /// A body or a query that could not be taken, with the status that the framework chose.
    pub(super) fn bad(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, ErrorBody::new(ErrorKind::BadRequest, message))
    }

    /// A swap whose report says that it was rolled back.
    pub(super) fn rolled_back(report: SwapReport) -> Self {
        let step = report.step.map_or_else(|| "swap".to_owned(), |step| step.to_string());
        let reason = report.reason.clone().unwrap_or_else(|| "no reason was given".to_owned());
        let mut problem = Self::from(ControlError::Failed { step, reason });
        problem.body.message = format!("rolled back: {}; the old release serves", problem.body.message);
        problem.body.report = Some(report);
        problem
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let mut body = ErrorBody::new(ErrorKind::Other, error.to_string());
        let (status, kind) = match error {
            ControlError::UnknownGroup { known, .. } => {
                body.known = known;
                (StatusCode::NOT_FOUND, ErrorKind::UnknownGroup)
            }
            ControlError::UnknownNode { known, .. } => {
                body.known = known;
                (StatusCode::NOT_FOUND, ErrorKind::UnknownNode)
            }
            ControlError::UnknownKey(_) => (StatusCode::NOT_FOUND, ErrorKind::UnknownKey),
            ControlError::NotLeader { leader } => {
                body.leader = leader;
                (StatusCode::CONFLICT, ErrorKind::NotLeader)
            }
            ControlError::Busy(_) => (StatusCode::CONFLICT, ErrorKind::Busy),
            ControlError::Refused(_) => (StatusCode::CONFLICT, ErrorKind::Refused),
            ControlError::Failed { step, reason } => {
                body.step = Some(step);
                body.reason = Some(reason);
                (StatusCode::UNPROCESSABLE_ENTITY, ErrorKind::Failed)
            }
            ControlError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable),
            ControlError::TimedOut(_) => (StatusCode::GATEWAY_TIMEOUT, ErrorKind::TimedOut),
            ControlError::BadRequest(_) => (StatusCode::BAD_REQUEST, ErrorKind::BadRequest),
        };
        body.kind = kind;
        Self::new(status, body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorReply { error: *self.body })).into_response()
    }
}

/// The error for a node that this process does not run.
pub(super) fn unknown_node(name: &str, known: impl Iterator<Item = NodeId>) -> ControlError {
    ControlError::UnknownNode { name: name.to_owned(), known: known.map(|node| node.to_string()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_a_later_version_can_be_read() {
        let reply: ErrorReply =
            serde_json::from_str(r#"{"error":{"kind":"on-fire","message":"m","extra":1}}"#).unwrap();
        assert_eq!(reply.error, ErrorBody::new(ErrorKind::Other, "m"));
    }
}
