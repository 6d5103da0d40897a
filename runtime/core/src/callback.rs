//! The callbacks that reach a guest, and how they end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, InstanceId, ReleaseId};
use crate::member::MembershipChange;
use crate::state::Entry;

/// Why `on-elected` is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// This node has won an election.
    Election,
    /// This instance takes over from one of another release.
    Swap,
    /// This instance replaces one that failed.
    Restart,
}

/// Why a term ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DemotionReason {
    /// The guest or an operator resigned.
    Resigned,
    /// No write was acknowledged in time.
    LeaseLost,
    /// The session is gone.
    SessionLost,
    /// The election znode is gone, or somebody else has a newer epoch.
    Superseded,
    /// The node is shutting down.
    Stopping,
    /// The guest failed too often.
    Failed(String),
}

impl fmt::Display for DemotionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resigned => f.write_str("resigned"),
            Self::LeaseLost => f.write_str("lease lost"),
            Self::SessionLost => f.write_str("session lost"),
            Self::Superseded => f.write_str("superseded"),
            Self::Stopping => f.write_str("stopping"),
            Self::Failed(how) => write!(f, "failed: {how}"),
        }
    }
}

/// One call into a guest's long-lived instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callback {
    /// `lifecycle.on-elected`.
    Elected {
        /// The term.
        epoch: Epoch,
        /// Why it is told.
        cause: Cause,
    },
    /// `lifecycle.on-demoted`.
    Demoted(DemotionReason),
    /// `lifecycle.on-members-changed`.
    MembersChanged(Arc<MembershipChange>),
    /// `ticker.on-tick`.
    Tick,
    /// `observer.on-state-changed`.
    StateChanged {
        /// The key.
        key: String,
        /// What it holds now.
        entry: Option<Entry>,
    },
    /// `handover.snapshot`.
    Snapshot,
    /// `handover.restore`.
    Restore(GuestState),
}

impl Callback {
    /// The name of the function in the contract.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Elected { .. } => "on-elected",
            Self::Demoted(_) => "on-demoted",
            Self::MembersChanged(_) => "on-members-changed",
            Self::Tick => "on-tick",
            Self::StateChanged { .. } => "on-state-changed",
            Self::Snapshot => "snapshot",
            Self::Restore(_) => "restore",
        }
    }
}

/// What an instance hands over to the next, in the very allocation in which it came from the guest: while it is on its way, callbacks
/// wait.
pub type GuestState = Arc<Vec<u8>>;

/// What a callback that succeeded gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// Nothing.
    Done,
    /// The guest's state.
    Snapshot(GuestState),
}

/// How a call into a guest failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// The guest returned an error. Its instance is as good as before.
    #[error("returned the error {0:?}")]
    Refused(String),
    /// The guest trapped: its instance is lost. The text names the trap, the place and the last lines of stderr.
    #[error("trapped: {0}")]
    Trapped(String),
    /// The guest outlived its budget: its instance is lost.
    #[error("did not return within {budget_ms} ms and was stopped")]
    TimedOut {
        /// The budget.
        budget_ms: u64,
    },
    /// The guest used more than its limits allow (memory, tables, host calls): its instance is lost.
    #[error("went over its limit: {0}")]
    OverLimit(String),
    /// The instance was stopped by force while it ran.
    #[error("was stopped by force")]
    Stopped,
}

impl CallFailure {
    /// Whether the instance can still be called.
    #[must_use]
    pub fn leaves_instance(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// The optional interfaces that a component exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exports {
    /// `worker`.
    pub worker: bool,
    /// `ticker`.
    pub ticker: bool,
    /// `handover`.
    pub handover: bool,
    /// `observer`.
    pub observer: bool,
}

/// A release that is ready to be called: read, verified, compiled, type-checked and instantiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The instance for the callbacks.
    pub instance: InstanceId,
    /// The release.
    pub release: ReleaseId,
    /// The SHA-256 of the component, in hex.
    pub digest: Arc<str>,
    /// What it exports.
    pub exports: Exports,
    /// How long each step of its preparation took.
    pub took: Arc<[(Step, Duration)]>,
}

/// How far the preparation of a release got before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Reading the component.
    Read,
    /// Having it come from elsewhere: the node's store, an address, a registry, another node.
    Fetch,
    /// Comparing it with its digest, and checking who vouches for it.
    Verify,
    /// Compiling it.
    Compile,
    /// Checking it against the contract and the grants.
    Check,
    /// Making an instance.
    Instantiate,
    /// Taking the old instance's state.
    Snapshot,
    /// Giving it to the new one.
    Restore,
    /// Telling the new instance of the present.
    Present,
    /// Serving for a while without failing.
    Probation,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Fetch => "fetch",
            Self::Verify => "verify",
            Self::Compile => "compile",
            Self::Check => "check",
            Self::Instantiate => "instantiate",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::Present => "present",
            Self::Probation => "probation",
        })
    }
}

/// Why a release could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {reason}")]
pub struct PrepareFailure {
    /// The step that failed.
    pub step: Step,
    /// What happened and what to do.
    pub reason: String,
}
