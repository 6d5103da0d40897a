//! Puts a node together and lets it run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bellwether_coordination::Coordinator;
use bellwether_coordination::memory::MemoryCoordinator;
use bellwether_coordination::zookeeper::{DigestAuth, Secret, ZookeeperConfig, ZookeeperCoordinator};
use bellwether_core::callback::{PrepareFailure, Step};
use bellwether_core::config::{GroupConfig, NodeConfig, StateAccess};
use bellwether_core::event::Event;
use bellwether_core::id::{GroupName, NodeId};
use bellwether_core::member::Member;
use bellwether_core::node::Node;
use bellwether_core::work::WorkError;
use bellwether_guest::compiler::Program;
use bellwether_guest::grants::StateGrant;
use bellwether_guest::host::Task;
use bellwether_guest::{Engine, EngineError, EngineOptions};
use bellwether_source::store::Store;
use bellwether_source::{Digest, Limits, Options, Reference, SourceError, Sources};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use secrecy::ExposeSecret;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::clock;
use crate::control::NodeControl;
use crate::driver::{Driver, Ended, Inquiry, MAILBOX};
use crate::error::{NodeError, NodeErrorKind};
use crate::gate::{Gate, Lease};
use crate::guests::Guests;
use crate::holders::OtherNodes;
use crate::host::PeerTasks;
use crate::identity::Identity;
use crate::manifest::{Connect, Manifest};
use crate::outgoing::Outgoing;
use crate::peers::{Part, PeerLimits, PeerServer, Peers, Tasks, TlsFiles};
use crate::release::{Asked, ReleaseSpec, Unloadable};
use crate::shared::{GroupShared, NodeShared};
use crate::watcher;

/// How long tasks in flight may go on at shutdown, and on the old release after a swap.
const DRAIN: Duration = Duration::from_secs(30);
/// The mean time between looks at what no watch covers.
const AUDIT: Duration = Duration::from_secs(10);

fn local(what: impl Into<String>) -> NodeError {
    NodeError::new(NodeErrorKind::Local, what)
}

/// What the nodes of one process share: the runtimes of guests that compute and of what stands back, and the engine.
pub(crate) struct Process {
    runtimes: Option<[Runtime; 2]>,
    pub engine: Engine,
    /// For what is got ready while others are served: components that are read, checked, stored, loaded and compiled.
    pub background: Handle,
}

/// How far that stands back, as `nice` has it: no further, for whoever swaps or deploys waits for it.
const STANDS_BACK: i32 = 10;

impl Process {
    pub fn new(cache: &Path, cache_bytes: u64, compiler: Option<Program>) -> Result<Self, NodeError> {
        let guests = Builder::new_multi_thread()
            .thread_name("guests")
            .enable_all()
            .build()
            .map_err(|error| local(format!("the guests' threads cannot be started: {error}")))?;
        let background = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("background")
            // Of this thread alone; what it starts inherits it. Where that is not allowed, it has the priority of all others.
            .on_thread_start(|| {
                let _ = rustix::process::setpriority_process(None, STANDS_BACK);
            })
            .enable_all()
            .build()
            .map_err(|error| local(format!("the background's thread cannot be started: {error}")))?;
        let options = EngineOptions {
            cache: Some(cache.to_owned()),
            cache_bytes,
            runtime: Some(guests.handle().clone()),
            compiler,
            ..EngineOptions::default()
        };
        let engine = match Engine::new(options) {
            Ok(engine) => engine,
            Err(error) => {
                // Nor dropped, for the same reason as below.
                guests.shutdown_background();
                background.shutdown_background();
                let help = "it lies below `node.data_dir`: set that to a folder that belongs to this user and can be written to";
                return Err(local(match error {
                    EngineError::Cache { .. } => format!("{error}\n  help: {help}"),
                    _ => error.to_string(),
                }));
            }
        };
        let handle = background.handle().clone();
        Ok(Self { runtimes: Some([guests, background]), engine, background: handle })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A runtime must not be waited for within another.
        self.runtimes.take().into_iter().flatten().for_each(Runtime::shutdown_background);
    }
}

