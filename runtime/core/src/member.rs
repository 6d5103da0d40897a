//! Members, and what a guest is told about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, NodeId};

/// A worker as it stands in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// Where its peers reach it, `host:port`.
    pub address: String,
    /// The labels of its manifest.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What changed since an instance was told last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembershipChange {
    /// Grows with each change that this instance is told of.
    pub version: u64,
    /// New members.
    pub joined: Vec<Arc<Member>>,
    /// Members with another address, other labels or another registration.
    pub changed: Vec<Arc<Member>>,
    /// Members that are gone.
    pub left: Vec<NodeId>,
}

/// The leader that proved its claim last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The node.
    pub id: NodeId,
    /// Its term.
    pub epoch: Epoch,
    /// Where its peers reach it.
    pub address: String,
}
