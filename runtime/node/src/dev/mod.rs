//! `bellwether dev`: several nodes in one process, and the inner loop of whoever writes their component: it is built when its sources
//! change, and swapped in on all nodes; whoever sits at the terminal may kill the leader, add nodes, and so on.

mod build;
mod nodes;
mod sources;

use std::path::PathBuf;
use std::sync::Arc;

use bellwether_guest::compiler::Program;
use futures::future::{BoxFuture, OptionFuture};
use tokio::sync::mpsc;

use crate::admin::{AdminAddress, AdminOptions, AdminServer};
use crate::error::{NodeError, NodeErrorKind};
use crate::manifest::{ADMIN_SOCKET, Build, Connect, Manifest};
use crate::run::{ADMIN_GRACE, Shutdown};
use crate::start::{Process, coordinator};
use nodes::{Cluster, Progress, Residents};
use sources::Watched;

/// How several nodes are run.
pub struct DevOptions {
    /// How many to begin with, instead of the manifest's number.
    pub nodes: Option<u16>,
    /// Another coordinator than the manifest's, as in `coordination.connect`.
    pub coordinator: Option<String>,
    /// The folder for the nodes' data instead of the manifest's.
    pub data: Option<PathBuf>,
    /// What is asked of them while they run. With it, somebody is there to help: a build that fails at start is waited out, and so is the end
    /// of the last node.
    pub orders: Option<mpsc::Receiver<Order>>,
    /// When to stop.
    pub shutdown: Shutdown,
    /// The program that compiles components; none compiles them in this process.
    pub compiler: Option<Program>,
}

/// What whoever sits at the terminal may ask for. "The leader" is that of the manifest's first group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// End the leader's node as a crash would.
    Kill,
    /// Have the leader resign.
    Resign,
    /// Start another node.
    Add,
    /// Have a node leave in good order.
    Remove,
    /// Build the component, though no source has changed.
    Build,
    /// Stop all.
    Quit,
}

/// A build, and the swaps that follow from it.
type Renewal<'a> = BoxFuture<'a, ()>;

/// Runs several nodes of the manifest in this process until `shutdown`. They share the coordinator, the engine and one admin API;
/// each has an id, an address and a data folder of its own.
///
/// # Errors
/// When something that they need is not there, or when the coordinator refuses them for good.
pub async fn dev(manifest: Manifest, options: DevOptions) -> Result<(), NodeError> {
    let DevOptions { nodes, coordinator: connect, data, mut orders, mut shutdown, compiler } = options;
    let manifest = prepared(manifest, connect.as_deref(), data)?;
    let mut watched = manifest.dev.build.as_ref().map(|build| Watched::new(&build.watch)).transpose()?;
    if let (Some(build), Some(watched)) = (&manifest.dev.build, &mut watched)
        && !first_build(&manifest, build, watched, &mut orders, &mut shutdown).await?
    {
        return Ok(());
    }

    let process = Process::new(&manifest.node.data_dir.join("compiled"), manifest.store.compiled, compiler)?;
    let residents = Arc::new(Residents::default());
    let admin = AdminServer::bind_nodes(&manifest.node.admin, residents.clone(), AdminOptions::default()).await?;
    let mut cluster = Cluster::new(&process, &manifest, coordinator(&manifest)?, residents);
    let count = nodes.unwrap_or(manifest.dev.nodes).max(1);
    cluster.begin(count.into());
    let lasting = orders.is_some();
    // A manifest has at least one.
    let group = &manifest.groups[0].name;
    let mut stopping = false;
    let mut renewal: Option<Renewal<'_>> = None;
    // A change comes to nothing while a build runs, but for this.
    let mut again = false;
    loop {
        if stopping && cluster.stop() {
            tracing::info!("stopping: demoting, draining and leaving");
            renewal = None;
        }
        if again && renewal.is_none() && !stopping {
            again = false;
            renewal = renew(&manifest, cluster.residents(), watched.as_mut());
        }
        tokio::select! {
            () = &mut shutdown, if !stopping => stopping = true,
            order = next(&mut orders), if !stopping => match order {
                Order::Quit => stopping = true,
                Order::Build if manifest.dev.build.is_none() => {
                    tracing::warn!("nothing to build: `[dev] build` in the manifest says how, and is not there");
                }
                Order::Build => again = true,
                Order::Kill => cluster.kill_leader(group).await,
                Order::Resign => cluster.resign_leader(group).await,
                Order::Add => cluster.add(),
                Order::Remove => cluster.remove(group).await,
            },
            () = changed(&mut watched), if !stopping => again = true,
            Some(()) = OptionFuture::from(renewal.as_mut()) => renewal = None,
            // With somebody there, the end of the last node is not the end: there may be another one.
            happened = cluster.happened(), if stopping || !lasting || !cluster.is_empty() => match happened {
                None => break,
                Some(Progress::One) => {}
                Some(Progress::Begun) => tracing::info!(nodes = count, admin = %admin.address(), "started"),
                Some(Progress::Failed) => stopping = true,
            },
        }
    }
    admin.shutdown(ADMIN_GRACE).await;
    cluster.result()
}

