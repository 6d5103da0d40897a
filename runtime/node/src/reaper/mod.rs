//! The reaper: a small process beside the node that outlives it. When the node's process ends without closing its session (a SIGKILL,
//! a crash, no memory left), the reaper deletes the candidates and members of that session, so that a successor need not wait for its timeout.
//!
//! It knows that the node is dead by the end of a pipe whose other end the node alone holds: the kernel closes that once no thread
//! of the process can run any more. A process that is only paused closes nothing. To everybody else what the reaper does looks like the end
//! of the session. Where the reaper dies too (the machine fails, a container is torn down), the session's timeout does the same, later.
//!
//! The node's side (`keeper.rs`) tells what changes, and all again to a reaper that it had to start anew; the reaper's (`attend.rs`) keeps
//! no more than that.

mod attend;
mod keeper;

use std::path::PathBuf;

use bellwether_coordination::zookeeper::{DigestAuth, Secret, ZookeeperConfig};
use bellwether_core::id::NodeId;
use serde::{Deserialize, Serialize};

pub use attend::{AttendError, Attended, attend};
pub(crate) use keeper::Keeper;

/// How a reaper is started: a program that calls [`attend`] with its standard input.
#[derive(Debug, Clone)]
pub struct ReaperProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// What the node tells, one JSON document a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// Who tells, and where its session is; the first line.
    Node { id: NodeId, zookeeper: Servers },
    /// A session, which owns nothing yet.
    Session { id: i64, timeout_ms: u64 },
    /// It owns this znode.
    Owns(String),
    /// It does not own it any more.
    Released(String),
    /// There is no session.
    Ended,
    /// The node ends in good order: there will be nothing to do.
    Farewell,
}

/// A [`ZookeeperConfig`] on its way through the pipe. It holds a password: never log it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Servers {
    servers: Vec<String>,
    chroot: Option<String>,
    credentials: Option<(String, String)>,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers").field("servers", &self.servers).field("chroot", &self.chroot).finish_non_exhaustive()
    }
}

impl From<&ZookeeperConfig> for Servers {
    fn from(config: &ZookeeperConfig) -> Self {
        let auth = config.auth.as_ref();
        Self {
            servers: config.servers.clone(),
            chroot: config.chroot.clone(),
            credentials: auth.map(|auth| (auth.user.clone(), auth.password.reveal().to_owned())),
        }
    }
}

impl From<Servers> for ZookeeperConfig {
    fn from(Servers { servers, chroot, credentials }: Servers) -> Self {
        let auth = credentials.map(|(user, password)| DigestAuth { user, password: Secret::new(password) });
        Self { servers, chroot, auth }
    }
}
