//! Plays a scenario: the callbacks that a real node would make, in its order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, Cause, DemotionReason, Returned};
use bellwether_core::id::{Epoch, NodeId};
use bellwether_core::member::{Member, MembershipChange};
use bellwether_core::work::WorkError;
use bellwether_guest::grants::{Origin, StateGrant};
use bellwether_guest::host::Task;
use bellwether_guest::{Component, Engine, Grants, Host, Limits, Linked, PoolOptions, WorkerPool};

use super::document::{Demotion, File, Returns, Scenario, State, Step};
use super::host::{Guest, Pools, Record, Seen, World, node_id};
use super::report::{StepReport, compare};
use crate::shared::lock;

/// Deliveries of `on-state-changed` after one step: a guest that writes what it watches would never end.
const MAX_CHANGES: usize = 100;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Ok,
    Error(String),
    Trap(String),
    TimeOut,
    /// The step could not be played.
    Impossible(String),
}

impl From<CallFailure> for Ended {
    fn from(failure: CallFailure) -> Self {
        match failure {
            CallFailure::Refused(why) => Self::Error(why),
            CallFailure::TimedOut { .. } => Self::TimeOut,
            CallFailure::Trapped(why) | CallFailure::OverLimit(why) => Self::Trap(why),
            CallFailure::Stopped => Self::Trap("the instance was stopped".to_owned()),
        }
    }
}

/// What a group's members run.
#[derive(Clone)]
struct Release {
    callbacks: Linked,
    tasks: Linked,
}

/// What all scenarios of a file share.
pub(super) struct Stage<'a> {
    pub engine: &'a Engine,
    pub file: &'a File,
    pub limits: Limits,
    pub http: Vec<Origin>,
    /// The folder that relative paths begin at.
    pub base: &'a Path,
    pub component: PathBuf,
    pub worker: Option<PathBuf>,
    /// What was compiled already.
    pub compiled: Mutex<BTreeMap<PathBuf, Component>>,
}

impl Stage<'_> {
    fn access(&self) -> State {
        self.file.grants.state.unwrap_or(State::Leader)
    }

    fn grants(&self) -> Grants {
        let defaults = Grants::default();
        Grants {
            state: match self.access() {
                State::None => StateGrant::None,
                State::Leader => StateGrant::Leader,
                State::All => StateGrant::All,
            },
            workers: self.file.grants.workers.unwrap_or(defaults.workers),
            logging: self.file.grants.logging.unwrap_or(defaults.logging),
            env: self.file.grants.env.clone(),
            http: self.http.clone(),
            ..defaults
        }
    }

    /// The release of a component, with the settings of a scenario.
    async fn release(&self, component: &Path, scenario: &Scenario) -> Result<Release, String> {
        let mut config = self.file.config.clone();
        config.extend(scenario.config.clone());
        let worker = self.worker.as_deref().unwrap_or(component);
        let link = async |file: &Path| {
            let linked = self.compile(file).await?.link(&self.grants(), &self.limits, config.clone());
            linked.map_err(|error| format!("{}: {error}", file.display()))
        };
        Ok(Release { callbacks: link(component).await?, tasks: link(worker).await? })
    }

    async fn compile(&self, file: &Path) -> Result<Component, String> {
        let held = lock(&self.compiled).get(file).cloned();
        if let Some(held) = held {
            return Ok(held);
        }
        let shown = file.display();
        let bytes =
            tokio::fs::read(file).await.map_err(|error| format!("the component {shown} cannot be read: {error}"))?;
        let compiled = self.engine.compile(bytes.into()).await.map_err(|error| format!("{shown}: {error}"))?;
        lock(&self.compiled).insert(file.to_owned(), compiled.clone());
        Ok(compiled)
    }

    /// Whether the component under test can be used at all.
    pub async fn check(&self, scenario: &Scenario) -> Result<(), String> {
        self.release(&self.component, scenario).await.map(drop)
    }

    /// Plays one scenario to its end, or to the first step that did not go as expected.
    pub async fn play(&self, scenario: &Scenario) -> Result<Vec<StepReport>, String> {
        let release = self.release(&self.component, scenario).await?;
        let this = Member { id: node_id(&scenario.node)?, address: "127.0.0.1:1".to_owned(), labels: BTreeMap::new() };
        let world = World::new(this, self.access(), &scenario.state);
        let mut play = Play {
            stage: self,
            scenario,
            world,
            release: release.clone(),
            guest: None,
            members: BTreeMap::new(),
            told: BTreeMap::new(),
            version: 0,
        };
        play.join(&scenario.members)?;
        play.promote(release);
        play.guest = Some(play.instantiate().await?);
        let mut reports = Vec::new();
        for step in &scenario.step {
            play.world.begin(step);
            let (ended, answer) = play.step(step).await;
            let Record { calls, log } = play.world.end();
            let leads = play.world.epoch().is_some();
            let problems = compare(&step.expect, &ended, &calls, &log, &play.world.state(), answer.as_deref(), leads);
            let failed = !problems.is_empty();
            reports.push(StepReport { what: step.what()?, problems, calls, log });
            if failed {
                break;
            }
            if ended != Ended::Ok && play.guest.is_none() {
                play.restart().await?;
            }
        }
        Ok(reports)
    }
}

