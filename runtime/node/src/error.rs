//! Why a node could not do its work.

use crate::admin::AdminError;
use crate::manifest::ManifestError;
use crate::peers::PeerError;

/// Whose fault it was; the command line gives each an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeErrorKind {
    /// The manifest's.
    Manifest,
    /// The component's.
    Component,
    /// The coordinator's: it cannot be reached, or refuses.
    Coordinator,
    /// This machine's: an address in use, a folder that cannot be written to.
    Local,
    /// None of these.
    Failed,
}

/// Why a node could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NodeError {
    kind: NodeErrorKind,
    message: String,
}

impl NodeError {
    pub(crate) fn new(kind: NodeErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Whose fault it was.
    #[must_use]
    pub fn kind(&self) -> NodeErrorKind {
        self.kind
    }
}

impl From<ManifestError> for NodeError {
    fn from(error: ManifestError) -> Self {
        Self::new(NodeErrorKind::Manifest, error.to_string())
    }
}

impl From<AdminError> for NodeError {
    fn from(error: AdminError) -> Self {
        Self::new(NodeErrorKind::Local, error.to_string())
    }
}

impl From<PeerError> for NodeError {
    fn from(error: PeerError) -> Self {
        Self::new(NodeErrorKind::Local, error.to_string())
    }
}
