//! The nodes of the process: they come, are killed, leave, and are swapped together.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bellwether_coordination::Coordinator;
use bellwether_core::id::{GroupName, NodeId};
use bellwether_source::Reference;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{oneshot, watch};

use crate::admin::{Answer, Control, ControlError, Nodes, SwapOutcome};
use crate::control::NodeControl;
use crate::driver::Ended;
use crate::error::{NodeError, NodeErrorKind};
use crate::manifest::{HostPort, Manifest};
use crate::run::outcome;
use crate::shared::lock;
use crate::start::{Process, Running};

/// A node of this process, and the ways to end it: as a crash would, or in good order.
struct Resident {
    number: usize,
    control: Arc<NodeControl>,
    kill: Option<oneshot::Sender<()>>,
    stop: Option<oneshot::Sender<()>>,
}

/// The nodes that run now, by their numbers.
#[derive(Default)]
pub(super) struct Residents {
    running: Mutex<Vec<Resident>>,
    /// How many swaps have taken their nodes from the list.
    swaps: AtomicUsize,
}

impl Residents {
    fn controls(&self) -> Vec<Arc<NodeControl>> {
        lock(&self.running).iter().map(|resident| resident.control.clone()).collect()
    }

    /// Ends a node as a crash would; whether there was one.
    fn end(&self, node: &NodeId) -> bool {
        let mut residents = lock(&self.running);
        let found = residents.iter_mut().find(|resident| resident.control.id == *node);
        let killed = found.and_then(|resident| resident.kill.take()).is_some_and(|kill| kill.send(()).is_ok());
        residents.retain(|resident| resident.control.id != *node);
        killed
    }

    async fn leader(&self, group: &GroupName) -> Option<Arc<NodeControl>> {
        let controls = self.controls();
        let leads = join_all(controls.iter().map(|control| control.leads(group))).await;
        controls.into_iter().zip(leads).find_map(|(control, leads)| leads.then_some(control))
    }

    /// Whether a node runs, and shall go on.
    fn stays(&self, node: &NodeId) -> bool {
        lock(&self.running).iter().any(|resident| resident.control.id == *node && resident.stop.is_some())
    }

    /// Swaps the group to what is now in the file of `component`, on all nodes: the leader last, and not if it failed elsewhere.
    pub async fn swap(&self, group: &GroupName, component: &Reference) {
        let began = Instant::now();
        let leader = self.leader(group).await.map(|control| control.id.clone());
        let controls = self.controls();
        self.swaps.fetch_add(1, Ordering::SeqCst);
        if controls.is_empty() {
            // Whoever is started next finds it.
            return;
        }
        tracing::info!(%group, "swapping the new component in");
        let (last, first): (Vec<_>, Vec<_>) =
            controls.into_iter().partition(|control| Some(&control.id) == leader.as_ref());
        let (mut swapped, mut unchanged, mut failed) = (0, 0, Vec::new());
        for part in [first, last] {
            if !failed.is_empty() {
                failed.extend(part.iter().map(|control| control.id.to_string()));
                break;
            }
            let reports = join_all(part.iter().map(|control| control.swap_to(group, component))).await;
            for (control, report) in part.iter().zip(reports) {
                match report {
                    // Whoever has been killed meanwhile, or leaves, does not count.
                    _ if !self.stays(&control.id) => {}
                    Ok(report) if report.outcome == SwapOutcome::RolledBack => failed.push(control.id.to_string()),
                    Ok(report) if report.release != report.from => swapped += 1,
                    Ok(_) => unchanged += 1,
                    Err(error) => {
                        // An outcome is logged by the core; what it would not even try has to be said here.
                        tracing::warn!(node = %control.id, %group, "not swapped: {error}");
                        failed.push(control.id.to_string());
                    }
                }
            }
        }
        if !failed.is_empty() {
            tracing::warn!(%group, "not swapped on {}: what ran there goes on", failed.join(", "));
        } else if swapped > 0 {
            let (nodes, took) = (if swapped == 1 { "node" } else { "nodes" }, began.elapsed().as_secs_f64());
            tracing::info!(%group, "swapped on {swapped} {nodes} in {took:.1} s");
        } else if unchanged > 0 {
            tracing::info!(%group, "the component is what runs already: nothing to swap");
        }
    }
}

impl Nodes for Residents {
    fn list(&self) -> Vec<Arc<dyn Control>> {
        lock(&self.running).iter().map(|resident| resident.control.clone() as Arc<dyn Control>).collect()
    }

    fn kill(&self, node: NodeId) -> Answer<'_, ()> {
        let known = self.controls().iter().map(|control| control.id.to_string()).collect();
        let killed = self.end(&node);
        async move { if killed { Ok(()) } else { Err(ControlError::UnknownNode { name: node.to_string(), known }) } }
            .boxed()
    }
}