struct Play<'a> {
    stage: &'a Stage<'a>,
    scenario: &'a Scenario,
    world: Arc<World>,
    release: Release,
    /// None after a trap.
    guest: Option<Guest>,
    members: BTreeMap<NodeId, Arc<Member>>,
    /// What the instance was told of the members.
    told: BTreeMap<NodeId, Arc<Member>>,
    version: u64,
}

impl Play<'_> {
    fn join(&mut self, members: &[super::document::Member]) -> Result<(), String> {
        for member in members {
            let (id, labels) = match member {
                super::document::Member::Id(id) => (id, BTreeMap::new()),
                super::document::Member::Labelled { id, labels } => (id, labels.clone()),
            };
            let id = node_id(id)?;
            let address = format!("{id}:7400");
            self.members.insert(id.clone(), Arc::new(Member { id, address, labels }));
        }
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        self.world.set_members(self.members.values().cloned().collect());
    }

    /// Tasks go to instances of this release from now on.
    fn promote(&mut self, release: Release) {
        let (world, tasks) = (self.world.clone(), release.tasks.clone());
        let pools = release.tasks.exports().worker.then(|| {
            Box::new(move |member: Arc<Member>| {
                let world = world.clone();
                let hosts = move || Seen::at(&world, member.clone()) as Arc<dyn Host>;
                WorkerPool::new(tasks.clone(), PoolOptions::default(), Arc::new(hosts))
            }) as Pools
        });
        self.world.set_pools(pools);
        self.release = release;
    }

    async fn instantiate(&self) -> Result<Guest, String> {
        let seen = Seen::here(&self.world);
        let instance = self.release.callbacks.instantiate(seen.clone()).await;
        Ok(Guest { instance: instance.map_err(|error| error.to_string())?, seen })
    }

    async fn call(&mut self, callback: Callback) -> Result<Returned, Ended> {
        let Some(guest) = &self.guest else { return Err(Ended::Impossible("the instance is gone".into())) };
        let result = call(guest, callback, self.stage.limits.callback).await;
        if result.as_ref().is_err_and(|failure| !failure.leaves_instance()) {
            self.guest = None;
        }
        result.map_err(Ended::from)
    }

    /// Tells the instance what has changed among the members.
    async fn tell_members(&mut self) -> Result<(), Ended> {
        if self.world.epoch().is_none() {
            return Ok(());
        }
        let joined = self.members.values().filter(|member| !self.told.contains_key(&member.id)).cloned().collect();
        let changed =
            self.members.values().filter(|member| self.told.get(&member.id).is_some_and(|told| told != *member));
        let changed = changed.cloned().collect();
        let left = self.told.keys().filter(|id| !self.members.contains_key(*id)).cloned().collect();
        let change = MembershipChange { version: self.version + 1, joined, changed, left };
        if change.joined.is_empty() && change.changed.is_empty() && change.left.is_empty() {
            return Ok(());
        }
        self.version = change.version;
        self.told = self.members.clone();
        self.call(Callback::MembersChanged(Arc::new(change))).await.map(drop)
    }

    async fn elected(&mut self, epoch: Epoch, cause: Cause) -> Result<(), Ended> {
        match self.call(Callback::Elected { epoch, cause }).await {
            Ok(_) => self.tell_members().await,
            Err(Ended::Error(why)) => {
                // It does not want to lead.
                self.demoted(DemotionReason::Failed(why.clone())).await?;
                Err(Ended::Error(why))
            }
            Err(other) => Err(other),
        }
    }

    async fn demoted(&mut self, reason: DemotionReason) -> Result<(), Ended> {
        self.world.set_epoch(None);
        self.call(Callback::Demoted(reason)).await.map(drop)
    }

    /// What follows from what the guest did: it resigned, or a key that it watches has changed.
    async fn settle(&mut self) -> Result<(), Ended> {
        for _ in 0..MAX_CHANGES {
            if self.world.take_resigned() {
                self.demoted(DemotionReason::Resigned).await?;
                continue;
            }
            let Some((key, entry)) = self.world.take_changed() else { return Ok(()) };
            if self.release.callbacks.exports().observer {
                self.call(Callback::StateChanged { key, entry }).await?;
            }
        }
        Err(Ended::Impossible(format!(
            "on-state-changed was called {MAX_CHANGES} times: does the guest write what it watches?"
        )))
    }

    /// A fresh instance takes the place of one that was lost, as on a node.
    async fn restart(&mut self) -> Result<(), String> {
        self.world.forget_watches();
        self.told.clear();
        self.version = 0;
        self.guest = Some(self.instantiate().await?);
        if let Some(epoch) = self.world.epoch() {
            let told = self.elected(epoch, Cause::Restart).await;
            told.map_err(|ended| format!("the instance that replaced the lost one failed too: {ended:?}"))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> (Ended, Option<Vec<u8>>) {
        let mut answer = None;
        let result = async {
            self.act(step, &mut answer).await?;
            self.settle().await
        };
        (result.await.err().unwrap_or(Ended::Ok), answer)
    }

    async fn act(&mut self, step: &Step, answer: &mut Option<Vec<u8>>) -> Result<(), Ended> {
        let impossible = |why: String| Ended::Impossible(why);
        if let Some(epoch) = step.elect {
            if self.world.epoch().is_some() {
                return Err(impossible("this node leads already: `demote` it first".to_owned()));
            }
            self.world.set_epoch(Some(Epoch(epoch)));
            return self.elected(Epoch(epoch), Cause::Election).await;
        }
        if let Some(reason) = step.demote {
            if self.world.epoch().is_none() {
                return Err(impossible("this node does not lead: `elect` it first".to_owned()));
            }
            return self.demoted(reason.into()).await;
        }
        if let Some(members) = &step.join {
            self.join(members).map_err(impossible)?;
            return self.tell_members().await;
        }
        if let Some(members) = &step.leave {
            for id in members {
                if self.members.remove(&node_id(id).map_err(impossible)?).is_none() {
                    return Err(impossible(format!("there is no member {id} that could leave")));
                }
            }
            self.publish();
            return self.tell_members().await;
        }
        if let Some(times) = step.tick {
            if !self.release.callbacks.exports().ticker {
                return Err(impossible("the component does not export `ticker`".to_owned()));
            }
            for _ in 0..times {
                self.call(Callback::Tick).await?;
                self.settle().await?;
            }
        }
        if let Some(task) = &step.task {
            *answer = Some(self.task(task).await?);
        }
        for (key, value) in step.write.iter().flatten() {
            self.world.write(key, Some(value));
        }
        for key in step.delete.iter().flatten() {
            self.world.write(key, None);
        }
        match &step.swap {
            Some(component) => self.swap(component).await,
            None => Ok(()),
        }
    }

    async fn task(&self, task: &super::document::Task) -> Result<Vec<u8>, Ended> {
        let Some(pool) = self.world.pool() else {
            return Err(Ended::Impossible("the component does not export `worker`".to_owned()));
        };
        let work = Task {
            sender: node_id(&task.from).map_err(Ended::Impossible)?,
            epoch: task.epoch.map(Epoch),
            payload: task.payload.clone().into(),
        };
        match pool.handle(work, self.stage.limits.task).await {
            Ok(answer) => Ok(answer.to_vec()),
            Err(WorkError::TimedOut) => Err(Ended::TimeOut),
            Err(WorkError::Failed(why)) => Err(Ended::Error(why)),
            Err(other) => Err(Ended::Error(other.to_string())),
        }
    }

    /// Another release takes over. If it fails to, the old one goes on.
    async fn swap(&mut self, component: &str) -> Result<(), Ended> {
        let file = match component {
            "same" => self.stage.component.clone(),
            other => self.stage.base.join(other),
        };
        let release = self.stage.release(&file, self.scenario).await.map_err(Ended::Impossible)?;
        let Some(old) = self.guest.take() else { return Err(Ended::Impossible("the instance is gone".into())) };
        let exports = (self.release.callbacks.exports().handover, release.callbacks.exports().handover);
        let before = std::mem::replace(&mut self.release, release.clone());
        let back = |play: &mut Self, ended| {
            play.release = before.clone();
            Err(ended)
        };
        let new = match self.instantiate().await {
            Ok(new) => new,
            Err(why) => {
                self.guest = Some(old);
                return back(self, Ended::Trap(why));
            }
        };
        if exports == (true, true) {
            let budget = self.stage.limits.callback;
            let given = call(&old, Callback::Snapshot, budget).await;
            let taken = match given {
                Ok(Returned::Snapshot(state)) => call(&new, Callback::Restore(state), budget).await,
                Ok(Returned::Done) => Ok(Returned::Done),
                Err(failure) => {
                    if failure.leaves_instance() {
                        self.guest = Some(old);
                    }
                    return back(self, failure.into());
                }
            };
            if let Err(failure) = taken {
                self.guest = Some(old);
                return back(self, failure.into());
            }
        }
        self.world.forget_watches();
        self.told.clear();
        self.version = 0;
        self.guest = Some(new);
        let told = match self.world.epoch() {
            Some(epoch) => self.elected(epoch, Cause::Swap).await,
            None => Ok(()),
        };
        if let Err(ended) = told {
            self.guest = Some(old);
            return back(self, ended);
        }
        self.promote(release);
        Ok(())
    }
}

async fn call(guest: &Guest, callback: Callback, budget: Duration) -> Result<Returned, CallFailure> {
    let effects = !matches!(callback, Callback::Snapshot | Callback::Restore(_));
    guest.seen.effects.store(effects, Ordering::Release);
    guest.instance.call(callback, budget).await
}

impl From<Demotion> for DemotionReason {
    fn from(demotion: Demotion) -> Self {
        match demotion {
            Demotion::Resigned => Self::Resigned,
            Demotion::LeaseLost => Self::LeaseLost,
            Demotion::SessionLost => Self::SessionLost,
            Demotion::Superseded => Self::Superseded,
            Demotion::Stopping => Self::Stopping,
        }
    }
}

impl Returns {
    /// Whether a step that ended like this returned as expected.
    pub(super) fn fits(&self, ended: &Ended) -> bool {
        match (self, ended) {
            (Self::Ok, Ended::Ok) | (Self::TimeOut, Ended::TimeOut) => true,
            (Self::Error(part), Ended::Error(why)) | (Self::Trap(part), Ended::Trap(why)) => why.contains(part),
            _ => false,
        }
    }
}
