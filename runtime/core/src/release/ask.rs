//! What operators ask about a group's releases, and what they are told.

use std::collections::BTreeMap;

use super::{Document, Policy, Refusal, Report, Unreadable, Wanted};
use crate::id::NodeId;

/// What an operator can ask about a group's releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseOp {
    /// The document.
    Get,
    /// The document, the nodes with what they report, and who leads.
    Nodes,
    /// Roll a release out.
    Deploy {
        /// What.
        wanted: Box<Wanted>,
        /// How.
        policy: Policy,
        /// Who asks.
        by: String,
        /// When, in seconds since 1970: for people only.
        at: u64,
    },
    /// Admit no further node.
    Pause,
    /// Admit nodes again.
    Resume,
    /// Go back.
    Abort {
        /// Who asks.
        by: String,
    },
    /// Roll an earlier release out again.
    Rollback {
        /// Which; none for the last one.
        to: Option<u64>,
        /// How.
        policy: Policy,
        /// Who asks.
        by: String,
        /// When, in seconds since 1970: for people only.
        at: u64,
    },
}

impl ReleaseOp {
    /// The document as it shall be; none if nothing is to be written.
    ///
    /// # Errors
    /// When the document does not allow it.
    pub fn apply(&self, document: Document) -> Result<Option<Document>, Refusal> {
        match self.clone() {
            Self::Get | Self::Nodes => Ok(None),
            Self::Deploy { wanted, policy, by, at } => document.deploy(*wanted, policy, by, at).map(Some),
            Self::Pause => document.pause().map(Some),
            Self::Resume => document.resume().map(Some),
            Self::Abort { by } => document.abort(by).map(Some),
            Self::Rollback { to, policy, by, at } => document.rollback(to, policy, by, at).map(Some),
        }
    }
}

/// The answer to a [`ReleaseOp`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReleaseReply {
    /// The document, as it is now.
    pub document: Document,
    /// To `Nodes`: the nodes of the group, and what each reports, if it does (nobody does before the first release is deployed).
    pub nodes: BTreeMap<NodeId, Option<Report>>,
    /// To `Nodes`: who leads.
    pub leader: Option<NodeId>,
    /// To `Nodes`: where the leader and the members are reached.
    pub addresses: BTreeMap<NodeId, String>,
}

/// Why a [`ReleaseOp`] was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The document does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The document is not understood.
    #[error("the znode {path} cannot be read: {why}")]
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        why: Unreadable,
    },
    /// Only operators may.
    #[error("only an operator may ask for that")]
    NotAllowed,
    /// Nothing was done.
    #[error("the coordinator cannot be asked now: {0}")]
    Unavailable(String),
    /// The answer was lost.
    #[error("it is not known whether this was done, since the answer was lost ({0}): look at the status")]
    Unknown(String),
    /// Others changed the document again and again.
    #[error("others change the group's release at the same time, again and again; nothing was done")]
    Contended,
    /// For another reason; nothing was done.
    #[error("{0}")]
    Other(String),
}
