//! The local admin API: HTTP/1.1 and JSON on a Unix socket or on a loopback port. ADMIN.md documents each call.
//!
//! The node implements [`Control`]; a process that runs several nodes (`bellwether dev`) implements [`Nodes`] too. Both
//! are served in the same shape, so that a client need not know which it talks to.

mod address;
mod control;
mod error;
mod guard;
mod metrics;
mod rollout;
mod routes;
mod server;
mod socket;
mod status;

pub use address::{AdminAddress, BadAddress};
pub use control::{Answer, Control, Nodes, SwapRequest};
pub use error::{ControlError, ErrorBody, ErrorKind, ErrorReply};
pub use rollout::{
    DeployRequest, NodeReport, Planned, PolicyRequest, RollbackRequest, RolloutStatus, Steer, SteerRequest, differences,
};
pub use server::{AdminError, AdminOptions, AdminServer};
pub use status::{
    CallbackCounts, GroupStatus, Members, NodeList, NodeStatus, ReleaseStatus, Role, SessionState, SessionStatus,
    StateKeys, StatusReply, StepTime, SwapOutcome, SwapReport, TaskCounts, Unanswered, WatchScope,
};

/// The header that carries the version of a state key's value, beside the raw value.
pub const VERSION_HEADER: &str = "bellwether-version";
