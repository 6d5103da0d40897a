//! Carries out what the core wants of guests: prepare, call, stop, promote, drain.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, PrepareFailure, Prepared, Step};
use bellwether_core::event::{Event, Source};
use bellwether_core::id::{CallId, InstanceId, ReleaseId};
use bellwether_guest::{Component, Engine, Grants, Host, Instance, Limits, Linked, PoolOptions, WorkerPool};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::host::InstanceHost;
use crate::manifest;
use crate::shared::{GroupShared, NodeShared, lock};

/// What a group runs, but for the file of the component: the manifest's part of every release.
#[derive(Debug, Clone)]
pub(crate) struct ReleaseSpec {
    pub component: PathBuf,
    pub worker: Option<PathBuf>,
    pub config: BTreeMap<String, String>,
    pub grants: Grants,
    pub limits: Limits,
    pub pool: PoolOptions,
    pub drain: Duration,
}

impl ReleaseSpec {
    pub fn new(group: &manifest::Group, drain: Duration) -> Self {
        Self {
            component: group.component.clone(),
            worker: group.worker.component.clone(),
            config: group.config.clone(),
            grants: group.grants.clone(),
            limits: group.limits.clone(),
            pool: PoolOptions {
                parallelism: group.worker.parallelism as usize,
                queue: group.worker.queue as usize,
                ..PoolOptions::default()
            },
            drain,
        }
    }

    /// The release as one unit: whatever differs makes another one.
    fn id(&self, component: &Component, worker: &Component) -> ReleaseId {
        #[derive(Serialize)]
        struct Unit<'a> {
            component: &'a str,
            worker: &'a str,
            config: &'a BTreeMap<String, String>,
            grants: &'a Grants,
            limits: &'a Limits,
        }
        let unit = Unit {
            component: component.digest(),
            worker: worker.digest(),
            config: &self.config,
            grants: &self.grants,
            limits: &self.limits,
        };
        // Serialising these cannot fail: all keys are text.
        let text = serde_json::to_vec(&unit).unwrap_or_default();
        ReleaseId(hex::encode(Sha256::digest(text)).into())
    }

    /// Reads, compiles and links the component in `file` and the worker's.
    pub async fn load(&self, engine: &Engine, file: &Path) -> Result<Release, PrepareFailure> {
        let component = compile(engine, file).await?;
        let worker = match &self.worker {
            Some(file) => compile(engine, file).await?,
            None => component.clone(),
        };
        let link = |component: &Component, file: &Path| {
            component
                .link(&self.grants, &self.limits, self.config.clone())
                .map_err(|error| named(file, PrepareFailure::from(error)))
        };
        Ok(Release {
            id: self.id(&component, &worker),
            file: file.to_owned(),
            linked: link(&component, file)?,
            tasks: link(&worker, self.worker.as_deref().unwrap_or(file))?,
        })
    }
}

fn named(file: &Path, failure: PrepareFailure) -> PrepareFailure {
    PrepareFailure { reason: format!("{}: {}", file.display(), failure.reason), ..failure }
}

/// The largest component that is read.
const MAX_COMPONENT: u64 = 256 << 20;

pub(crate) async fn compile(engine: &Engine, file: &Path) -> Result<Component, PrepareFailure> {
    let bytes = read(file).await.map_err(|reason| named(file, PrepareFailure { step: Step::Read, reason }))?;
    engine.compile(bytes).await.map_err(|error| named(file, PrepareFailure::from(error)))
}

async fn read(file: &Path) -> Result<Bytes, String> {
    let about = tokio::fs::metadata(file).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file: build the guest, or correct the path".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    if !about.is_file() {
        return Err("is not a file; a component is one .wasm file".to_owned());
    }
    if about.len() > MAX_COMPONENT {
        return Err(format!("has {} bytes, more than the {MAX_COMPONENT} that a component may have", about.len()));
    }
    tokio::fs::read(file).await.map(Bytes::from).map_err(|error| format!("cannot be read: {error}"))
}

/// A release that can be instantiated. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Release {
    pub id: ReleaseId,
    pub file: PathBuf,
    linked: Linked,
    tasks: Linked,
}

/// An instance that hears callbacks.
#[derive(Clone)]
struct Loaded {
    instance: Instance,
    host: Arc<InstanceHost>,
    release: Release,
}

/// The guests of one group.
pub(crate) struct Guests {
    node: Arc<NodeShared>,
    group: Arc<GroupShared>,
    engine: Engine,
    spec: ReleaseSpec,
    runtime: Handle,
    instances: Mutex<HashMap<InstanceId, Loaded>>,
    /// The release of the instance that was promoted last, and that of the pool.
    current: Mutex<Option<Release>>,
    pooled: Mutex<Option<ReleaseId>>,
}

