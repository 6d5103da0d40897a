//! What a node tells about itself, as JSON. Fields may be added; readers ignore the ones they do not know.

use std::fmt;
use std::sync::Arc;

use bellwether_core::callback::Step;
use bellwether_core::id::{Epoch, GroupName, NodeId, ReleaseId};
use bellwether_core::member::{Leader, Member};
use serde::{Deserialize, Serialize};

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub node: NodeId,
    /// The version of `bellwether` that it runs.
    pub version: String,
    /// How long it has been running, in milliseconds.
    pub uptime_ms: u64,
    /// Where its peers reach it, `host:port`.
    pub address: String,
    /// Its session with the coordinator.
    pub session: SessionStatus,
    /// Its groups, in the manifest's order.
    pub groups: Vec<GroupStatus>,
}

/// A node's session with the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its id in hexadecimal, as ZooKeeper's own tools show it; none before there is one.
    pub id: Option<String>,
    /// How it stands.
    pub state: SessionState,
    /// The timeout that the coordinator granted, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The coordinator, as the manifest names it (without credentials).
    pub coordinator: String,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// There is none yet; the node goes on trying.
    Connecting,
    /// The coordinator answers.
    Connected,
    /// The connection is gone; the session may live on.
    Disconnected,
    /// It is over.
    Ended,
}

/// What a node is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Not registered yet, or not any more and about to join again.
    Starting,
    /// Registered as a member, and a candidate if the manifest lets it be one.
    Worker,
    /// Leading: its claim is proven and its guest has been told.
    Leader,
    /// Its term is over, and its guest is being told.
    Demoting,
    /// Registered as a member, and no candidate for a while, because its guest failed or did not want to lead.
    SittingOut,
    /// Left, and not coming back.
    Stopped,
}

/// Whose business the membership is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchScope {
    /// Only the leader watches the registry.
    Leader,
    /// Every node watches it.
    All,
}

/// One group, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: GroupName,
    /// What this node is in it.
    pub role: Role,
    /// This node's own term; none unless it leads.
    pub epoch: Option<Epoch>,
    /// The last leader that proved its claim, as far as this node knows. It may be gone by now.
    pub leader: Option<Leader>,
    /// The workers as this node knows them: empty on a node that does not watch the registry.
    pub members: Vec<Arc<Member>>,
    /// Who watches the registry.
    pub watch: WatchScope,
    /// What it runs; none before the first release is ready.
    pub release: Option<ReleaseStatus>,
    /// The last swap that ended.
    pub last_swap: Option<SwapReport>,
    /// Whether the release is on probation still: if it fails now, the node goes back to the one before.
    #[serde(default)]
    pub probation: bool,
    /// The last swaps that ended, oldest first; a bounded number.
    #[serde(default)]
    pub history: Vec<SwapReport>,
    /// The work that this node was handed.
    pub tasks: TaskCounts,
    /// The calls into its guest.
    pub callbacks: CallbackCounts,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// What a group runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// The release, in hexadecimal.
    pub id: ReleaseId,
    /// The SHA-256 of its component, in hexadecimal.
    pub digest: String,
    /// The file that the component was read from.
    pub component: String,
    /// When it was committed, in milliseconds since the node's start.
    pub since_ms: u64,
}

/// How a swap ended, or that it has not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwapOutcome {
    /// It is under way; the old release serves.
    Running,
    /// The new release serves.
    Committed,
    /// The old release serves, untouched.
    RolledBack,
}

/// One swap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapReport {
    /// The new release; none if the component could not even be read.
    pub release: Option<ReleaseId>,
    /// The release before.
    pub from: Option<ReleaseId>,
    /// How it ended.
    pub outcome: SwapOutcome,
    /// The step that failed, if it was rolled back.
    pub step: Option<Step>,
    /// Why it was rolled back, or why the node went back by itself, for a person.
    pub reason: Option<String>,
    /// When it ended (or began, while it runs), in milliseconds since the node's start.
    pub at_ms: u64,
    /// For how long callbacks waited, in microseconds; none while it runs or if they never did.
    pub pause_us: Option<u64>,
    /// Whether the node went back by itself.
    #[serde(default)]
    pub rollback: bool,
    /// How long each step took, in microseconds, in order.
    #[serde(default)]
    pub steps: Vec<StepTime>,
}

/// How long one step of a swap took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    /// The step.
    pub step: Step,
    /// Its time, in microseconds.
    pub took_us: u64,
}

/// Work that a node was handed, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Being done or waiting now.
    pub in_flight: u64,
    /// Done.
    pub done: u64,
    /// Failed: the guest returned an error, trapped, or ran out of time.
    pub failed: u64,
    /// Refused without asking the guest: an old epoch, or a full queue.
    pub refused: u64,
}

/// Calls into a group's guest, since the node's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallbackCounts {
    /// Made.
    pub called: u64,
    /// That failed.
    pub failed: u64,
    /// How often the instance was replaced because it failed.
    pub restarts: u64,
}

impl GroupStatus {
    /// Whether this node is registered, or leads.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.role, Role::Worker | Role::Leader | Role::SittingOut)
    }
}

impl NodeStatus {
    /// Whether this node has a session and is registered, or leads, in every group. A short disconnect changes nothing:
    /// the registration outlives it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.session.state, SessionState::Connected | SessionState::Disconnected)
            && self.groups.iter().all(GroupStatus::is_ready)
    }
}

macro_rules! shown {
    ($type:ident { $($variant:ident => $text:literal),* $(,)? }) => {
        impl $type {
            /// The word, as in the JSON.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

shown!(SessionState {
    Connecting => "connecting",
    Connected => "connected",
    Disconnected => "disconnected",
    Ended => "ended",
});
shown!(Role {
    Starting => "starting",
    Worker => "worker",
    Leader => "leader",
    Demoting => "demoting",
    SittingOut => "sitting-out",
    Stopped => "stopped",
});
shown!(WatchScope { Leader => "leader", All => "all" });
shown!(SwapOutcome { Running => "running", Committed => "committed", RolledBack => "rolled-back" });

/// The answer of `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    /// The nodes of this process: one, unless it is `bellwether dev`.
    pub nodes: Vec<NodeStatus>,
    /// The nodes that did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<Unanswered>,
}

/// A node that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// The node.
    pub node: NodeId,
    /// Why.
    pub reason: String,
}

/// The answer of `GET /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeList {
    /// The ids of the nodes of this process.
    pub nodes: Vec<NodeId>,
}

/// The answer of `GET …/members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The workers as the node knows them.
    pub members: Vec<Arc<Member>>,
}

/// The answer of `GET …/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateKeys {
    /// The keys, sorted.
    pub keys: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_same_in_text_and_in_json() {
        let json = |value: serde_json::Value| value.as_str().unwrap().to_owned();
        for role in [Role::Starting, Role::Worker, Role::Leader, Role::Demoting, Role::SittingOut, Role::Stopped] {
            assert_eq!(json(serde_json::to_value(role).unwrap()), role.to_string());
        }
        for outcome in [SwapOutcome::Running, SwapOutcome::Committed, SwapOutcome::RolledBack] {
            assert_eq!(json(serde_json::to_value(outcome).unwrap()), outcome.to_string());
        }
        for state in
            [SessionState::Connecting, SessionState::Connected, SessionState::Disconnected, SessionState::Ended]
        {
            assert_eq!(json(serde_json::to_value(state).unwrap()), state.to_string());
        }
        for scope in [WatchScope::Leader, WatchScope::All] {
            assert_eq!(json(serde_json::to_value(scope).unwrap()), scope.to_string());
        }
    }
}
