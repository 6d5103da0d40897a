//! A cluster whose leaders have effects all the time, and the history of what it did.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::checker::{self, History, Kind, Summary, at_rest};
use crate::cluster::{Builder, Cluster, PATIENCE};
use crate::guests::guest;

/// The group whose leader writes at every tick, …
pub const WRITES: &str = "writes";
/// … and the one whose leader hands a task to every node, and logs what came of it.
pub const TASKS: &str = "tasks";

/// Adds the two groups, and has effects logged.
#[must_use]
pub fn busy(builder: Builder) -> Builder {
    let toml = |order: &str| format!("[group.tick]\nevery = \"50ms\"\n[group.config]\non-tick = \"{order}\"");
    builder
        .group(WRITES, guest("probe"), &toml("put beat x"))
        .group(TASKS, guest("probe"), &toml("tell scatter 5 2000"))
        .env("BELLWETHER_LOG", checker::LOG)
}

/// The nodes and what they did.
#[derive(Debug)]
pub struct Busy {
    /// The nodes.
    pub cluster: Cluster,
    /// What they did, as of the last look.
    pub history: History,
}

impl Busy {
    /// Begins with an empty history.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, history: History::default() }
    }

    /// Starts all nodes, and waits until they are at rest.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn start(&self) -> Result<()> {
        self.cluster.nodes().iter().try_for_each(|node| node.start())?;
        self.rest().map(drop)
    }

    /// Waits until each group has one leader that knows all others as members; gives the leader of [`WRITES`].
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn rest(&self) -> Result<usize> {
        at_rest(&self.cluster, TASKS)?;
        at_rest(&self.cluster, WRITES)
    }

    /// The id of a node.
    #[must_use]
    pub fn id(&self, node: usize) -> String {
        self.cluster.node(node).id().to_owned()
    }

    /// The epoch of the node's own term in [`WRITES`]; none if it does not lead.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn epoch(&self, node: usize) -> Result<Option<u64>> {
        Ok(self.cluster.node(node).group(WRITES)?["epoch"].as_u64())
    }

    /// The node's session, as its status has it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn session(&self, node: usize) -> Result<serde_json::Value> {
        Ok(self.cluster.node(node).status()?["session"].clone())
    }

    /// How many writes and tasks of leaders have been accepted so far.
    fn effects(&mut self) -> (usize, usize) {
        self.history.read(&self.cluster);
        let count =
            |matches: fn(&Kind) -> bool| self.history.effects().iter().filter(|effect| matches(&effect.kind)).count();
        (count(|kind| matches!(kind, Kind::Write(..))), count(|kind| *kind == Kind::Task))
    }

    /// Waits until leaders have had more effects of both kinds.
    ///
    /// # Errors
    /// When they have none.
    pub fn work(&mut self) -> Result<()> {
        let before = self.effects();
        self.wait("more effects", |busy| {
            let now = busy.effects();
            now.0 > before.0 + 3 && now.1 > before.1 + 3
        })
    }

    fn wait(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}\n{}", self.cluster.report());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until `holds` says so of the history.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_history(&mut self, what: &str, holds: impl Fn(&History) -> bool) -> Result<()> {
        self.wait(what, |busy| {
            busy.history.read(&busy.cluster);
            holds(&busy.history)
        })
    }

    /// Waits until a node other than `former` was told in [`WRITES`] of a term after `epoch`, and gives the time.
    ///
    /// # Errors
    /// When none is.
    pub fn wait_successor(&mut self, former: usize, epoch: u64) -> Result<u64> {
        let former = self.id(former);
        let after = |history: &History| {
            let terms = history.terms().into_iter();
            let later = terms.filter(|term| term.group == WRITES && term.epoch > epoch && term.node != former);
            later.map(|term| term.from).min()
        };
        self.wait_history("a successor", |history| after(history).is_some())?;
        Ok(after(&self.history).unwrap_or_default())
    }

    /// Waits until the node's guest does not believe any more that it leads [`WRITES`] with `epoch`, and gives the time.
    ///
    /// # Errors
    /// When it goes on believing.
    pub fn wait_demoted(&mut self, node: usize, epoch: u64) -> Result<u64> {
        let id = self.id(node);
        let ended = |history: &History| {
            let mut terms = history.terms().into_iter();
            terms.find(|term| term.group == WRITES && term.node == id && term.epoch == epoch).map(|term| term.until)
        };
        self.wait_history("the end of a term", |history| ended(history).is_some_and(|until| until != u64::MAX))?;
        Ok(ended(&self.history).unwrap_or_default())
    }

    /// Kills a node, and notes when.
    pub fn kill(&mut self, node: usize) {
        let from = checker::now_ns();
        self.cluster.node(node).kill();
        self.history.killed(self.cluster.node(node).id(), from, checker::now_ns());
    }

    /// Lets a node go on that was paused at `from`, and notes it; gives the time.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self, node: usize, from: u64) -> Result<u64> {
        self.cluster.node(node).resume()?;
        let to = checker::now_ns();
        self.history.paused(self.cluster.node(node).id(), from, to);
        Ok(to)
    }

    /// Judges all that has happened so far.
    ///
    /// # Errors
    /// When something happened that must not.
    pub fn check(&mut self) -> Result<Summary> {
        self.history.read(&self.cluster);
        self.history.check()
    }

    /// Waits until the cluster is at rest and has effects, sees that every node runs, and judges all that has happened.
    ///
    /// # Errors
    /// When it does not come to rest, or something happened that must not.
    pub fn conclude(&mut self) -> Result<Summary> {
        self.rest()?;
        self.work()?;
        for node in self.cluster.nodes() {
            ensure!(node.is_awake(), "{} has ended by itself\n{}", node.id(), node.report());
        }
        self.check()
    }
}