enum Happened {
    Started {
        /// None if that was given up, because all stop.
        node: Option<Result<Running, NodeError>>,
        /// How many swaps had taken their nodes before it read its component.
        swaps: usize,
    },
    Ended(Result<(), NodeError>),
}

/// How far the nodes have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// One has come or gone.
    One,
    /// Those to begin with have all come up.
    Begun,
    /// One has failed so that the others must stop.
    Failed,
}

/// All that begins, runs and ends.
pub(super) struct Cluster<'a> {
    process: &'a Process,
    manifest: &'a Manifest,
    coordinator: Arc<dyn Coordinator>,
    residents: Arc<Residents>,
    happening: FuturesUnordered<BoxFuture<'a, (usize, Happened)>>,
    /// The numbers of nodes that begin, run or end.
    taken: BTreeSet<usize>,
    /// Of the nodes to begin with, the one that is being started, and how many they are.
    beginning: Option<(usize, usize)>,
    stopping: watch::Sender<bool>,
    result: Result<(), NodeError>,
}

impl<'a> Cluster<'a> {
    pub fn new(
        process: &'a Process,
        manifest: &'a Manifest,
        coordinator: Arc<dyn Coordinator>,
        residents: Arc<Residents>,
    ) -> Self {
        let (happening, taken) = (FuturesUnordered::new(), BTreeSet::new());
        let (beginning, stopping, result) = (None, watch::Sender::new(false), Ok(()));
        Self { process, manifest, coordinator, residents, happening, taken, beginning, stopping, result }
    }

    pub fn residents(&self) -> Arc<Residents> {
        self.residents.clone()
    }

    /// Whether no node begins, runs or ends.
    pub fn is_empty(&self) -> bool {
        self.happening.is_empty()
    }

    /// Starts the first nodes, one after the other.
    pub fn begin(&mut self, count: usize) {
        self.taken.extend(1..=count);
        self.beginning = Some((1, count));
        self.launch(1);
    }

    /// Starts another node, of the lowest number that is free: one that was killed comes back.
    pub fn add(&mut self) {
        let number = (1..).find(|number| !self.taken.contains(number)).unwrap_or_default();
        tracing::info!("starting {}", id(self.manifest, number));
        self.taken.insert(number);
        self.launch(number);
    }

    fn launch(&self, number: usize) {
        let (process, manifest, coordinator) = (self.process, self.manifest, self.coordinator.clone());
        let swaps = self.residents.swaps.load(Ordering::SeqCst);
        let mut stopping = self.stopping.subscribe();
        let starting = async move {
            let node = tokio::select! {
                biased;
                _ = stopping.wait_for(|stops| *stops) => None,
                node = start(process, manifest, number, coordinator) => Some(node),
            };
            (number, Happened::Started { node, swaps })
        };
        self.happening.push(starting.boxed());
    }

