//! A cluster of real nodes: processes of `bellwether run` on a given ZooKeeper, each with a manifest and a folder of its own.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use bellwether_tests::{cluster::Cluster, guests::guest, zookeeper::Server};
//! let zookeeper = Server::start()?;
//! let cluster = Cluster::builder(zookeeper.address()).nodes(3).group("g", guest("probe"), "watch = \"all\"").start()?;
//! cluster.wait_ready()?;
//! let leader = cluster.wait_leader("g")?;
//! cluster.node(leader).kill();
//! let successor = cluster.wait_leader("g")?;
//! # Ok(()) }
//! ```
//!
//! All processes end with the [`Cluster`], and also when the test process ends in whatever way. When it is dropped it prints the
//! nodes' last lines, which the test harness shows if the test has failed (not with `BELLWETHER_TEST_REPORTS=none`).

mod log;
mod node;
pub(crate) mod process;

use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tempfile::TempDir;

pub use log::Line;
pub use node::Node;

/// How long anything may take that shall happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

type PerNode = Box<dyn Fn(usize) -> String>;

/// How a cluster is set up. In all texts for manifests `{id}` stands for the node's id, `{folder}` for its folder and
/// `{shared}` for the folder of the whole cluster.
pub struct Builder {
    nodes: usize,
    connect: PerNode,
    ids: PerNode,
    root: String,
    session_timeout: Duration,
    tick_time: Duration,
    node: String,
    coordination: String,
    groups: Vec<String>,
    wrapper: Box<dyn Fn(usize) -> Vec<String>>,
    env: Vec<(String, String)>,
}

impl Builder {
    /// How many nodes; their ids are `n0`, `n1`, … One otherwise.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Other ids.
    #[must_use]
    pub fn ids(mut self, ids: impl Fn(usize) -> String + 'static) -> Self {
        self.ids = Box::new(ids);
        self
    }

    /// A ZooKeeper for each node: `host:port,host:port/chroot`, as for a proxy between.
    #[must_use]
    pub fn connect(mut self, connect: impl Fn(usize) -> String + 'static) -> Self {
        self.connect = Box::new(connect);
        self
    }

    /// The root of the layout, `/bellwether` otherwise.
    #[must_use]
    pub fn root(mut self, root: &str) -> Self {
        root.clone_into(&mut self.root);
        self
    }

    /// The session timeout; 2 s otherwise.
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// The ensemble's tickTime; 200 ms otherwise, as [`crate::zookeeper::Options`] has it.
    #[must_use]
    pub fn tick_time(mut self, tick: Duration) -> Self {
        self.tick_time = tick;
        self
    }

    /// More lines for `[node]`. Without a word about it, a node has no reaper here: killed, it is as silent as a machine that fails.
    #[must_use]
    pub fn node(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.node);
        self
    }

    /// More lines for `[coordination]`, and its tables.
    #[must_use]
    pub fn coordination(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.coordination);
        self
    }

    /// A group with this component (`{shared}` and the like may stand in its path), and more lines for its `[[group]]`: first
    /// keys, then tables such as `[group.config]`. The component's file is watched only if the lines say `watch_file = true`.
    #[must_use]
    pub fn group(mut self, name: &str, component: impl AsRef<Path>, toml: &str) -> Self {
        let component = component.as_ref().display().to_string();
        let watch = if toml.contains("watch_file") { "" } else { "watch_file = false\n" };
        self.groups.push(format!("[[group]]\nname = {name:?}\ncomponent = {component:?}\n{watch}{toml}\n"));
        self
    }

    /// A program for each node that runs `bellwether` in its own place: `["ip", "netns", "exec", …]`.
    #[must_use]
    pub fn wrapper(mut self, wrapper: impl Fn(usize) -> Vec<String> + 'static) -> Self {
        self.wrapper = Box::new(wrapper);
        self
    }

    /// A variable of the nodes' environment; `BELLWETHER_LOG`, for one, says what they log.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes the folders and manifests; starts nothing.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn prepare(self) -> Result<Cluster> {
        // Short: the path of a socket may have no more than 107 bytes.
        let folder = TempDir::with_prefix("bw-")?;
        let mut nodes = Vec::with_capacity(self.nodes);
        for index in 0..self.nodes {
            let id = (self.ids)(index);
            // By number, for two nodes may be told to have the same id.
            let own = folder.path().join(index.to_string());
            std::fs::create_dir(&own)?;
            let manifest = self
                .manifest(index, &id)
                .replace("{id}", &id)
                .replace("{folder}", &own.display().to_string())
                .replace("{shared}", &folder.path().display().to_string());
            std::fs::write(own.join("bellwether.toml"), manifest)?;
            nodes.push(Node::new(id, own, (self.wrapper)(index), self.env.clone()));
        }
        Ok(Cluster { nodes, folder })
    }

    fn manifest(&self, index: usize, id: &str) -> String {
        // What the test says itself counts.
        let default = |toml: &str, key: &str, line: String| {
            let given = toml
                .lines()
                .take_while(|line| !line.starts_with('['))
                .any(|line| line.split_once('=').is_some_and(|(name, _)| name.trim() == key));
            if given { String::new() } else { format!("{key} = {line}\n") }
        };
        let mut toml = format!("[node]\nid = {id:?}\n");
        toml += &default(&self.node, "data_dir", "\"{folder}/data\"".to_owned());
        toml += &default(&self.node, "admin", "\"unix:{folder}/admin.sock\"".to_owned());
        toml += &default(&self.node, "reaper", "false".to_owned());
        toml += &self.node;
        toml += "\n[coordination]\n";
        toml += &default(&self.coordination, "connect", format!("\"zookeeper://{}\"", (self.connect)(index)));
        toml += &default(&self.coordination, "root", format!("{:?}", self.root));
        toml += &default(&self.coordination, "session_timeout", format!("\"{}ms\"", self.session_timeout.as_millis()));
        toml += &default(&self.coordination, "tick_time", format!("\"{}ms\"", self.tick_time.as_millis()));
        toml += &self.coordination;
        toml += "\n";
        toml += &self.groups.concat();
        toml
    }

    /// Makes everything and starts all nodes. It does not wait for them: see [`Cluster::wait_ready`].
    ///
    /// # Errors
    /// When files cannot be written or processes not be started.
    pub fn start(self) -> Result<Cluster> {
        let cluster = self.prepare()?;
        cluster.nodes.iter().try_for_each(Node::start)?;
        Ok(cluster)
    }
}

