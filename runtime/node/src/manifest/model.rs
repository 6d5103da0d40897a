//! The manifest as the node uses it: checked, resolved and complete.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bellwether_core::config::{ElectionFormat, FailurePolicy, Probation, TickConfig, Watch};
use bellwether_core::id::{GroupName, NodeId};
use bellwether_guest::grants::Grants;
use bellwether_guest::limits::Limits;
use bellwether_source::Reference;
use bellwether_source::signature::Trust;
use secrecy::SecretString;

use super::address::{Connect, HostPort};
use crate::admin::AdminAddress;

/// Settings of a group, names and values together: they are part of a release.
pub(crate) const MAX_CONFIG: usize = 256 << 10;

/// A whole manifest. All paths are absolute.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Where it was read from.
    pub path: PathBuf,
    /// `[node]`
    pub node: Node,
    /// `[coordination]`
    pub coordination: Coordination,
    /// `[sources]`
    pub sources: Sources,
    /// `[store]`
    pub store: Store,
    /// `[signatures]`
    pub signatures: Trust,
    /// `[dev]`
    pub dev: Dev,
    /// `[[group]]`, in the order in which they are written; never empty.
    pub groups: Vec<Group>,
}

/// `[node]`: who this node is and where it listens.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// What it tells other nodes to connect to. Port 0 stands for the port that `listen` is given at start.
    pub advertise: HostPort,
    /// What it listens on for other nodes. Port 0 takes a free port.
    pub listen: HostPort,
    /// The folder for what it keeps; may not exist yet.
    pub data_dir: PathBuf,
    /// Where the admin API listens.
    pub admin: AdminAddress,
    /// Whether a reaper clears away after a crash.
    pub reaper: bool,
    /// Mutual TLS between nodes.
    pub tls: Option<Tls>,
}

/// `node.tls`: PEM files that exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// This node's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that peers are checked against.
    pub ca: PathBuf,
}

/// `[sources]`: how components come from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// A PEM file of authorities beyond those that the machine trusts; it exists.
    pub ca: Option<PathBuf>,
    /// How long obtaining one component may take.
    pub timeout: Duration,
}

/// `[store]`: what is kept of components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Bytes of components.
    pub max: u64,
    /// Bytes of compiled code.
    pub compiled: u64,
}

/// `[dev]`: what `bellwether dev` does besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dev {
    /// How the components are built, if it shall do that.
    pub build: Option<Build>,
    /// How many nodes it starts with; at least 1.
    pub nodes: u16,
}

/// How components are built from sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// What `sh` is given.
    pub command: String,
    /// The files and folders that the components are built from. They exist if the manifest was read for `dev`.
    pub watch: Vec<PathBuf>,
}

/// `[coordination]`: the coordinator and the session.
#[derive(Debug, Clone)]
pub struct Coordination {
    /// Where the coordinator is.
    pub connect: Connect,
    /// The absolute znode path, below the chroot, that everything is kept under.
    pub root: String,
    /// The session timeout to ask for.
    pub session_timeout: Duration,
    /// The ensemble's `tickTime`.
    pub tick_time: Duration,
    /// Who this node is to ZooKeeper.
    pub auth: Option<DigestAuth>,
}

/// An identity of ZooKeeper's scheme `digest`.
#[derive(Debug, Clone)]
pub struct DigestAuth {
    /// The user.
    pub user: String,
    /// The password: not shown by `Debug`, not serialisable, wiped when dropped.
    pub password: SecretString,
}

/// `[[group]]`: one group that this node takes part in.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name, unique in the manifest.
    pub name: GroupName,
    /// What names the component. A file exists.
    pub component: Reference,
    /// The guest's settings.
    pub config: BTreeMap<String, String>,
    /// The labels of this node's member.
    pub labels: BTreeMap<String, String>,
    /// Who watches the registry.
    pub watch: Watch,
    /// Whether a change of the component's file starts a swap.
    pub watch_file: bool,
    /// Whether this node stands for election.
    pub candidate: bool,
    /// How the candidates' znodes are named.
    pub election_format: ElectionFormat,
    /// The znode that they lie in, if not the group's own.
    pub election_path: Option<String>,
    /// How tasks are done.
    pub worker: Worker,
    /// When the guest ticks, if it exports `ticker`.
    pub tick: TickConfig,
    /// How much the guest may use.
    pub limits: Limits,
    /// What the guest may reach.
    pub grants: Grants,
    /// What happens when it fails.
    pub on_failure: FailurePolicy,
    /// How a new release proves itself.
    pub probation: Probation,
}

/// `[group.worker]`: how tasks are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Tasks that run at once; at least 1.
    pub parallelism: u32,
    /// Tasks that may wait.
    pub queue: u32,
    /// Another component for the tasks.
    pub component: Option<Reference>,
}
