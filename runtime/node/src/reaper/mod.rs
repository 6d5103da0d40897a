//! The reaper: a small process beside the node that outlives it. When the node's process ends without closing its session (a SIGKILL,
//! a crash, no memory left), the reaper deletes the znodes of that session, so that a successor need not wait for its timeout.
//!
//! It knows that the node is dead by the end of a pipe whose other end the node alone holds: the kernel closes that once no thread
//! of the process can run any more. A process that is only paused closes nothing. So what the reaper does comes after the
//! last effect of the node's guests, and to everybody else it looks like the end of the session. Where the reaper dies too (the machine fails, a container
//! is torn down), the session's timeout does the same, later.
//!
//! Both sides reconcile: the node's side (`keeper.rs`) tells the difference between what is owned and what was told, and tells all again to a reaper
//! that it had to start anew; the reaper's (`attend.rs`) keeps no more than that.

mod attend;
mod keeper;

use std::path::PathBuf;
use std::time::Duration;

use bellwether_coordination::zookeeper::{DigestAuth, Secret, ZookeeperConfig};
use bellwether_core::id::{NodeId, SessionId};
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

/// A session as it stands in a line.
fn session(id: SessionId, timeout: Duration) -> Line {
    Line::Session { id: id.0, timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) }
}
