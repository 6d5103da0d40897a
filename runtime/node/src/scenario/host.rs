//! The host that a scenario's guest sees: a group that exists only in memory, and keeps a record of what it was asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_core::id::{Epoch, NodeId};
use bellwether_core::member::{Leader, Member};
use bellwether_core::state::{Entry, Expectation, MAX_KEY, MAX_VALUE, StateError, StateOp, StateReply};
use bellwether_core::work::WorkError;
use bellwether_guest::host::{Assignment, ClusterError, Host, HttpError, HttpRequest, LogLevel, Task};
use bellwether_guest::{Instance, WorkerPool};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::document::{HttpFailure, HttpReaction, Reaction, State, StateFailure, Step};
use super::report::matches;
use crate::shared::lock;

const INERT: &str = "effects are refused while an instance is made, and while a snapshot is taken or restored";

/// Lines of the record that a step may make; the guest's own limits end it long before.
const MAX_RECORD: usize = 10_000;

/// Makes the instances that do a member's tasks.
pub(super) type Pools = Box<dyn Fn(Arc<Member>) -> WorkerPool + Send>;

/// The group, as this node sees it.
pub(super) struct World {
    this: Arc<Member>,
    access: State,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    epoch: Option<Epoch>,
    members: Arc<[Arc<Member>]>,
    state: BTreeMap<String, Entry>,
    watched: BTreeSet<String>,
    changed: VecDeque<String>,
    resigned: bool,
    answers: BTreeMap<String, Reaction>,
    http: BTreeMap<String, HttpReaction>,
    state_fails: Option<StateFailure>,
    calls: Vec<String>,
    log: Vec<String>,
    /// None if the component does no tasks.
    pools: Option<Pools>,
    /// The members that did some already.
    working: BTreeMap<NodeId, WorkerPool>,
}

/// What a step left behind.
#[derive(Default)]
pub(super) struct Record {
    pub calls: Vec<String>,
    pub log: Vec<String>,
}

/// Bytes as a scenario writes them: text where they are text.
pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("0x{}", hex::encode(bytes)),
    }
}

impl World {
    pub fn new(this: Member, access: State, state: &BTreeMap<String, String>) -> Arc<Self> {
        let entry = |value: &String| Entry { value: value.as_bytes().into(), version: 0 };
        let state = state.iter().map(|(key, value)| (key.clone(), entry(value))).collect();
        Arc::new(Self { this: Arc::new(this), access, inner: Mutex::new(Inner { state, ..Inner::default() }) })
    }

    /// Tasks are done by these from now on: each member has its own, and this node too.
    pub fn set_pools(&self, pools: Option<Pools>) {
        let mut inner = lock(&self.inner);
        inner.pools = pools;
        inner.working.clear();
    }

    pub fn set_epoch(&self, epoch: Option<Epoch>) {
        let mut inner = lock(&self.inner);
        inner.epoch = epoch;
        inner.resigned = false;
        if epoch.is_none() && self.access != State::All {
            inner.watched.clear();
        }
    }

    pub fn epoch(&self) -> Option<Epoch> {
        lock(&self.inner).epoch
    }

    pub fn set_members(&self, members: Vec<Arc<Member>>) {
        lock(&self.inner).members = members.into();
    }

    /// Whether the guest has resigned since it was asked last.
    pub fn take_resigned(&self) -> bool {
        std::mem::take(&mut lock(&self.inner).resigned)
    }

    /// The next watched key that has changed.
    pub fn take_changed(&self) -> Option<(String, Option<Entry>)> {
        let mut inner = lock(&self.inner);
        let key = inner.changed.pop_front()?;
        let entry = inner.state.get(&key).cloned();
        Some((key, entry))
    }

    /// The instance is another one: it watches nothing yet.
    pub fn forget_watches(&self) {
        let mut inner = lock(&self.inner);
        inner.watched.clear();
        inner.changed.clear();
    }

