//! What a group shall run: the document that its znode `release` holds, what each node reports, and what operators may change.
//!
//! Everything here is a pure function of its input; `rollout` reads, follows and writes by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

mod ask;
mod change;
#[cfg(test)]
mod tests;

pub use ask::{ReleaseError, ReleaseOp, ReleaseReply};
pub(crate) use change::bounded;
pub use change::{Refusal, next_wave};

/// The format of the documents that this version writes, and the newest that it understands.
pub const FORMAT: u32 = 1;
/// Releases that are remembered.
pub const HISTORY: usize = 20;
/// The most that a document may take, as bytes of JSON, for a release to be deployed.
pub const MAX_DOCUMENT: usize = 512 * 1024;
/// The most that one wanted release may take of it: there is room for what runs, what comes and the nodes' names.
pub const MAX_WANTED: usize = 96 * 1024;

/// A component, wherever it is to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where it can be obtained.
    pub reference: String,
    /// Its SHA-256, in hex: whatever is obtained must have it.
    pub digest: String,
}

/// What a group shall run. Grants and limits stay those of each node's own manifest: who can write to the coordinator must
/// not be able to grant a guest anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The component.
    pub component: Artifact,
    /// Another one for tasks, if tasks have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Artifact>,
    /// The configuration; none for the manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, String>>,
}

impl Wanted {
    /// Whether both are the same release, wherever their components come from.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let digest = |wanted: &Self| wanted.worker.as_ref().map(|worker| worker.digest.clone());
        self.component.digest == other.component.digest && digest(self) == digest(other) && self.config == other.config
    }
}

/// A release that was deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// Grows with each release that is deployed to the group; never used twice.
    pub number: u64,
    /// The earlier release that this one repeats, if it is a way back to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
    /// What it is.
    pub wanted: Wanted,
    /// Who deployed it.
    pub by: String,
    /// When, in seconds since 1970, as the operator's machine had it: for people only.
    pub at: u64,
}

/// What is done about a release that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Every node goes back to the release before.
    #[default]
    Back,
    /// Nothing further happens until an operator says so.
    Halt,
}

/// How a release makes its way through a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// So many nodes run it first.
    pub canaries: u32,
    /// So many nodes may be between releases at once, after that.
    pub max_unavailable: u32,
    /// For so long a wave must have been well before the next begins; zero if the end of its probation suffices.
    #[serde(with = "millis")]
    pub settle: Duration,
    /// An admitted node that is not well after that long fails the rollout.
    #[serde(with = "millis")]
    pub patience: Duration,
    /// What then.
    pub on_failure: OnFailure,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            canaries: 1,
            max_unavailable: 1,
            settle: Duration::ZERO,
            patience: Duration::from_secs(300),
            on_failure: OnFailure::Back,
        }
    }
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// How a rollout goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nodes are admitted, wave by wave.
    Running,
    /// No further node is admitted.
    Paused,
    /// Every node goes back to the release before.
    Back {
        /// Why.
        reason: String,
    },
    /// Something failed, and an operator must say what is to be done.
    Halted {
        /// What.
        reason: String,
    },
}

/// A release on its way through the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The release.
    pub to: Numbered,
    /// How it goes.
    pub policy: Policy,
    /// How it stands.
    pub phase: Phase,
    /// The nodes that shall run it.
    #[serde(default)]
    pub admitted: BTreeSet<NodeId>,
    /// Those of them that did, and were well, when the next wave was admitted.
    #[serde(default)]
    pub settled: BTreeSet<NodeId>,
    /// The node that failed, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<(NodeId, String)>,
    /// Who aborted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<String>,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every node ran the release.
    Done,
    /// It failed, and the group went back.
    Failed {
        /// Why.
        reason: String,
    },
    /// An operator ended it, and the group went back.
    Aborted {
        /// Who.
        by: String,
    },
}

