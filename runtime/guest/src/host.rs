//! What the runtime offers to a guest: the imports of the contract, as a trait that the node implements.

use std::sync::Arc;
use std::time::Duration;

use bellwether_core::id::{Epoch, NodeId};
use bellwether_core::member::{Leader, Member};
use bellwether_core::state::{StateError, StateOp, StateReply};
use bellwether_core::work::WorkError;
use bytes::Bytes;
use futures::future::BoxFuture;

/// How much a guest's log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `trace`.
    Trace,
    /// `debug`.
    Debug,
    /// `info`.
    Info,
    /// `warn`.
    Warn,
    /// `error` and `critical`.
    Error,
}

/// Why the cluster could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// The coordinator could not be asked.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// One piece of work and who shall do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The member.
    pub to: NodeId,
    /// The payload.
    pub payload: Bytes,
}

/// One piece of work as a worker gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The node that sent it.
    pub sender: NodeId,
    /// The sender's term; none if it does not lead.
    pub epoch: Option<Epoch>,
    /// The payload.
    pub payload: Bytes,
}

/// A request to the outside, as the guest has finished it.
#[derive(Debug)]
pub struct HttpRequest {
    /// The request; its origin is one that is granted.
    pub request: http::Request<Bytes>,
    /// How long the answer may keep one waiting until it begins.
    pub first_byte: Duration,
    /// How long it may be silent after that.
    pub between_bytes: Duration,
    /// The longest answer, in bytes.
    pub most: u64,
}

/// Why a request to the outside has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// This node does not lead: nothing was sent, or what became of it is not known if leadership ended meanwhile.
    #[error("not-leader: this node does not lead (any more)")]
    NotLeader,
    /// Nobody knows the server's name.
    #[error("the server's name is not known: {0}")]
    UnknownHost(String),
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No trust in the server.
    #[error("TLS: {0}")]
    Tls(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The answer is larger than so many bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The node, as an instance of a guest sees it: one object an instance, so that the node knows who asks. Whether this
/// instance may act as the leader is the node's to decide, at each call. Futures may be dropped at any time.
pub trait Host: Send + Sync + 'static {
    /// This node.
    fn this(&self) -> Arc<Member>;
    /// The members as this node knows them.
    fn members(&self) -> Arc<[Arc<Member>]>;
    /// Who leads.
    fn leader(&self) -> BoxFuture<'_, Result<Option<Leader>, ClusterError>>;
    /// This node's own term, while its lease lasts.
    fn epoch(&self) -> Option<Epoch>;
    /// Gives leadership up.
    fn resign(&self) -> Result<(), ClusterError>;
    /// The instance is given a task, its first or another one: it may act from now on. Until then it is only being made, maybe for a
    /// release that never takes over. Of those that hear callbacks whoever calls them knows.
    fn given_task(&self) {}
    /// Sends one piece of work. Returns `NotLeader` at once when leadership ends.
    fn send(&self, assignment: Assignment, timeout: Duration) -> BoxFuture<'_, Result<Bytes, WorkError>>;
    /// Reads or writes the group's state. Returns `NotLeader` at once when leadership ends and the call needs it.
    fn state(&self, op: StateOp) -> BoxFuture<'_, Result<StateReply, StateError>>;
    /// Sends a request to an origin that is granted, and takes in the whole answer; follows no redirect. Returns `NotLeader` at
    /// once when leadership ends and the instance needs it.
    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        drop(request);
        Box::pin(std::future::ready(Err(HttpError::Other("this host sends no requests".into()))))
    }
    /// Takes one log line of the guest (also its stdout and stderr, line by line).
    fn log(&self, level: LogLevel, context: &str, message: &str);
}
