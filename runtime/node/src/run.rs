//! `bellwether run`: one node.

use std::sync::Arc;
use std::time::Duration;

use bellwether_coordination::Coordinator;
use bellwether_coordination::estate::{Estate, Recorded};
use bellwether_guest::compiler::Program;
use futures::future::BoxFuture;

use crate::admin::AdminServer;
use crate::driver::Ended;
use crate::error::{NodeError, NodeErrorKind};
use crate::manifest::Manifest;
use crate::reaper::{Keeper, ReaperProgram};
use crate::start::{Process, Running, coordinator, zookeeper};

/// Ready when the node shall stop gracefully.
pub type Shutdown = BoxFuture<'static, ()>;

/// How long the admin API may finish its answers.
pub(crate) const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// How a node is run.
pub struct RunOptions {
    /// When to stop.
    pub shutdown: Shutdown,
    /// The program that compiles components; none compiles them in this process.
    pub compiler: Option<Program>,
    /// What clears away after a crash, if the manifest wants that; none here means that nothing does.
    pub reaper: Option<ReaperProgram>,
}

/// Runs one node until `shutdown`; then it demotes its guests, drains its tasks, leaves its groups and closes its session.
///
/// # Errors
/// When something that it needs is not there, or when the coordinator refuses it for good.
pub async fn run(manifest: Manifest, options: RunOptions) -> Result<(), NodeError> {
    let process = Process::new(&manifest.node.data_dir.join("compiled"), manifest.store.compiled, options.compiler)?;
    let reaper = options.reaper.filter(|_| manifest.node.reaper);
    let (coordinator, keeper) = match (reaper, zookeeper(&manifest)?) {
        (Some(program), Some(zookeeper)) => {
            let estate = Estate::default();
            let keeper = Keeper::start(program, manifest.node.id.clone(), zookeeper.config(), estate.clone());
            (Arc::new(Recorded::new(Arc::new(zookeeper), estate)) as _, Some(keeper))
        }
        _ => (coordinator(&manifest)?, None),
    };
    let ended = serve(&process, &manifest, coordinator, options.shutdown).await;
    if let Some(keeper) = keeper {
        keeper.finish().await;
    }
    outcome(ended?)
}

async fn serve(
    process: &Process,
    manifest: &Manifest,
    coordinator: Arc<dyn Coordinator>,
    mut shutdown: Shutdown,
) -> Result<Ended, NodeError> {
    let mut node = Running::start(process, manifest, coordinator).await?;
    let admin = match AdminServer::bind(&manifest.node.admin, Arc::clone(&node.control) as _).await {
        Ok(admin) => admin,
        Err(error) => {
            // It may stand in its groups by now, or even lead: it must not leave them as a crash would.
            node.shut_down().await;
            let ended = node.ended().await;
            node.close().await;
            return ended.and(Err(error.into()));
        }
    };
    tracing::info!(node = %manifest.node.id, admin = %admin.address(), address = %node.control.address, "started");
    let ended = tokio::select! {
        ended = node.ended() => ended,
        () = &mut shutdown => {
            tracing::info!(node = %manifest.node.id, "stopping: demoting, draining and leaving");
            node.shut_down().await;
            node.ended().await
        }
    };
    admin.shutdown(ADMIN_GRACE).await;
    node.close().await;
    ended
}

pub(crate) fn outcome(ended: Ended) -> Result<(), NodeError> {
    match ended {
        Ended::Stopped | Ended::Crashed => Ok(()),
        Ended::Refused(why) => Err(NodeError::new(NodeErrorKind::Coordinator, why)),
    }
}