/// The manifest with what the options say instead.
fn prepared(mut manifest: Manifest, connect: Option<&str>, data: Option<PathBuf>) -> Result<Manifest, NodeError> {
    if let Some(connect) = connect {
        manifest.coordination.connect = connect.parse().map_err(|error| {
            NodeError::new(NodeErrorKind::Manifest, format!("the coordinator {connect:?} cannot be used: {error}"))
        })?;
    }
    if let Connect::ZooKeeper { .. } = manifest.coordination.connect {
        let by = if connect.is_some() { "as --coordinator says" } else { "as the manifest says" };
        tracing::warn!(
            root = %manifest.coordination.root,
            "these nodes join the ZooKeeper at {}, {by}, and the groups of whoever else is there; for a coordinator of their own: \
             --coordinator memory:",
            manifest.coordination.connect
        );
    }
    let data = data.unwrap_or_else(|| manifest.node.data_dir.clone());
    if manifest.node.admin == AdminAddress::Unix(manifest.node.data_dir.join(ADMIN_SOCKET)) {
        manifest.node.admin = AdminAddress::Unix(data.join(ADMIN_SOCKET));
    }
    manifest.node.data_dir = data;
    if manifest.dev.build.is_some() {
        // What was built is swapped in when it is whole, on one node after the other.
        manifest.groups.iter_mut().for_each(|group| group.watch_file = false);
    }
    Ok(manifest)
}

/// Builds until it succeeds, if somebody is there to mend it. Whether to go on.
async fn first_build(
    manifest: &Manifest,
    build: &Build,
    watched: &mut Watched,
    orders: &mut Option<mpsc::Receiver<Order>>,
    shutdown: &mut Shutdown,
) -> Result<bool, NodeError> {
    loop {
        watched.mark();
        let mut building = Some(Box::pin(build::run(build, &manifest.path)));
        loop {
            tokio::select! {
                () = &mut *shutdown => return Ok(false),
                order = next(orders) => match order {
                    Order::Quit => return Ok(false),
                    Order::Build => break,
                    _ => tracing::warn!("no node runs yet: there is nothing to run before the build succeeds"),
                },
                () = watched.changed(), if building.is_none() => break,
                Some(built) = OptionFuture::from(building.as_mut()) => match built {
                    Ok(()) => return Ok(true),
                    Err(why) if orders.is_none() => {
                        let what = format!("`{}` failed, so there is nothing to run: {why}", build.command);
                        return Err(NodeError::new(NodeErrorKind::Failed, what));
                    }
                    Err(why) => {
                        tracing::warn!("the build failed: {why}; it is tried again when a source changes");
                        building = None;
                    }
                },
            }
        }
    }
}

/// The next order; never, if there are none.
async fn next(orders: &mut Option<mpsc::Receiver<Order>>) -> Order {
    if let Some(orders) = orders
        && let Some(order) = orders.recv().await
    {
        return order;
    }
    std::future::pending().await
}

/// Until a source has changed; for ever, if none is watched.
async fn changed(watched: &mut Option<Watched>) {
    match watched {
        Some(watched) => watched.changed().await,
        None => std::future::pending().await,
    }
}

/// Builds, and swaps what comes of it in on all nodes.
fn renew<'a>(manifest: &'a Manifest, residents: Arc<Residents>, watched: Option<&mut Watched>) -> Option<Renewal<'a>> {
    let build = manifest.dev.build.as_ref()?;
    watched?.mark();
    let groups = nodes::files(manifest);
    Some(Box::pin(async move {
        if let Err(why) = build::run(build, &manifest.path).await {
            tracing::warn!("the build failed: {why}; what runs goes on");
            return;
        }
        for (group, component) in groups {
            residents.swap(&group, &component).await;
        }
    }))
}
