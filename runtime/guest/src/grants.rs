//! What a guest may reach. Nothing outside of its sandbox unless it is granted here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

/// Whether a granted folder may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileMode {
    /// Files can be read.
    Read,
    /// Files can be read, made, changed and deleted.
    Write,
}

/// A folder of the host that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FolderGrant {
    /// The folder on the host.
    pub host: PathBuf,
    /// Where the guest sees it.
    pub guest: String,
    /// What it may do there.
    pub mode: FileMode,
}

/// Who may use the `state` import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateGrant {
    /// Nobody.
    None,
    /// The leader reads, writes and watches.
    #[default]
    Leader,
    /// The leader as before; workers read and watch.
    All,
}

/// Everything a group's manifest grants to its guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// Folders.
    pub folders: Vec<FolderGrant>,
    /// Environment variables, with the values the guest sees.
    pub env: BTreeMap<String, String>,
    /// Addresses, `host:port`, that the guest may open TCP connections to (names are resolved by the host).
    pub connect: Vec<String>,
    /// The `state` import.
    pub state: StateGrant,
    /// The `workers` import.
    pub workers: bool,
    /// What the guest prints on stdout and stderr, and `wasi:logging`, goes to the node's log.
    pub logging: bool,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            folders: Vec::new(),
            env: BTreeMap::new(),
            connect: Vec::new(),
            state: StateGrant::default(),
            workers: true,
            logging: true,
        }
    }
}