impl Guests {
    pub fn new(
        node: Arc<NodeShared>,
        group: Arc<GroupShared>,
        engine: Engine,
        spec: ReleaseSpec,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            group,
            engine,
            spec,
            runtime,
            instances: Mutex::default(),
            current: Mutex::default(),
            pooled: Mutex::default(),
        })
    }

    /// The file that the running release was read from.
    pub fn file(&self) -> Option<PathBuf> {
        lock(&self.current).as_ref().map(|release| release.file.clone())
    }

    pub fn prepare(self: &Arc<Self>, instance: InstanceId, source: Source) {
        let guests = self.clone();
        self.runtime.spawn(async move {
            let result = guests.load(instance, source).await;
            let group = guests.group.name.clone();
            let _ = guests.node.mailbox.send(Event::Prepared { group, instance, result }).await;
        });
    }

    async fn load(&self, instance: InstanceId, source: Source) -> Result<Prepared, PrepareFailure> {
        let current = lock(&self.current).clone();
        let release = match (source, current) {
            (Source::Current, Some(current)) => current,
            (Source::Current | Source::Manifest, _) => self.spec.load(&self.engine, &self.spec.component).await?,
            (Source::File(file), _) => self.spec.load(&self.engine, &file).await?,
        };
        let host = Arc::new(InstanceHost {
            node: self.node.clone(),
            group: self.group.clone(),
            instance: Some(instance),
            effects: AtomicBool::new(false),
        });
        let live = release.linked.instantiate(host.clone()).await.map_err(PrepareFailure::from)?;
        let prepared = Prepared {
            instance,
            release: release.id.clone(),
            digest: release.linked.component().digest().into(),
            exports: release.linked.exports(),
        };
        lock(&self.instances).insert(instance, Loaded { instance: live, host, release });
        Ok(prepared)
    }

    pub fn call(self: &Arc<Self>, instance: InstanceId, call: CallId, callback: Callback, budget: Duration) {
        let guests = self.clone();
        self.runtime.spawn(async move {
            let loaded = lock(&guests.instances).get(&instance).cloned();
            let result = match loaded {
                None => Err(CallFailure::Stopped),
                Some(loaded) => {
                    let effects = !matches!(callback, Callback::Snapshot | Callback::Restore(_));
                    loaded.host.effects.store(effects, Ordering::Release);
                    loaded.instance.call(callback, budget).await
                }
            };
            if result.as_ref().is_err_and(|failure| !failure.leaves_instance()) {
                lock(&guests.instances).remove(&instance);
            }
            let group = guests.group.name.clone();
            let _ = guests.node.mailbox.send(Event::Returned { group, instance, call, result }).await;
        });
    }

    pub fn stop(&self, instance: InstanceId) {
        if let Some(loaded) = lock(&self.instances).remove(&instance) {
            loaded.host.effects.store(false, Ordering::Release);
            loaded.instance.stop();
        }
    }

    /// Tasks go to the promoted instance's release from now on; those in flight end where they are.
    pub fn promote(&self, instance: InstanceId) {
        let Some(release) = lock(&self.instances).get(&instance).map(|loaded| loaded.release.clone()) else { return };
        *lock(&self.current) = Some(release.clone());
        // A fresh instance of the same release: its workers are as good as they were.
        if lock(&self.pooled).replace(release.id.clone()).as_ref() == Some(&release.id) {
            return;
        }
        let pool = release.tasks.exports().worker.then(|| {
            let (node, group) = (self.node.clone(), self.group.clone());
            let hosts = move || {
                let (node, group) = (node.clone(), group.clone());
                Arc::new(InstanceHost { node, group, instance: None, effects: AtomicBool::new(true) }) as Arc<dyn Host>
            };
            WorkerPool::new(release.tasks.clone(), self.spec.pool, Arc::new(hosts))
        });
        if let Some(old) = self.group.set_pool(pool) {
            let deadline = self.spec.drain;
            self.runtime.spawn(async move { old.drain(deadline).await });
        }
    }

    pub fn drain(self: &Arc<Self>) {
        let guests = self.clone();
        self.runtime.spawn(async move {
            if let Some(pool) = guests.group.set_pool(None) {
                pool.drain(guests.spec.drain).await;
            }
            let _ = guests.node.mailbox.send(Event::Drained { group: guests.group.name.clone() }).await;
        });
    }

    /// Stops everything at once, as a crash would.
    pub fn crash(&self) {
        for (_, loaded) in lock(&self.instances).drain() {
            loaded.instance.stop();
        }
        if let Some(pool) = self.group.set_pool(None) {
            pool.stop();
        }
    }
}