    pub fn begin(&self, step: &Step) {
        let mut inner = lock(&self.inner);
        inner.answers = step.answers.clone();
        inner.http = step.http.clone();
        inner.state_fails = step.state_fails;
    }

    pub fn end(&self) -> Record {
        let mut inner = lock(&self.inner);
        inner.answers.clear();
        inner.http.clear();
        inner.state_fails = None;
        Record { calls: std::mem::take(&mut inner.calls), log: std::mem::take(&mut inner.log) }
    }

    /// Somebody else writes, or deletes.
    pub fn write(&self, key: &str, value: Option<&str>) {
        lock(&self.inner).put(key, value.map(|value| value.as_bytes().into()));
    }

    pub fn state(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.inner).state.iter().map(|(key, entry)| (key.clone(), entry.value.to_vec())).collect()
    }

    /// What does this node's tasks.
    pub fn pool(&self) -> Option<WorkerPool> {
        lock(&self.inner).pool(&self.this)
    }
}

impl Inner {
    fn pool(&mut self, member: &Arc<Member>) -> Option<WorkerPool> {
        let pools = self.pools.as_ref()?;
        Some(self.working.entry(member.id.clone()).or_insert_with(|| pools(member.clone())).clone())
    }

    fn note(&mut self, call: String) {
        if self.calls.len() < MAX_RECORD {
            self.calls.push(call);
        }
    }

    fn put(&mut self, key: &str, value: Option<Arc<[u8]>>) -> u32 {
        let version = self.state.get(key).map_or(0, |entry| entry.version + 1);
        match value {
            Some(value) => drop(self.state.insert(key.to_owned(), Entry { value, version })),
            None => drop(self.state.remove(key)),
        }
        if self.watched.contains(key) && !self.changed.iter().any(|changed| changed == key) {
            self.changed.push_back(key.to_owned());
        }
        version
    }

    fn holds(&self, key: &str, expect: Expectation) -> Result<(), StateError> {
        let version = self.state.get(key).map(|entry| entry.version);
        let fine = match expect {
            Expectation::Anything => true,
            Expectation::Absent => version.is_none(),
            Expectation::Version(wanted) => version == Some(wanted),
        };
        if fine { Ok(()) } else { Err(StateError::Conflict(version)) }
    }

    fn perform(&mut self, op: StateOp) -> Result<StateReply, StateError> {
        match op {
            StateOp::Get(key) => Ok(StateReply::Entry(self.state.get(&key).cloned())),
            StateOp::List(prefix) => {
                Ok(StateReply::Keys(self.state.keys().filter(|key| key.starts_with(&prefix)).cloned().collect()))
            }
            StateOp::Put { key, value, expect } => {
                self.holds(&key, expect)?;
                Ok(StateReply::Version(self.put(&key, Some(value))))
            }
            StateOp::Delete { key, expect } => {
                if self.state.contains_key(&key) || matches!(expect, Expectation::Version(_)) {
                    self.holds(&key, expect)?;
                }
                self.put(&key, None);
                Ok(StateReply::Done)
            }
            StateOp::Watch(key) => {
                self.watched.insert(key.clone());
                self.changed.push_back(key);
                Ok(StateReply::Done)
            }
            StateOp::Unwatch(key) => {
                self.watched.remove(&key);
                self.changed.retain(|changed| *changed != key);
                Ok(StateReply::Done)
            }
        }
    }
}

/// How an operation stands in the record; none for those that only read.
fn describe(op: &StateOp) -> Option<String> {
    let condition = |expect: &Expectation| match expect {
        Expectation::Anything => String::new(),
        Expectation::Absent => " if absent".to_owned(),
        Expectation::Version(version) => format!(" if version {version}"),
    };
    match op {
        StateOp::Get(_) | StateOp::List(_) => None,
        StateOp::Put { key, value, expect } => Some(format!("state.put {key} {}{}", shown(value), condition(expect))),
        StateOp::Delete { key, expect } => Some(format!("state.delete {key}{}", condition(expect))),
        StateOp::Watch(key) => Some(format!("state.watch {key}")),
        StateOp::Unwatch(key) => Some(format!("state.unwatch {key}")),
    }
}

