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
    /// Sends one piece of work. Returns `NotLeader` at once when leadership ends.
    fn send(&self, assignment: Assignment, timeout: Duration) -> BoxFuture<'_, Result<Bytes, WorkError>>;
    /// Reads or writes the group's state. Returns `NotLeader` at once when leadership ends and the call needs it.
    fn state(&self, op: StateOp) -> BoxFuture<'_, Result<StateReply, StateError>>;
    /// Takes one log line of the guest (also its stdout and stderr, line by line).
    fn log(&self, level: LogLevel, context: &str, message: &str);
}