/// A rollout that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The release.
    #[serde(flatten)]
    pub release: Numbered,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a group shall run: the content of its znode `release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The format: a newer one is not understood.
    pub format: u32,
    /// The release that the group runs, but for the nodes that a rollout has admitted; none for each node's manifest.
    #[serde(default)]
    pub current: Option<Numbered>,
    /// The one that is on its way.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// The rollouts that have ended, newest last, a bounded number.
    #[serde(default)]
    pub history: Vec<Past>,
    /// The last number that was given; zero if nothing was ever deployed.
    #[serde(default)]
    pub last: u64,
}

impl Default for Document {
    fn default() -> Self {
        Self { format: FORMAT, current: None, rollout: None, history: Vec::new(), last: 0 }
    }
}

/// How far a node is with what it shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Staging {
    /// It does not run it yet.
    Staging,
    /// It runs it, on probation.
    Proving,
    /// It runs it, and has proved it.
    Settled,
    /// It could not run it, or not for long.
    Failed {
        /// The release.
        number: u64,
        /// How.
        reason: String,
    },
}

/// What a node says of itself in its znode below `running`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The number of the release that it runs; none for its manifest's.
    #[serde(default)]
    pub running: Option<u64>,
    /// That release's id; empty while nothing runs.
    #[serde(default)]
    pub release: String,
    /// The SHA-256 of its component, in hex; empty while nothing runs.
    #[serde(default)]
    pub digest: String,
    /// How far it is.
    pub state: Staging,
    /// Where its peers reach it.
    #[serde(default)]
    pub address: String,
}

impl Report {
    /// Reads what a node's znode holds; none if that is no report.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }

    /// Whether the node runs that release (none for its manifest's), and has proved it.
    #[must_use]
    pub fn settled(&self, on: Option<u64>) -> bool {
        self.running == on && self.state == Staging::Settled
    }

    /// How it failed to run that release, if it did.
    #[must_use]
    pub fn failed(&self, on: u64) -> Option<&str> {
        match &self.state {
            Staging::Failed { number, reason } if *number == on => Some(reason),
            _ => None,
        }
    }
}

/// Why a document is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A newer version wrote it.
    #[error(
        "it is of format {found}, and this version of bellwether understands {FORMAT} at most: bring this node up to the version \
         that wrote it"
    )]
    Newer {
        /// The format.
        found: u32,
    },
    /// It is none.
    #[error(
        "it holds no document of bellwether's ({0}): put back what was there, or delete the znode, and the leader puts it back"
    )]
    Garbage(String),
}

impl Phase {
    /// In one word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Back { .. } => "going back",
            Self::Halted { .. } => "halted",
        }
    }
}

impl Document {
    /// Reads what the znode holds.
    ///
    /// # Errors
    /// When a newer version wrote it, or something else than Bellwether.
    pub fn parse(data: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        if data.is_empty() {
            return Ok(Self::default());
        }
        let garbage = |error: serde_json::Error| Unreadable::Garbage(error.to_string());
        let head: Head = serde_json::from_slice(data).map_err(garbage)?;
        if head.format > FORMAT {
            return Err(Unreadable::Newer { found: head.format });
        }
        serde_json::from_slice(data).map_err(garbage)
    }

    /// What the znode shall hold.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Maps have strings as their keys and no number is beyond JSON: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether anything was ever deployed.
    #[must_use]
    pub fn deployed(&self) -> bool {
        self.last > 0
    }

    /// What a node shall run; none for its manifest's.
    #[must_use]
    pub fn target(&self, me: &NodeId) -> Option<&Numbered> {
        match &self.rollout {
            Some(Rollout { to, phase, admitted, .. })
                if admitted.contains(me) && !matches!(phase, Phase::Back { .. }) =>
            {
                Some(to)
            }
            _ => self.current.as_ref(),
        }
    }

    /// The waves in which a release would make its way.
    #[must_use]
    pub fn plan(nodes: &BTreeSet<NodeId>, leader: Option<&NodeId>, policy: &Policy) -> Vec<Vec<NodeId>> {
        let mut remaining = nodes.clone();
        let mut waves: Vec<Vec<NodeId>> = Vec::new();
        while !remaining.is_empty() {
            let wave = next_wave(&remaining, leader, policy.wave(waves.is_empty()));
            remaining.retain(|node| !wave.contains(node));
            waves.push(wave.into_iter().collect());
        }
        waves
    }
}