fn fit(op: &StateOp) -> Result<(), StateError> {
    let key = match op {
        StateOp::List(_) => return Ok(()),
        StateOp::Get(key) | StateOp::Watch(key) | StateOp::Unwatch(key) => key,
        StateOp::Put { key, .. } | StateOp::Delete { key, .. } => key,
    };
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(StateError::BadKey(format!("{} bytes: a key has 1 to {MAX_KEY}", key.len())));
    }
    match op {
        StateOp::Put { value, .. } if value.len() > MAX_VALUE => Err(StateError::TooLarge(MAX_VALUE as u64)),
        _ => Ok(()),
    }
}

/// The world as one instance sees it.
pub(super) struct Seen {
    pub world: Arc<World>,
    /// The node that the instance is on.
    pub this: Arc<Member>,
    /// Whether it hears the callbacks; otherwise it does tasks.
    pub callbacks: bool,
    /// Off until the first callback or task, and while `snapshot` or `restore` runs.
    pub effects: AtomicBool,
}

impl Seen {
    /// An instance of this node that hears the callbacks.
    pub fn here(world: &Arc<World>) -> Arc<Self> {
        let this = world.this.clone();
        Arc::new(Self { world: world.clone(), this, callbacks: true, effects: AtomicBool::new(false) })
    }

    /// An instance that does the tasks of a member.
    pub fn at(world: &Arc<World>, this: Arc<Member>) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), this, callbacks: false, effects: AtomicBool::new(false) })
    }

    fn term(&self) -> Option<Epoch> {
        if self.callbacks { self.world.epoch() } else { None }
    }

    fn may_act(&self) -> bool {
        self.effects.load(Ordering::Acquire)
    }

    fn ask_state(&self, op: StateOp) -> Result<StateReply, StateError> {
        if !self.may_act() {
            return Err(StateError::Other(INERT.into()));
        }
        let term = self.term();
        let writes = matches!(op, StateOp::Put { .. } | StateOp::Delete { .. });
        if term.is_none() && (writes || self.world.access != State::All) {
            return Err(StateError::NotLeader);
        }
        fit(&op)?;
        let mut inner = lock(&self.world.inner);
        if let Some(call) = describe(&op) {
            inner.note(call);
        }
        let failed = inner.state_fails;
        if failed == Some(StateFailure::Unavailable) {
            return Err(StateError::Unavailable("the scenario says so".into()));
        }
        let result = inner.perform(op);
        match failed {
            Some(StateFailure::Lost) => Err(StateError::Unavailable("the answer was lost".into())),
            _ => result,
        }
    }

    /// Nothing leaves: the scenario says how it is answered, with status 200 and nothing else where it is silent.
    fn request(&self, asked: &HttpRequest) -> Result<http::Response<Bytes>, HttpError> {
        if !self.may_act() {
            return Err(HttpError::Other(INERT.into()));
        }
        if self.callbacks && self.term().is_none() {
            return Err(HttpError::NotLeader);
        }
        let what = format!("{} {}", asked.request.method(), asked.request.uri());
        let body = asked.request.body();
        let mut inner = lock(&self.world.inner);
        inner.note(if body.is_empty() { format!("http {what}") } else { format!("http {what} {}", shown(body)) });
        match inner.http.iter().find(|(pattern, _)| matches(pattern, &what)).map(|(_, reaction)| reaction) {
            None => Ok(http::Response::new(Bytes::new())),
            Some(HttpReaction::Failure(HttpFailure::Refused)) => Err(HttpError::Refused),
            Some(HttpReaction::Failure(HttpFailure::TimedOut)) => Err(HttpError::TimedOut),
            Some(HttpReaction::Answer(answer)) => {
                let response = http::Response::builder().status(answer.status).body(Bytes::from(answer.body.clone()));
                response.map_err(|error| HttpError::Other(format!("the scenario's answer cannot be given: {error}")))
            }
        }
    }

    async fn work(&self, assignment: Assignment, timeout: Duration) -> Result<Bytes, WorkError> {
        if !self.may_act() {
            return Err(WorkError::Other(INERT.into()));
        }
        let Some(epoch) = self.term() else { return Err(WorkError::NotLeader) };
        let to = assignment.to.as_str();
        let (reaction, pool) = {
            let mut inner = lock(&self.world.inner);
            if assignment.to == self.world.this.id {
                return Err(WorkError::Other("a node cannot hand work to itself".into()));
            }
            let Some(member) = inner.members.iter().find(|member| member.id == assignment.to).cloned() else {
                return Err(WorkError::UnknownMember);
            };
            inner.note(format!("workers.send {to} {}", shown(&assignment.payload)));
            (inner.answers.get(to).cloned(), inner.pool(&member))
        };
        match (reaction, pool) {
            (Some(Reaction::Answer(answer)), _) => Ok(answer.into()),
            (Some(Reaction::Failed(why)), _) => Err(WorkError::Failed(why)),
            (Some(Reaction::Unreachable), _) => Err(WorkError::Unreachable("the scenario says so".into())),
            (Some(Reaction::TimedOut), _) => Err(WorkError::TimedOut),
            (Some(Reaction::Overloaded), _) => Err(WorkError::Overloaded),
            (Some(Reaction::StaleEpoch(epoch)), _) => Err(WorkError::StaleEpoch(Epoch(epoch))),
            (None, None) => Err(WorkError::Other("this member does no tasks: its component has no `worker`".into())),
            (None, Some(pool)) => {
                let (sender, payload) = (self.world.this.id.clone(), assignment.payload);
                pool.handle(Task { sender, epoch: Some(epoch), payload }, timeout).await
            }
        }
    }
}