/// The coordinator that a manifest names.
pub(crate) fn coordinator(manifest: &Manifest) -> Result<Arc<dyn Coordinator>, NodeError> {
    Ok(match zookeeper(manifest)? {
        Some(zookeeper) => Arc::new(zookeeper),
        None => Arc::new(MemoryCoordinator::new()),
    })
}

/// The ZooKeeper that a manifest names; none if it names the coordinator in memory.
pub(crate) fn zookeeper(manifest: &Manifest) -> Result<Option<ZookeeperCoordinator>, NodeError> {
    let Connect::ZooKeeper { servers, chroot } = &manifest.coordination.connect else { return Ok(None) };
    let auth = manifest
        .coordination
        .auth
        .as_ref()
        .map(|auth| DigestAuth { user: auth.user.clone(), password: Secret::new(auth.password.expose_secret()) });
    let servers = servers.iter().map(ToString::to_string).collect();
    let config = ZookeeperConfig { servers, chroot: chroot.clone(), auth };
    let coordinator = ZookeeperCoordinator::new(config)
        .map_err(|error| NodeError::new(NodeErrorKind::Manifest, error.to_string()))?;
    Ok(Some(coordinator))
}

/// The tasks of a node whose address is known only once it listens.
#[derive(Clone, Default)]
struct LateTasks(Arc<OnceLock<PeerTasks>>);

