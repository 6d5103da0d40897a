//! A server, a proxy before it for each node, the nodes, and the history of what they did.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_tests::busy::Busy;
pub use bellwether_tests::busy::{TASKS, WRITES, busy};
use bellwether_tests::checker::Summary;
pub use bellwether_tests::cluster::PATIENCE;
use bellwether_tests::cluster::{Builder, Cluster};
use bellwether_tests::proxy::{Proxy, Request, op};
use bellwether_tests::znodes::Znodes;
use bellwether_tests::zookeeper::Server;

/// The session timeout: long enough that a busy machine does not look like a fault.
pub const T: Duration = Duration::from_secs(3);

/// A claim: the multi that is no write of a guest's.
pub fn is_claim(request: &Request<'_>) -> bool {
    request.op == op::MULTI && request.mentions("/epoch") && !request.mentions("/state/")
}

/// A leader's fenced write.
pub fn is_state_write(request: &Request<'_>) -> bool {
    request.op == op::MULTI && request.mentions("/state/")
}

pub struct Bed {
    // Dropped in this order: nodes that lose their server would only fill their logs.
    busy: Busy,
    pub znodes: Znodes,
    pub proxies: Vec<Proxy>,
    pub zookeeper: Server,
}

impl Deref for Bed {
    type Target = Busy;
    fn deref(&self) -> &Busy {
        &self.busy
    }
}

impl DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut Busy {
        &mut self.busy
    }
}

impl Bed {
    /// Busy nodes, at rest.
    pub fn start(nodes: usize) -> Result<Self> {
        let bed = Self::prepare(nodes, busy)?;
        bed.busy.start()?;
        Ok(bed)
    }

    /// Nodes that have not been started.
    pub fn prepare(nodes: usize, groups: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        Self::prepare_on(Server::start()?, nodes, groups)
    }

    /// The same on a server of the test's own.
    pub fn prepare_on(zookeeper: Server, nodes: usize, groups: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let proxies: Vec<Proxy> = (0..nodes).map(|_| Proxy::start(zookeeper.address())).collect::<Result<_>>()?;
        let addresses: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
        let builder = Cluster::builder(zookeeper.address()).nodes(nodes).session_timeout(T);
        let cluster = groups(builder.connect(move |index| addresses[index].clone())).prepare()?;
        let znodes = Znodes::of(zookeeper.address());
        Ok(Self { busy: Busy::new(cluster), znodes, proxies, zookeeper })
    }

    /// At rest again, with effects going on and no ghosts: judges all that has happened.
    pub fn conclude(&mut self) -> Result<Summary> {
        self.rest()?;
        self.no_ghosts()?;
        self.busy.conclude()
    }

    /// Each node that is awake has one candidate and, unless it leads, one member; nobody else has.
    fn no_ghosts(&self) -> Result<()> {
        let awake = self.cluster.nodes().iter().filter(|node| node.is_awake()).count();
        let count = |path: &str, like: &str| {
            let names = self.znodes.children(path).ok().flatten().unwrap_or_default();
            names.iter().filter(|name| name.contains(like)).count()
        };
        for group in [WRITES, TASKS] {
            self.cluster.wait_until("the ghosts to be gone", |_| {
                count(&format!("/bellwether/{group}/election"), "-n_") == awake
                    && count(&format!("/bellwether/{group}/service_registry"), "m_") == awake - 1
            })?;
        }
        Ok(())
    }

    /// Deletes a znode and all below it, as far as nobody makes it anew meanwhile.
    pub fn delete_all(&self, path: &str) -> Result<()> {
        for name in self.znodes.children(path)?.unwrap_or_default() {
            self.delete_all(&format!("{path}/{name}"))?;
        }
        // A node may have been faster, with a deletion or with a new child.
        let _ = self.znodes.delete(path);
        Ok(())
    }

    /// The candidate's znode of a node in [`WRITES`].
    pub fn candidate(&self, node: usize) -> Result<String> {
        let (parent, prefix) = (format!("/bellwether/{WRITES}/election"), format!("{}-", self.id(node)));
        let names = self.znodes.children(&parent)?.unwrap_or_default();
        let name = names.into_iter().find(|name| name.starts_with(&prefix)).context("the node has no candidate")?;
        Ok(format!("{parent}/{name}"))
    }
}
