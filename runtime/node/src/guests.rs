//! Carries out what the core wants of guests: prepare, call, stop, promote, drain.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, PrepareFailure, Prepared, Returned, Step};
use bellwether_core::event::{Event, Source};
use bellwether_core::id::{CallId, Epoch, InstanceId, ReleaseId};
use bellwether_core::release::Wanted;
use bellwether_guest::{Component, Engine, Grants, Host, Instance, Limits, Linked, PoolOptions, WorkerPool};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::clock;
use crate::effects;
use crate::host::InstanceHost;
use crate::manifest;
use crate::shared::{GroupShared, NodeShared, lock};
use crate::wanted::Wish;

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
    pub fn id(&self, component: &str, worker: &str, config: &BTreeMap<String, String>) -> ReleaseId {
        #[derive(Serialize)]
        struct Unit<'a> {
            component: &'a str,
            worker: &'a str,
            config: &'a BTreeMap<String, String>,
            grants: &'a Grants,
            limits: &'a Limits,
        }
        let unit = Unit { component, worker, config, grants: &self.grants, limits: &self.limits };
        // Serialising these cannot fail: all keys are text.
        let text = serde_json::to_vec(&unit).unwrap_or_default();
        ReleaseId(hex::encode(Sha256::digest(text)).into())
    }

    /// Reads, compiles and links the component in `file` and the worker's, and notes how long each step took.
    pub async fn load(
        &self,
        engine: &Engine,
        file: &Path,
        took: &mut Vec<(Step, Duration)>,
    ) -> Result<Release, PrepareFailure> {
        let component = compile(engine, file, took).await?;
        let worker = match &self.worker {
            Some(file) => (compile(engine, file, &mut Vec::new()).await?, file.display().to_string()),
            None => (component.clone(), file.display().to_string()),
        };
        self.link((component, file.display().to_string()), worker, &self.config, took)
    }

    /// Makes a release of components and where each comes from: gives them what the manifest grants, and this configuration.
    pub fn link(
        &self,
        (component, origin): (Component, String),
        (worker, workers): (Component, String),
        config: &BTreeMap<String, String>,
        took: &mut Vec<(Step, Duration)>,
    ) -> Result<Release, PrepareFailure> {
        let before = clock::now();
        let link = |component: &Component, origin: &str| {
            component
                .link(&self.grants, &self.limits, config.clone())
                .map_err(|error| named(origin, PrepareFailure::from(error)))
        };
        let release = Release {
            id: self.id(component.digest(), worker.digest(), config),
            linked: link(&component, &origin)?,
            tasks: link(&worker, &workers)?,
            origin,
        };
        took.push((Step::Check, clock::now().since(before)));
        Ok(release)
    }
}

pub(crate) fn named(origin: impl std::fmt::Display, failure: PrepareFailure) -> PrepareFailure {
    PrepareFailure { reason: format!("{origin}: {}", failure.reason), ..failure }
}

/// Releases that a group can go back to, the present one counted.
const RELEASES_HELD: usize = 3;

/// The largest component that is read.
const MAX_COMPONENT: u64 = 256 << 20;

pub(crate) async fn compile(
    engine: &Engine,
    file: &Path,
    took: &mut Vec<(Step, Duration)>,
) -> Result<Component, PrepareFailure> {
    let began = clock::now();
    let bytes =
        read(file).await.map_err(|reason| named(file.display(), PrepareFailure { step: Step::Read, reason }))?;
    let read = clock::now();
    took.push((Step::Read, read.since(began)));
    let component = engine.compile(bytes).await.map_err(|error| named(file.display(), PrepareFailure::from(error)))?;
    took.push((Step::Compile, clock::now().since(read)));
    Ok(component)
}

pub(crate) async fn read(file: &Path) -> Result<Bytes, String> {
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
    /// Where its component came from, for people.
    pub origin: String,
    linked: Linked,
    tasks: Linked,
}

/// An instance that hears callbacks.
#[derive(Clone)]
struct Loaded {
    instance: Instance,
    host: Arc<InstanceHost>,
    release: Release,
    /// The term that it was told of and not told the end of; 0 for none.
    term: Arc<AtomicU64>,
}

impl Loaded {
    /// It is gone: whatever it believed, it does not act on it any more.
    fn gone(&self, group: &GroupShared, id: InstanceId) {
        let term = self.term.swap(0, Ordering::AcqRel);
        if term != 0 {
            effects::callback(group, id, Epoch(term), "stopped");
        }
    }
}

/// What is noted when such a callback is entered, and when it is left.
fn noted(callback: &Callback) -> Option<[&'static str; 2]> {
    match callback {
        Callback::Elected { .. } => Some(["elected-entered", "elected-left"]),
        Callback::Demoted(_) => Some(["demoted-entered", "demoted-left"]),
        _ => None,
    }
}

