//! `bellwether dev`: several nodes in one process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bellwether_core::id::NodeId;
use bellwether_guest::compiler::Program;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;

use crate::admin::{AdminAddress, AdminOptions, AdminServer, Answer, Control, ControlError, Nodes};
use crate::driver::Ended;
use crate::error::{NodeError, NodeErrorKind};
use crate::manifest::{ADMIN_SOCKET, HostPort, Manifest};
use crate::run::{ADMIN_GRACE, Shutdown, outcome};
use crate::shared::lock;
use crate::start::{Process, Running, coordinator};

/// How several nodes are run.
pub struct DevOptions {
    /// How many; at least one.
    pub nodes: usize,
    /// Another coordinator than the manifest's, as in `coordination.connect`.
    pub coordinator: Option<String>,
    /// The folder for the nodes' data instead of the manifest's.
    pub data: Option<PathBuf>,
    /// When to stop.
    pub shutdown: Shutdown,
    /// The program that compiles components; none compiles them in this process.
    pub compiler: Option<Program>,
}

/// A node of this process, and the way to end it as a crash would.
struct Resident {
    control: Arc<dyn Control>,
    kill: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Residents(Mutex<Vec<Resident>>);

impl Nodes for Residents {
    fn list(&self) -> Vec<Arc<dyn Control>> {
        lock(&self.0).iter().map(|resident| resident.control.clone()).collect()
    }

    fn kill(&self, node: NodeId) -> Answer<'_, ()> {
        let mut residents = lock(&self.0);
        let found = residents.iter_mut().find(|resident| resident.control.node() == node);
        let killed = found.and_then(|resident| resident.kill.take()).is_some_and(|kill| kill.send(()).is_ok());
        let known = residents.iter().map(|resident| resident.control.node().to_string()).collect();
        residents.retain(|resident| resident.control.node() != node);
        async move { if killed { Ok(()) } else { Err(ControlError::UnknownNode { name: node.to_string(), known }) } }
            .boxed()
    }
}

/// Runs several nodes of the manifest in this process until `shutdown`. They share the coordinator, the engine and one admin API;
/// each has an id, an address and a data folder of its own.
///
/// # Errors
/// When something that they need is not there, or when the coordinator refuses them for good.
pub async fn dev(manifest: Manifest, options: DevOptions) -> Result<(), NodeError> {
    let mut manifest = manifest;
    if let Some(connect) = &options.coordinator {
        manifest.coordination.connect = connect.parse().map_err(|error| {
            NodeError::new(NodeErrorKind::Manifest, format!("the coordinator {connect:?} cannot be used: {error}"))
        })?;
    }
    let data = options.data.clone().unwrap_or_else(|| manifest.node.data_dir.clone());
    if manifest.node.admin == AdminAddress::Unix(manifest.node.data_dir.join(ADMIN_SOCKET)) {
        manifest.node.admin = AdminAddress::Unix(data.join(ADMIN_SOCKET));
    }
    let process = Process::new(&data.join("compiled"), manifest.store.compiled, options.compiler.clone())?;
    let coordinator = coordinator(&manifest)?;
    let residents = Arc::new(Residents::default());
    let admin = AdminServer::bind_nodes(&manifest.node.admin, residents.clone(), AdminOptions::default()).await?;
    let mut running = FuturesUnordered::new();
    let mut stops = Vec::new();
    let mut result = Ok(());
    for n in 1..=options.nodes.max(1) {
        let started = match nth(&manifest, n, &data) {
            Ok(node) => Running::start(&process, &node, coordinator.clone()).await,
            Err(error) => Err(error),
        };
        let node = match started {
            Ok(node) => node,
            Err(error) => {
                // Those that run already leave in good order.
                result = Err(error);
                stops.clear();
                break;
            }
        };
        let (kill, killed) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        lock(&residents.0).push(Resident { control: node.control.clone(), kill: Some(kill) });
        stops.push(stop);
        running.push(reside(node, killed, stopped));
    }
    if result.is_ok() {
        tracing::info!(nodes = options.nodes, admin = %admin.address(), "started");
    }
    let mut shutdown = options.shutdown;
    loop {
        tokio::select! {
            () = &mut shutdown, if !stops.is_empty() => {
                tracing::info!("stopping: demoting, draining and leaving");
                for stop in stops.drain(..) {
                    // A node that has ended needs no telling.
                    let _ = stop.send(());
                }
            }
            ended = running.next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    result = result.and(Err(error));
                    stops.clear();
                }
                None => break,
            },
        }
    }
    admin.shutdown(ADMIN_GRACE).await;
    result
}

fn nth(manifest: &Manifest, n: usize, data: &std::path::Path) -> Result<Manifest, NodeError> {
    let mut node = manifest.clone();
    let id = format!("{}-{n}", manifest.node.id);
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
