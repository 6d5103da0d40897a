//! A server, a group of nodes on it, and components to deploy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cli::{Cli, Ran};
use bellwether_tests::cluster::{Builder, Cluster, Node};
use bellwether_tests::guests::guest_bytes;
use bellwether_tests::znodes::{Znode, Znodes};
use bellwether_tests::zookeeper::Server;
use serde_json::Value;
use tempfile::TempDir;

pub const GROUP: &str = "g";

/// How long a release is on probation in these tests.
pub const PROBATION: Duration = Duration::from_secs(1);

/// How long a whole rollout may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Components that do the same and are not the same release: each has a section of its own, of no meaning.
pub struct Components {
    folder: TempDir,
}

impl Components {
    pub fn new() -> Result<Self> {
        Ok(Self { folder: TempDir::with_prefix("bw-")? })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The guest `name` under another name, made if it is not there yet.
    pub fn variant(&self, name: &str, variant: u8) -> Result<PathBuf> {
        let path = self.folder.path().join(format!("{name}-{variant}.wasm"));
        if !path.exists() {
            let mut bytes = guest_bytes(name);
            bytes.extend([0, 3, 1, b'v', variant]);
            std::fs::write(&path, &bytes)?;
        }
        Ok(path)
    }
}

pub struct Bed {
    // Dropped in this order: nodes that lose their server would only fill their logs.
    pub cluster: Cluster,
    pub znodes: Znodes,
    pub components: Components,
    _zookeeper: Server,
}

impl Bed {
    /// Nodes that have not been started, whose manifest names the first variant of the probe. `toml` is more for the group: keys, then
    /// tables.
    pub fn prepare(nodes: usize, toml: impl FnOnce(&Components) -> String) -> Result<Self> {
        let components = Components::new()?;
        let first = components.variant("probe", 1)?;
        let toml = toml(&components);
        Self::with(nodes, components, |builder| {
            let probation = format!("[group.probation]\nlasts = \"{}ms\"\n", PROBATION.as_millis());
            builder.group(GROUP, &first, &format!("{toml}{probation}"))
        })
    }

    /// Nodes that have not been started, with these groups.
    pub fn with(nodes: usize, components: Components, groups: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let zookeeper = Server::start()?;
        let znodes = Znodes::of(zookeeper.address());
        let builder = Cluster::builder(zookeeper.address()).nodes(nodes).session_timeout(Duration::from_secs(4));
        let cluster = groups(builder).prepare()?;
        Ok(Self { cluster, znodes, components, _zookeeper: zookeeper })
    }

    /// Nodes that run.
    pub fn start(nodes: usize, toml: impl FnOnce(&Components) -> String) -> Result<Self> {
        let bed = Self::prepare(nodes, toml)?;
        bed.cluster.nodes().iter().try_for_each(Node::start)?;
        bed.cluster.wait_ready()?;
        Ok(bed)
    }

    pub fn leader(&self) -> Result<&Node> {
        Ok(self.cluster.node(self.cluster.wait_leader(GROUP)?))
    }

    /// A node that does not lead.
    pub fn worker(&self) -> Result<&Node> {
        let leader = self.cluster.wait_leader(GROUP)?;
        let other = (0..self.cluster.nodes().len()).find(|index| *index != leader);
        Ok(self.cluster.node(other.context("there is only one node")?))
    }

    /// The znode of the group's document.
    pub fn release(&self) -> Result<Znode> {
        self.znodes.get(&format!("/bellwether/{GROUP}/release"))?.context("there is no znode for the document")
    }

    pub fn document(&self) -> Result<Value> {
        Ok(self.release()?.json())
    }

    /// Waits until the document is such.
    pub fn wait_document<T>(&self, what: &str, look: impl Fn(&Value) -> Option<T>) -> Result<T> {
        self.cluster.wait_for(what, PATIENCE, |_| look(&self.document().ok()?))
    }

    /// Waits until a rollout has come to its end, and gives what the history says of it.
    pub fn wait_end(&self, number: u64) -> Result<Value> {
        let what = format!("the end of release {number}");
        self.wait_document(&what, |document| {
            let past = document["history"].as_array()?.iter().find(|past| past["number"] == number)?;
            document["rollout"].is_null().then(|| past.clone())
        })
    }

    /// The digests of what the nodes that are awake run, each with the node's id.
    pub fn running(&self) -> Result<Vec<(String, String)>> {
        let awake = self.cluster.nodes().iter().filter(|node| node.is_awake());
        awake.map(|node| Ok((node.id().to_owned(), digest(node)?))).collect()
    }

    /// Asserts that all nodes that are awake run the component with this digest.
    #[track_caller]
    pub fn assert_all_run(&self, digest: &str) -> Result<()> {
        let running = self.running()?;
        let others: Vec<_> = running.iter().filter(|(_, runs)| runs != digest).collect();
        assert!(others.is_empty(), "they shall run {digest}, and do not: {others:?}");
        Ok(())
    }

    /// How a node stands in the rollout, as any node tells it.
    pub fn told(&self, by: &Node, about: &str) -> Result<Value> {
        let nodes = rollout(by)?["nodes"].clone();
        let nodes = nodes.as_array().context("no nodes")?;
        let found = nodes.iter().find(|node| node["node"] == about);
        found.cloned().with_context(|| format!("{about} is not among {nodes:?}"))
    }
}

/// The digest of what a node runs.
pub fn digest(node: &Node) -> Result<String> {
    Ok(node.group(GROUP)?["release"]["digest"].as_str().context("it runs nothing")?.to_owned())
}

/// What a node tells of the group's releases.
pub fn rollout(node: &Node) -> Result<Value> {
    let (code, body) = node.http("GET", &format!("/v1/nodes/{}/groups/{GROUP}/rollout", node.id()), "")?;
    ensure!(code == 200, "{}: {code} {body}", node.id());
    Ok(serde_json::from_str(&body)?)
}

/// Calls a verb that may take as long as a rollout does.
pub fn call(node: &Node, arguments: &[&str]) -> Result<Ran> {
    let cli = Cli::new().folder(node.folder()).env("BELLWETHER_ADMIN", node.admin()).env("SUDO_USER", "ada");
    cli.patience(PATIENCE).run(arguments.iter().copied())
}

/// Deploys a component by way of a node, waits for the end, and gives what was planned.
pub fn deploy(node: &Node, component: &Path, more: &[&str]) -> Result<Value> {
    let component = component.display().to_string();
    let mut arguments = vec!["deploy", GROUP, &component, "--wait", "--json"];
    arguments.extend(more);
    let out = call(node, &arguments)?.ok()?;
    let first = out.lines().next().context("nothing was said")?;
    Ok(serde_json::from_str(first)?)
}

/// The digest of what a plan would roll out.
pub fn planned_digest(planned: &Value) -> Result<&str> {
    planned["to"]["wanted"]["component"]["digest"].as_str().context("no digest")
}