/// The guests of one group.
pub(crate) struct Guests {
    node: Arc<NodeShared>,
    group: Arc<GroupShared>,
    engine: Engine,
    spec: ReleaseSpec,
    runtime: Handle,
    instances: Mutex<HashMap<InstanceId, Loaded>>,
    /// The releases that were promoted last, the present one at the end: what the group can go back to without reading anything.
    promoted: Mutex<VecDeque<Release>>,
    /// That of the pool.
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
            promoted: Mutex::default(),
            pooled: Mutex::default(),
        })
    }

    /// Where the running release came from.
    pub fn origin(&self) -> Option<String> {
        lock(&self.promoted).back().map(|release| release.origin.clone())
    }

    /// Obtains, compiles and links what shall be deployed, and gives it as the group's document has it.
    pub async fn check(&self, wish: Wish) -> Result<Wanted, PrepareFailure> {
        self.spec.check(&self.engine, wish).await
    }

    /// What the manifest's release is made of.
    pub fn manifest(&self) -> Wish {
        self.spec.wish()
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
        let mut took = Vec::new();
        let held = {
            let promoted = lock(&self.promoted);
            match &source {
                Source::Current => promoted.back().cloned(),
                Source::Earlier(wanted) => promoted.iter().find(|release| release.id == *wanted).cloned(),
                // What runs or ran is at hand, even if it is not to be had any more.
                Source::Wanted(deployed) => {
                    let id = self.spec.wanted_id(&deployed.wanted);
                    promoted.iter().find(|release| release.id == id).cloned()
                }
                Source::Manifest | Source::File(_) => None,
            }
        };
        let release = match (held, source) {
            (Some(held), _) => held,
            (None, Source::Earlier(wanted)) => {
                let reason = format!("release {wanted} is not held any more");
                return Err(PrepareFailure { step: Step::Read, reason });
            }
            (None, Source::Wanted(deployed)) => {
                self.spec.load_wanted(&self.engine, &deployed.wanted, &mut took).await?
            }
            (None, Source::File(file)) => self.spec.load(&self.engine, &file, &mut took).await?,
            (None, Source::Current | Source::Manifest) => {
                self.spec.load(&self.engine, &self.spec.component, &mut took).await?
            }
        };
        let before = clock::now();
        let host = Arc::new(InstanceHost {
            node: self.node.clone(),
            group: self.group.clone(),
            instance: Some(instance),
            effects: AtomicBool::new(false),
        });
        let live = release.linked.instantiate(host.clone()).await.map_err(PrepareFailure::from)?;
        took.push((Step::Instantiate, clock::now().since(before)));
        let prepared = Prepared {
            instance,
            took: took.into(),
            release: release.id.clone(),
            digest: release.linked.component().digest().into(),
            exports: release.linked.exports(),
        };
        let term = Arc::new(AtomicU64::new(0));
        lock(&self.instances).insert(instance, Loaded { instance: live, host, release, term });
        Ok(prepared)
    }

    pub fn call(self: &Arc<Self>, instance: InstanceId, call: CallId, callback: Callback, budget: Duration) {
        let guests = self.clone();
        self.runtime.spawn(async move {
            let loaded = lock(&guests.instances).get(&instance).cloned();
            let result = match loaded {
                None => Err(CallFailure::Stopped),
                Some(loaded) => guests.call_loaded(&loaded, instance, callback, budget).await,
            };
            let group = guests.group.name.clone();
            let _ = guests.node.mailbox.send(Event::Returned { group, instance, call, result }).await;
        });
    }

    async fn call_loaded(
        &self,
        loaded: &Loaded,
        id: InstanceId,
        callback: Callback,
        budget: Duration,
    ) -> Result<Returned, CallFailure> {
        let effects = !matches!(callback, Callback::Snapshot | Callback::Restore(_));
        loaded.host.effects.store(effects, Ordering::Release);
        if let Callback::Elected { epoch, .. } = &callback {
            loaded.term.store(epoch.0, Ordering::Release);
        }
        let (noted, term) = (noted(&callback), Epoch(loaded.term.load(Ordering::Acquire)));
        if let Some([entered, _]) = noted {
            effects::callback(&self.group, id, term, entered);
        }
        let demotes = matches!(callback, Callback::Demoted(_));
        let result = loaded.instance.call(callback, budget).await;
        if result.as_ref().is_err_and(|failure| !failure.leaves_instance()) {
            lock(&self.instances).remove(&id);
            loaded.gone(&self.group, id);
        } else if let Some([_, left]) = noted
            && loaded.term.load(Ordering::Acquire) == term.0
        {
            effects::callback(&self.group, id, term, left);
            if demotes {
                loaded.term.store(0, Ordering::Release);
            }
        }
        result
    }

    pub fn stop(&self, instance: InstanceId) {
        if let Some(loaded) = lock(&self.instances).remove(&instance) {
            loaded.host.effects.store(false, Ordering::Release);
            loaded.instance.stop();
            loaded.gone(&self.group, instance);
        }
    }

    /// Tasks go to the promoted instance's release from now on; those in flight end where they are.
    pub fn promote(&self, instance: InstanceId) {
        let Some(release) = lock(&self.instances).get(&instance).map(|loaded| loaded.release.clone()) else { return };
        {
            let mut promoted = lock(&self.promoted);
            promoted.retain(|earlier| earlier.id != release.id);
            promoted.push_back(release.clone());
            while promoted.len() > RELEASES_HELD {
                promoted.pop_front();
            }
        }
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