impl Tasks for LateTasks {
    fn handle(
        &self,
        group: GroupName,
        recipient: NodeId,
        task: Task,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, WorkError>> {
        match self.0.get() {
            Some(tasks) => tasks.handle(group, recipient, task, deadline),
            None => async { Err(WorkError::UnknownMember) }.boxed(),
        }
    }

    fn part(
        &self,
        group: GroupName,
        recipient: NodeId,
        digest: Digest,
        offset: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<Part, WorkError>> {
        match self.0.get() {
            Some(tasks) => tasks.part(group, recipient, digest, offset, most),
            None => async { Err(WorkError::UnknownMember) }.boxed(),
        }
    }
}

/// A node that runs.
pub(crate) struct Running {
    pub control: Arc<NodeControl>,
    ended: oneshot::Receiver<std::io::Result<Ended>>,
    peers: PeerServer,
    watchers: Vec<JoinHandle<()>>,
    /// Who the coordinator is told that we are, for messages.
    credentials: String,
    _identity: Identity,
}

impl Running {
    /// Starts a node: takes its identity, checks its components, listens for peers, and sets the driver going.
    pub async fn start(
        process: &Process,
        manifest: &Manifest,
        coordinator: Arc<dyn Coordinator>,
    ) -> Result<Self, NodeError> {
        let identity = Identity::take(&manifest.node.data_dir, &manifest.node.id)?;
        let sources = sources(manifest)?;
        let mut specs = BTreeMap::new();
        for group in &manifest.groups {
            let spec = ReleaseSpec::new(group, DRAIN);
            // Compiled now, so that what is wrong is said before anything else knows of this node.
            let loaded = spec.load(&process.engine, &sources, &group.component, Asked::AtStart, &mut Vec::new()).await;
            let started = match loaded {
                Ok(release) => Some(release),
                // Once it has a session, this node can ask others; a node that has lost its disk comes back that way.
                Err(Unloadable::Absent(error)) if others_may_have(manifest, group, &error) => {
                    tracing::warn!(
                        node = %manifest.node.id, group = %group.name,
                        "{error}; starting without it, and asking the other nodes of the group"
                    );
                    None
                }
                Err(why) => {
                    let failure = PrepareFailure::from(why);
                    let what = format!("group {}: {}", group.name, failure.reason);
                    return Err(NodeError::new(NodeErrorKind::Component, what));
                }
            };
            specs.insert(group.name.clone(), (spec, started));
        }

        let tls = manifest.node.tls.as_ref().map(|tls| TlsFiles {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            ca: tls.ca.clone(),
        });
        let tasks = LateTasks::default();
        let limits = PeerLimits::default();
        let peers = PeerServer::bind(
            resolve(&manifest.node.listen).await?,
            tls.as_ref(),
            limits.clone(),
            Arc::new(tasks.clone()),
        )?;
        let mut advertise = manifest.node.advertise.clone();
        if advertise.port == 0 {
            advertise.port = peers.local_addr().port();
        }
        let address = advertise.to_string();

        let (mailbox, events) = mpsc::channel(MAILBOX);
        let lease = Lease::default();
        let groups = manifest.groups.iter().map(|group| {
            let this = Member { id: manifest.node.id.clone(), address: address.clone(), labels: group.labels.clone() };
            let shared = GroupShared::new(group.name.clone(), Arc::new(this), group.watch, Gate::new(lease.clone()));
            (group.name.clone(), Arc::new(shared))
        });
        let outgoing = manifest.groups.iter().any(|group| !group.grants.http.is_empty()).then(Outgoing::new);
        let shared = Arc::new(NodeShared {
            mailbox,
            questions: crate::shared::Questions::default(),
            groups: groups.collect(),
            peers: Peers::new(manifest.node.id.clone(), tls.as_ref(), limits)?,
            outgoing: outgoing.transpose().map_err(|error| local(error.to_string()))?,
        });
        // Set once, here.
        let _ = tasks.0.set(PeerTasks { node: shared.clone(), store: sources.store().cloned() });
        sources.set_holders(Arc::new(OtherNodes(shared.clone())));

        let guests: BTreeMap<GroupName, Arc<Guests>> = specs
            .into_iter()
            .filter_map(|(name, spec)| {
                let group = shared.groups.get(&name)?.clone();
                let guests = {
                    let tools = (process.engine.clone(), sources.clone());
                    Guests::new(shared.clone(), group, tools, spec, (Handle::current(), process.background.clone()))
                };
                Some((name, guests))
            })
            .collect();

        let core = core(manifest, &identity, &address)?;
        let (inquiries, asked) = mpsc::channel(64);
        let driver = Driver {
            core,
            id: manifest.node.id.clone(),
            shared: shared.clone(),
            guests: guests.clone(),
            coordinator,
            lease,
            session: None,
        };
        let ended = on_its_own_thread(driver, events, asked)?;
        let control = Arc::new(NodeControl {
            id: manifest.node.id.clone(),
            address,
            coordinator: manifest.coordination.connect.to_string(),
            started: clock::now(),
            shared,
            guests,
            inquiries,
            order: manifest.groups.iter().map(|group| group.name.clone()).collect(),
        });
        let mut watchers = Vec::new();
        for group in manifest.groups.iter().filter(|group| group.watch_file) {
            let named = std::iter::once(&group.component).chain(&group.worker.component);
            for file in named.filter_map(Reference::file) {
                let file = file.to_owned();
                match watcher::watch(control.clone(), group.name.clone(), file.clone(), group.component.clone()) {
                    Ok(watcher) => watchers.push(watcher),
                    Err(error) => tracing::warn!(
                        node = %manifest.node.id, group = %group.name, file = %file.display(),
                        "the component's file cannot be watched, so that only `bellwether swap` swaps it: {error}"
                    ),
                }
            }
        }
        let credentials = match &manifest.coordination.auth {
            Some(auth) => format!("user {:?}", auth.user),
            None => "nobody in particular (no user is configured)".to_owned(),
        };
        Ok(Self { control, ended, peers, watchers, credentials, _identity: identity })
    }

    /// Begins a graceful stop.
    pub async fn shut_down(&self) {
        // A closed mailbox means that it has stopped already.
        let _ = self.control.shared.mailbox.send(Event::Shutdown).await;
    }

    /// Waits until the node has ended, and lets go of what it holds.
    pub async fn ended(&mut self) -> Result<Ended, NodeError> {
        let ended = (&mut self.ended).await;
        for watcher in &self.watchers {
            watcher.abort();
        }
        match ended {
            // The core knows of no credentials; whoever must correct them has to know which were shown.
            Ok(Ok(Ended::Refused(why))) if why.contains("NoAuth") => {
                Ok(Ended::Refused(format!("{why}\n  identity: {}", self.credentials)))
            }
            Ok(Ok(ended)) => Ok(ended),
            Ok(Err(error)) => Err(local(format!("the session's thread failed: {error}"))),
            Err(_) => Err(NodeError::new(
                NodeErrorKind::Failed,
                "the session's thread has panicked; this is a fault of bellwether",
            )),
        }
    }

    /// Lets the peers' requests end, and closes their links.
    pub async fn close(self) {
        self.peers.shutdown(Duration::from_secs(1)).await;
    }

    /// Ends the node as a crash would.
    pub async fn crash(self) {
        let _ = self.control.inquiries.send(Inquiry::Crash).await;
        for guests in self.control.guests.values() {
            guests.crash();
        }
        for watcher in &self.watchers {
            watcher.abort();
        }
        drop(self.peers);
    }
}

/// What obtains a node's components, with the store in its data folder.
pub(crate) fn sources(manifest: &Manifest) -> Result<Sources, NodeError> {
    let store = Store::open(&manifest.node.data_dir.join("store"), manifest.store.max).map_err(|error| {
        local(format!("{error}\n  help: it lies in `node.data_dir`: set that to a folder that belongs to this user and can be written to"))
    })?;
    sources_with(manifest, Some(store))
}

/// The same with another store, or none.
pub(crate) fn sources_with(manifest: &Manifest, store: Option<Store>) -> Result<Sources, NodeError> {
    let limits = Limits { total: manifest.sources.timeout, ..Limits::default() };
    let options = Options { ca: manifest.sources.ca.clone(), limits, trust: manifest.signatures.clone() };
    Sources::new(store, options).map_err(|error| local(error.to_string()))
}

/// Whether what could not be had may still come from another node: its digest is known, and there may be other nodes.
fn others_may_have(manifest: &Manifest, group: &crate::manifest::Group, error: &SourceError) -> bool {
    let known = std::iter::once(&group.component).chain(&group.worker.component).any(|it| it.digest().is_some());
    known && error.step == Step::Fetch && manifest.coordination.connect != Connect::Memory
}

async fn resolve(listen: &crate::manifest::HostPort) -> Result<SocketAddr, NodeError> {
    let failed = |why: String| {
        local(format!(
            "cannot listen for peers on {listen}: {why}\n  help: set `node.listen` to an address of this machine"
        ))
    };
    let mut found = tokio::net::lookup_host((listen.host.as_str(), listen.port))
        .await
        .map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("the name has no address".into()))
}

fn core(manifest: &Manifest, identity: &Identity, address: &str) -> Result<Node, NodeError> {
    let coordination = &manifest.coordination;
    let config = NodeConfig {
        id: manifest.node.id.clone(),
        guid: identity.guid.clone(),
        address: address.to_owned(),
        root: coordination.root.trim_end_matches('/').to_owned(),
        session_timeout: coordination.session_timeout,
        tick_time: match coordination.connect {
            Connect::Memory => Duration::ZERO,
            Connect::ZooKeeper { .. } => coordination.tick_time,
        },
        audit: AUDIT,
        drain: DRAIN,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
    };
    let groups = manifest.groups.iter().map(|group| GroupConfig {
        name: group.name.clone(),
        candidate: group.candidate,
        election_format: group.election_format,
        election_path: group.election_path.clone(),
        watch: group.watch,
        labels: group.labels.clone(),
        tick: Some(group.tick),
        callback: group.limits.callback,
        on_failure: group.on_failure,
        probation: group.probation,
        state: match group.grants.state {
            StateGrant::None => StateAccess::None,
            StateGrant::Leader => StateAccess::Leader,
            StateGrant::All => StateAccess::All,
        },
    });
    Node::new(config, groups).map_err(|error| {
        NodeError::new(
            NodeErrorKind::Manifest,
            format!(
                "{}: coordination.session_timeout: {error}\n  help: raise `session_timeout`, or set `tick_time` to what the \
                 ensemble's zoo.cfg says",
                manifest.path.display()
            ),
        )
    })
}

fn on_its_own_thread(
    driver: Driver,
    events: mpsc::Receiver<Event>,
    asked: mpsc::Receiver<Inquiry>,
) -> Result<oneshot::Receiver<std::io::Result<Ended>>, NodeError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| local(format!("the session's thread cannot be set up: {error}")))?;
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            let result = runtime.block_on(driver.run(events, asked));
            // Nobody waits when the process is ending anyway.
            let _ = tell.send(result);
        })
        .map_err(|error| local(format!("the session's thread cannot be started: {error}")))?;
    Ok(ended)
}