/// Some nodes on one ZooKeeper.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    folder: TempDir,
}

impl Cluster {
    /// Begins to set a cluster up on the ZooKeeper at `host:port,host:port/chroot`.
    #[must_use]
    pub fn builder(zookeeper: impl Display) -> Builder {
        let zookeeper = zookeeper.to_string();
        Builder {
            nodes: 1,
            connect: Box::new(move |_| zookeeper.clone()),
            ids: Box::new(|index| format!("n{index}")),
            root: "/bellwether".to_owned(),
            session_timeout: Duration::from_secs(2),
            tick_time: Duration::from_millis(200),
            node: String::new(),
            coordination: String::new(),
            groups: Vec::new(),
            wrapper: Box::new(|_| Vec::new()),
            env: Vec::new(),
        }
    }

    /// One of the nodes, from 0.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// All nodes, running or not.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The folder of the whole cluster; gone with it.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The nodes that are awake and say that they lead `group`.
    #[must_use]
    pub fn leaders(&self, group: &str) -> Vec<usize> {
        let leads = |node: &Node| node.is_awake() && node.role(group).as_deref() == Some("leader");
        (0..self.nodes.len()).filter(|index| leads(&self.nodes[*index])).collect()
    }

    /// The node that leads `group`; none if none does, or several say so.
    #[must_use]
    pub fn leader(&self, group: &str) -> Option<usize> {
        match self.leaders(group).as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// Calls `look` again and again until it finds something.
    ///
    /// # Errors
    /// When it does not in time; with the nodes' last lines.
    pub fn wait_for<T>(&self, what: &str, patience: Duration, mut look: impl FnMut(&Self) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("waited {patience:?} in vain for {what}\n{}", self.report());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `look` holds.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_until(&self, what: &str, mut look: impl FnMut(&Self) -> bool) -> Result<()> {
        self.wait_for(what, PATIENCE, |cluster| look(cluster).then_some(()))
    }

    /// Waits until exactly one of the nodes that are awake leads `group`, and gives it.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_leader(&self, group: &str) -> Result<usize> {
        self.wait_for(&format!("a leader of {group}"), PATIENCE, |cluster| cluster.leader(group))
    }

    /// Waits until another node than `former` leads `group`, and gives it.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_successor(&self, group: &str, former: usize) -> Result<usize> {
        self.wait_for(&format!("a successor of {} in {group}", self.nodes[former].id()), PATIENCE, |cluster| {
            cluster.leader(group).filter(|leader| *leader != former)
        })
    }

    /// Waits until every node that is awake stands in all of its groups, and each of these groups has one leader.
    ///
    /// # Errors
    /// When that does not happen in time, or a node ends.
    pub fn wait_ready(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let awake: Vec<&Node> = self.nodes.iter().filter(|node| node.is_awake()).collect();
        loop {
            let statuses: Vec<_> = awake.iter().filter_map(|node| node.status().ok()).collect();
            let mut leaders = std::collections::BTreeMap::new();
            let groups = statuses.iter().filter_map(|status| status["groups"].as_array()).flatten();
            let mut standing = statuses.len() == awake.len();
            for group in groups {
                let role = group["role"].as_str().unwrap_or_default();
                standing &= matches!(role, "leader" | "worker");
                *leaders.entry(group["name"].to_string()).or_insert(0) += usize::from(role == "leader");
            }
            if standing && leaders.values().all(|count| *count == 1) {
                return Ok(());
            }
            if let Some(node) = awake.iter().find(|node| !node.runs()) {
                bail!("{} has ended instead of becoming ready\n{}", node.id(), self.report());
            }
            if Instant::now() > deadline {
                bail!("the nodes were not ready within {PATIENCE:?}: {statuses:#?}\n{}", self.report());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What became of all nodes, for a person.
    #[must_use]
    pub fn report(&self) -> String {
        self.nodes.iter().fold(String::new(), |mut text, node| {
            let _ = writeln!(text, "{}", node.report());
            text
        })
    }
}

impl Drop for Cluster {
    #[allow(clippy::print_stderr, reason = "the test harness keeps it, and shows it if the test has failed")]
    fn drop(&mut self) {
        // The benchmarks have no such harness, and progress to tell.
        if std::env::var_os("BELLWETHER_TEST_REPORTS").is_none_or(|wanted| wanted != "none") {
            eprintln!("{}", self.report());
        }
    }
}