    fn stops(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Has a node that came too late for a swap run what is in the files now: it may have read them before.
    fn catch_up(&self, node: Arc<NodeControl>) {
        let groups = files(self.manifest);
        tokio::spawn(async move {
            for (group, component) in groups {
                // What runs already is not swapped.
                if let Err(error) = node.swap_to(&group, &component).await {
                    tracing::warn!(node = %node.id, %group, "not swapped: {error}");
                }
            }
        });
    }

    /// The node runs, and has what came of the first `swaps` swaps; the next one takes it.
    fn enter(&mut self, number: usize, node: Running, swaps: usize) {
        let (kill, killed) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        // Without one, the node stops at once: one that came up too late.
        let stop = (!self.stops()).then_some(stop);
        let mut residents = lock(&self.residents.running);
        residents.push(Resident { number, control: node.control.clone(), kill: Some(kill), stop });
        residents.sort_by_key(|resident| resident.number);
        drop(residents);
        if self.residents.swaps.load(Ordering::SeqCst) != swaps {
            self.catch_up(node.control.clone());
        }
        self.happening.push(async move { (number, Happened::Ended(reside(node, killed, stopped).await)) }.boxed());
    }

    /// Waits for the next node that has come up or ended; none if nothing is left.
    pub async fn happened(&mut self) -> Option<Progress> {
        let (number, happened) = self.happening.next().await?;
        let first = self.beginning.filter(|(first, _)| *first == number);
        match happened {
            Happened::Started { node: Some(Ok(node)), swaps } => {
                self.enter(number, node, swaps);
                if let Some((_, count)) = first {
                    self.beginning = (number < count).then_some((number + 1, count));
                    if self.beginning.is_none() {
                        return Some(Progress::Begun);
                    }
                    self.launch(number + 1);
                }
            }
            Happened::Started { node: None, .. } => drop(self.taken.remove(&number)),
            Happened::Started { node: Some(Err(error)), .. } if first.is_some() => {
                // Those that run already leave in good order.
                self.result = Err(error);
                return Some(Progress::Failed);
            }
            Happened::Started { node: Some(Err(error)), .. } => {
                self.taken.remove(&number);
                tracing::error!(node = %id(self.manifest, number), "cannot be started: {error}");
            }
            Happened::Ended(ended) => {
                self.taken.remove(&number);
                lock(&self.residents.running).retain(|resident| resident.number != number);
                if let Err(error) = ended {
                    self.result = std::mem::replace(&mut self.result, Ok(())).and(Err(error));
                    return Some(Progress::Failed);
                }
            }
        }
        Some(Progress::One)
    }

    /// Has all nodes leave in good order; whether they were not told already.
    pub fn stop(&mut self) -> bool {
        let first = !self.stopping.send_replace(true);
        lock(&self.residents.running).iter_mut().for_each(|resident| drop(resident.stop.take()));
        first
    }

    /// Ends the node that leads, as a crash would.
    pub async fn kill_leader(&self, group: &GroupName) {
        if let Some(leader) = self.leader(group).await {
            self.residents.end(&leader.id);
        }
    }

    /// Has the node that leads resign.
    pub async fn resign_leader(&self, group: &GroupName) {
        let Some(leader) = self.leader(group).await else { return };
        let group = group.clone();
        // Apart, for it is answered only while the coordinator answers.
        tokio::spawn(async move {
            if let Err(error) = leader.resign(group).await {
                tracing::warn!(node = %leader.id, "did not resign: {error}");
            }
        });
    }

    async fn leader(&self, group: &GroupName) -> Option<Arc<NodeControl>> {
        let leader = self.residents.leader(group).await;
        if leader.is_none() {
            tracing::warn!(%group, "no node leads at the moment");
        }
        leader
    }

    /// Has the node that came last leave in good order, a worker if there is one.
    pub async fn remove(&self, group: &GroupName) {
        let leader = self.residents.leader(group).await.map(|leader| leader.id.clone());
        let mut residents = lock(&self.residents.running);
        let staying = residents.iter_mut().filter(|resident| resident.stop.is_some());
        match staying.max_by_key(|resident| (Some(&resident.control.id) != leader.as_ref(), resident.number)) {
            Some(resident) => {
                tracing::info!(node = %resident.control.id, "leaving");
                drop(resident.stop.take());
            }
            None => tracing::warn!("there is no node that could leave"),
        }
    }

    /// The error of the first that failed.
    pub fn result(self) -> Result<(), NodeError> {
        self.result
    }
}

/// The groups whose component is a file, and that.
pub(super) fn files(manifest: &Manifest) -> Vec<(GroupName, Reference)> {
    let groups = manifest.groups.iter().filter(|group| group.component.file().is_some());
    groups.map(|group| (group.name.clone(), group.component.clone())).collect()
}

fn id(manifest: &Manifest, number: usize) -> String {
    format!("{}-{number}", manifest.node.id)
}

async fn start(
    process: &Process,
    manifest: &Manifest,
    number: usize,
    coordinator: Arc<dyn Coordinator>,
) -> Result<Running, NodeError> {
    let node = numbered(manifest, number, &manifest.node.data_dir)?;
    Running::start(process, &node, coordinator).await
}

fn numbered(manifest: &Manifest, number: usize, data: &Path) -> Result<Manifest, NodeError> {
    let mut node = manifest.clone();
    let id = id(manifest, number);
    node.node.id = NodeId::new(&id).map_err(|error| NodeError::new(NodeErrorKind::Manifest, error.to_string()))?;
    let any = HostPort { host: manifest.node.listen.host.clone(), port: 0 };
    node.node.listen = any;
    node.node.advertise.port = 0;
    node.node.data_dir = data.join(id);
    Ok(node)
}

/// Lives until the node ends, is told to stop, or is killed.
async fn reside(
    mut node: Running,
    killed: oneshot::Receiver<()>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), NodeError> {
    let ended = tokio::select! {
        // A node that is killed is told to stop as well, since nobody holds the other end any more.
        biased;
        ended = node.ended() => ended?,
        Ok(()) = killed => {
            tracing::warn!(node = %node.control.id, "killed");
            node.crash().await;
            return Ok(());
        }
        // Told to, or because another node has failed.
        _ = stopped => {
            node.shut_down().await;
            node.ended().await?
        }
    };
    node.close().await;
    if let Ended::Refused(why) = &ended {
        tracing::error!("{why}");
    }
    outcome(ended)
}
