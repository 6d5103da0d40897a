//! Carries out what the core wants of guests: prepare, call, stop, promote, drain.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, PrepareFailure, Prepared, Returned, Step};
use bellwether_core::event::{Event, Source};
use bellwether_core::id::{CallId, Epoch, InstanceId, ReleaseId};
use bellwether_core::release::Wanted;
use bellwether_guest::{Engine, Host, Instance, WorkerPool};
use bellwether_source::{Reference, Sources};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::clock;
use crate::effects;
use crate::host::InstanceHost;
use crate::outcomes;
use crate::release::{Asked, Release, ReleaseSpec};
use crate::shared::{GroupShared, NodeShared, lock};
use crate::wanted::Wish;

/// Releases that a group can go back to, the present one counted.
const RELEASES_HELD: usize = 3;

/// An instance that hears callbacks.
#[derive(Clone)]
struct Loaded {
    instance: Instance,
    host: Arc<InstanceHost>,
    release: Release,
    /// For the tasks of a release that takes another's place, until it does.
    pool: Option<WorkerPool>,
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
    sources: Sources,
    spec: ReleaseSpec,
    /// The manifest's release as it was when the node started: a tag that has moved since is not followed without being told.
    started: Option<Release>,
    /// What was looked at last to be deployed: kept for this node, and for others that ask for its components.
    checked: Mutex<Option<Release>>,
    runtime: Handle,
    /// Where releases are got ready: what serves others comes first.
    background: Handle,
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
        (engine, sources): (Engine, Sources),
        (spec, started): (ReleaseSpec, Option<Release>),
        (runtime, background): (Handle, Handle),
    ) -> Arc<Self> {
        // A file is read again: whoever changes it wants that.
        let started = started.filter(|_| spec.component.file().is_none());
        Arc::new(Self {
            node,
            group,
            engine,
            sources,
            spec,
            started,
            checked: Mutex::default(),
            runtime,
            background,
            instances: Mutex::default(),
            promoted: Mutex::default(),
            pooled: Mutex::default(),
        })
    }

    /// What the running release's component was obtained from, for people.
    pub fn component(&self) -> Option<Arc<str>> {
        lock(&self.promoted).back().map(|release| release.component.clone())
    }

    /// Obtains, compiles and links what shall be deployed, and gives it as the group's document has it.
    pub async fn check(self: &Arc<Self>, wish: Wish) -> Result<Wanted, PrepareFailure> {
        let guests = self.clone();
        let checking = async move { guests.spec.check(&guests.engine, &guests.sources, wish).await };
        let (wanted, release) = self.in_background(checking).await?;
        *lock(&self.checked) = Some(release);
        Ok(wanted)
    }

    /// Gets something ready; if nobody waits for it any more, that ends as well.
    async fn in_background<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, PrepareFailure>> + Send + 'static,
    ) -> Result<T, PrepareFailure> {
        let mut tasks = JoinSet::new();
        // Until something runs, nobody is served here whom this could hold up.
        let serves = !lock(&self.promoted).is_empty();
        tasks.spawn_on(work, if serves { &self.background } else { &self.runtime });
        let ended = tasks.join_next().await.and_then(Result::ok);
        ended.unwrap_or_else(|| {
            let reason = "getting the release ready has failed; this is a fault of bellwether, or the node is stopping";
            Err(PrepareFailure { step: Step::Read, reason: reason.to_owned() })
        })
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

    async fn load(self: &Arc<Self>, instance: InstanceId, source: Source) -> Result<Prepared, PrepareFailure> {
        let mut took = Vec::new();
        let returns = matches!(source, Source::Earlier(_));
        let held = {
            let promoted = lock(&self.promoted);
            match &source {
                Source::Current => promoted.back().or(self.started.as_ref()).cloned(),
                Source::Earlier(wanted) => promoted.iter().find(|release| release.id == *wanted).cloned(),
                Source::Manifest => self.started.clone(),
                // What runs or ran, or was looked at to be deployed, is at hand, even if it is not to be had any more.
                Source::Wanted(deployed) => {
                    let id = self.spec.wanted_id(&deployed.wanted);
                    let checked = lock(&self.checked).clone().filter(|release| release.id == id);
                    promoted.iter().find(|release| release.id == id).cloned().or(checked)
                }
                Source::Component(_) | Source::Configured { .. } => None,
            }
        };
        let release = match held {
            Some(held) => held,
            None => {
                let guests = self.clone();
                let obtaining = async move {
                    let mut took = Vec::new();
                    let release = guests.obtain(source, &mut took).await?;
                    Ok((release, took))
                };
                let (release, steps) = self.in_background(obtaining).await?;
                took.extend(steps);
                release
            }
        };
        let before = clock::now();
        let host = InstanceHost::new(self.node.clone(), self.group.clone(), Some(instance));
        let live = release.linked.instantiate(host.clone()).await.map_err(PrepareFailure::from)?;
        let pool = match self.warm_pool(&release).await {
            // The way back is not barred by what can be made good later.
            Err(_) if returns => None,
            pool => pool?,
        };
        took.push((Step::Instantiate, clock::now().since(before)));
        let prepared = Prepared {
            instance,
            took: took.into(),
            release: release.id.clone(),
            digest: release.linked.component().digest().into(),
            exports: release.linked.exports(),
        };
        let term = Arc::new(AtomicU64::new(0));
        lock(&self.instances).insert(instance, Loaded { instance: live, host, release, pool, term });
        Ok(prepared)
    }

    /// Obtains, compiles and links a release that is not at hand.
    async fn obtain(&self, source: Source, took: &mut Vec<(Step, Duration)>) -> Result<Release, PrepareFailure> {
        match source {
            Source::Earlier(wanted) => {
                let reason = format!("release {wanted} is not held any more");
                Err(PrepareFailure { step: Step::Read, reason })
            }
            Source::Component(text) => self.anew(&self.spec, &text, took).await,
            Source::Configured { component: Some(text), config } => {
                self.anew(&self.spec.with(config)?, &text, took).await
            }
            Source::Configured { component: None, config } => {
                let running = lock(&self.promoted).back().cloned();
                let running = running.ok_or_else(|| PrepareFailure {
                    step: Step::Read,
                    reason: "no component runs yet whose configuration could be changed".to_owned(),
                })?;
                let (component, worker) = (running.linked.component(), running.tasks.component());
                let named = (&running.reference, running.component.clone());
                self.spec.with(config)?.unite(component, worker, named, running.held.clone(), took)
            }
            Source::Wanted(deployed) => {
                self.spec.load_wanted(&self.engine, &self.sources, &deployed.wanted, took).await
            }
            Source::Current | Source::Manifest => {
                let reference = &self.spec.component;
                Ok(self.spec.load(&self.engine, &self.sources, reference, Asked::AtStart, took).await?)
            }
        }
    }

    /// A pool for the tasks of a release, if it does any.
    fn pool(&self, release: &Release) -> Option<WorkerPool> {
        release.tasks.exports().worker.then(|| {
            let (node, group) = (self.node.clone(), self.group.clone());
            let hosts = move || InstanceHost::new(node.clone(), group.clone(), None) as Arc<dyn Host>;
            WorkerPool::new(release.tasks.clone(), self.spec.pool, Arc::new(hosts))
        })
    }

    /// The same with an instance, if tasks go to another release now: they shall not wait when this one takes over, and one that
    /// cannot do any does not take over.
    async fn warm_pool(&self, release: &Release) -> Result<Option<WorkerPool>, PrepareFailure> {
        let replaces = lock(&self.pooled).as_ref().is_some_and(|pooled| *pooled != release.id);
        let Some(pool) = self.pool(release).filter(|_| replaces) else { return Ok(None) };
        pool.warm().await?;
        Ok(Some(pool))
    }

    /// The release of the component that `text` names now, made as `spec` says.
    async fn anew(
        &self,
        spec: &ReleaseSpec,
        text: &str,
        took: &mut Vec<(Step, Duration)>,
    ) -> Result<Release, PrepareFailure> {
        let reference = text.parse::<Reference>().map_err(|error| PrepareFailure {
            step: Step::Read,
            reason: format!("not the name of a component: {error}"),
        })?;
        Ok(spec.load(&self.engine, &self.sources, &reference, Asked::Anew, took).await?)
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
        loaded.host.let_act(!matches!(callback, Callback::Snapshot | Callback::Restore(_)));
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
            loaded.host.let_act(false);
            loaded.instance.stop();
            loaded.gone(&self.group, instance);
        }
    }

    /// Tasks go to the promoted instance's release from now on; those in flight end where they are.
    pub fn promote(&self, instance: InstanceId) {
        let promoted =
            lock(&self.instances).get_mut(&instance).map(|loaded| (loaded.release.clone(), loaded.pool.take()));
        let Some((release, pool)) = promoted else { return };
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
        let pool = pool.or_else(|| self.pool(&release));
        if let Some(pool) = pool.as_ref().filter(|_| !self.spec.probation.is_zero()) {
            let (mailbox, group) = (self.node.mailbox.clone(), self.group.name.clone());
            self.runtime.spawn(outcomes::report(
                mailbox,
                group,
                release.id.clone(),
                pool.outcomes(),
                self.spec.probation,
            ));
        }
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