impl Host for Seen {
    fn this(&self) -> Arc<Member> {
        self.this.clone()
    }

    fn members(&self) -> Arc<[Arc<Member>]> {
        if self.term().is_some() { lock(&self.world.inner).members.clone() } else { Arc::default() }
    }

    fn leader(&self) -> BoxFuture<'_, Result<Option<Leader>, ClusterError>> {
        let (id, address) = (self.world.this.id.clone(), self.world.this.address.clone());
        std::future::ready(Ok(self.world.epoch().map(|epoch| Leader { id, epoch, address }))).boxed()
    }

    fn epoch(&self) -> Option<Epoch> {
        self.term()
    }

    fn given_task(&self) {
        self.effects.store(true, Ordering::Release);
    }

    fn resign(&self) -> Result<(), ClusterError> {
        if !self.may_act() {
            return Err(ClusterError::Other(INERT.into()));
        }
        if self.term().is_none() {
            return Err(ClusterError::NotLeader);
        }
        let mut inner = lock(&self.world.inner);
        inner.note("cluster.resign".to_owned());
        inner.resigned = true;
        Ok(())
    }

    fn send(&self, assignment: Assignment, timeout: Duration) -> BoxFuture<'_, Result<Bytes, WorkError>> {
        self.work(assignment, timeout).boxed()
    }

    fn state(&self, op: StateOp) -> BoxFuture<'_, Result<StateReply, StateError>> {
        std::future::ready(self.ask_state(op)).boxed()
    }

    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        std::future::ready(self.request(&request)).boxed()
    }

    fn log(&self, level: LogLevel, context: &str, message: &str) {
        let level = match level {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        };
        let mut inner = lock(&self.world.inner);
        if inner.log.len() < MAX_RECORD {
            let space = if context.is_empty() { "" } else { " " };
            inner.log.push(format!("{level} {context}{space}{message}"));
        }
    }
}

/// An instance that hears callbacks, and its view of the world.
pub(super) struct Guest {
    pub instance: Instance,
    pub seen: Arc<Seen>,
}

/// A member's id, checked.
pub(super) fn node_id(id: &str) -> Result<NodeId, String> {
    NodeId::new(id).map_err(|error| error.to_string())
}
