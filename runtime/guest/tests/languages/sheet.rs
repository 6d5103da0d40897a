//! A node that writes down all that a guest asks of it and says, and answers as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, Cause, DemotionReason, GuestState, Returned};
use bellwether_core::id::{Epoch, NodeId};
use bellwether_core::member::{Leader, Member, MembershipChange};
use bellwether_core::state::{Entry, Expectation, StateError, StateOp, StateReply};
use bellwether_core::work::WorkError;
use bellwether_guest::host::{Assignment, ClusterError, Host, LogLevel, Task};
use bellwether_guest::{Component, Engine, EngineOptions, Grants, Instance, Limits, PoolOptions, WorkerPool};
use bellwether_tests::guests::{folder, language};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

/// Longer than anything takes on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The node, and its notes.
#[derive(Default)]
pub struct Sheet {
    notes: Mutex<String>,
    pub total: Mutex<Option<Entry>>,
    /// What the next reads and writes fail with.
    pub reads: Mutex<VecDeque<StateError>>,
    pub writes: Mutex<VecDeque<StateError>>,
    /// What becomes of jobs; all others are done.
    pub jobs: Mutex<BTreeMap<u64, Result<Vec<u8>, WorkError>>>,
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

impl Sheet {
    pub fn note(&self, line: &str) {
        let _ = writeln!(locked(&self.notes), "{line}");
    }

    /// The notes since the last time, with the language's name out of what it wrote.
    pub fn take(&self, language: &str) -> String {
        std::mem::take(&mut *locked(&self.notes)).replace(&format!("1 {language} "), "1 LANGUAGE ")
    }

    /// What somebody else wrote to the key.
    pub fn holds(&self, value: &[u8], version: u32) {
        self.note(&format!("# total is {}, version {version}", text(value)));
        *locked(&self.total) = Some(Entry { value: value.into(), version });
    }

    fn answer(&self, op: &StateOp) -> Result<StateReply, StateError> {
        match op {
            StateOp::Get(key) if key == "total" => match locked(&self.reads).pop_front() {
                Some(error) => Err(error),
                None => Ok(StateReply::Entry(locked(&self.total).clone())),
            },
            StateOp::Put { key, value, expect } if key == "total" => {
                if let Some(error) = locked(&self.writes).pop_front() {
                    return Err(error);
                }
                let mut total = locked(&self.total);
                let held = total.as_ref().map(|entry| entry.version);
                let expected = match expect {
                    Expectation::Anything => held,
                    Expectation::Absent => None,
                    Expectation::Version(version) => Some(*version),
                };
                if expected != held {
                    return Err(StateError::Conflict(held));
                }
                let version = held.map_or(0, |version| version + 1);
                *total = Some(Entry { value: Arc::clone(value), version });
                Ok(StateReply::Version(version))
            }
            other => Err(StateError::Other(format!("the sums have no business with {other:?}"))),
        }
    }
}

impl Host for Sheet {
    fn this(&self) -> Arc<Member> {
        self.note("  this");
        member("n0", None)
    }

    fn members(&self) -> Arc<[Arc<Member>]> {
        self.note("  members");
        Arc::new([])
    }

    fn leader(&self) -> BoxFuture<'_, Result<Option<Leader>, ClusterError>> {
        self.note("  leader");
        Box::pin(async { Ok(None) })
    }

    fn epoch(&self) -> Option<Epoch> {
        self.note("  epoch");
        None
    }

    fn resign(&self) -> Result<(), ClusterError> {
        self.note("  resign");
        Ok(())
    }

    fn send(&self, assignment: Assignment, timeout: Duration) -> BoxFuture<'_, Result<Bytes, WorkError>> {
        // Some of the time that was asked for has passed already.
        let seconds =
            if timeout <= Duration::from_secs(1) { 1.0 } else { (timeout.as_secs_f64() / 10.0).ceil() * 10.0 };
        self.note(&format!("  send {} {} within {seconds} s", assignment.to, text(&assignment.payload)));
        let job = text(&assignment.payload).strip_prefix("square ").and_then(|job| job.parse::<u64>().ok());
        let answer = match job {
            None => Err(WorkError::Failed("not a job".into())),
            Some(job) => locked(&self.jobs).remove(&job).unwrap_or_else(|| Ok((job * job).to_string().into_bytes())),
        };
        Box::pin(async { answer.map(Bytes::from) })
    }

    fn state(&self, op: StateOp) -> BoxFuture<'_, Result<StateReply, StateError>> {
        let answer = self.answer(&op);
        let asked = match &op {
            StateOp::Get(key) => format!("get {key}"),
            StateOp::Put { key, value, expect } => format!("put {key} {}, {expect:?}", text(value)),
            other => format!("{other:?}"),
        };
        let answered = match &answer {
            Ok(StateReply::Entry(None)) => "nothing".to_owned(),
            Ok(StateReply::Entry(Some(entry))) => format!("{}, version {}", text(&entry.value), entry.version),
            Ok(StateReply::Version(version)) => format!("version {version}"),
            other => format!("{other:?}"),
        };
        self.note(&format!("  {asked} -> {answered}"));
        Box::pin(async { answer })
    }

    fn log(&self, level: LogLevel, context: &str, message: &str) {
        // What the runtime advises is not the guest's word.
        if context != "runtime" {
            self.note(&format!("  {level:?} {context}: {message}"));
        }
    }
}

pub fn member(id: &str, capacity: Option<&str>) -> Arc<Member> {
    let labels = [("zone", Some("a")), ("capacity", capacity), ("aisle", Some("b"))];
    let labels = labels.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    Arc::new(Member { id: NodeId::new(id).expect("a name"), address: format!("{id}:1"), labels: labels.collect() })
}

pub fn elected(cause: Cause) -> Callback {
    // The greatest number that JavaScript holds exactly.
    Callback::Elected { epoch: Epoch((1 << 53) - 1), cause }
}

pub fn demoted(reason: DemotionReason) -> Callback {
    Callback::Demoted(reason)
}

pub fn members(
    version: u64,
    joined: &[(&str, Option<&str>)],
    changed: &[(&str, Option<&str>)],
    left: &[&str],
) -> Callback {
    let list = |all: &[(&str, Option<&str>)]| all.iter().map(|(id, capacity)| member(id, *capacity)).collect();
    Callback::MembersChanged(Arc::new(MembershipChange {
        version,
        joined: list(joined),
        changed: list(changed),
        left: left.iter().map(|id| NodeId::new(id).expect("a name")).collect(),
    }))
}

/// One engine for all tests of a process; what it compiled is kept for the next.
fn engine() -> &'static Engine {
    static ENGINE: std::sync::OnceLock<Engine> = std::sync::OnceLock::new();
    ENGINE.get_or_init(|| {
        let cache = folder().join("target/languages/compiled");
        Engine::new(EngineOptions { cache: Some(cache), ..EngineOptions::default() }).expect("an engine")
    })
}

/// The sums in a language.
pub async fn component(name: &'static str) -> Component {
    static COMPONENTS: OnceCell<Mutex<BTreeMap<&'static str, Component>>> = OnceCell::const_new();
    let known = COMPONENTS.get_or_init(|| async { Mutex::default() }).await;
    if let Some(component) = locked(known).get(name) {
        return component.clone();
    }
    let bytes = std::fs::read(language(name)).expect("the component can be read");
    let component = engine().compile(bytes.into()).await.expect("the guest fits the contract");
    locked(known).insert(name, component.clone());
    component
}

/// A guest on a sheet of its own.
pub struct Guest {
    pub sheet: Arc<Sheet>,
    instance: Instance,
    pool: WorkerPool,
}

impl Guest {
    pub async fn new(language: &'static str, config: &[(&str, &str)]) -> Self {
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let limits = Limits { callback: PATIENCE, ..Limits::default() };
        let linked = component(language).await.link(&Grants::default(), &limits, config).expect("all is granted");
        let sheet = Arc::new(Sheet::default());
        let host = Arc::clone(&sheet);
        let pool = WorkerPool::new(
            linked.clone(),
            PoolOptions { parallelism: 1, ..PoolOptions::default() },
            Arc::new(move || Arc::clone(&host) as Arc<dyn Host>),
        );
        let instance = linked.instantiate(Arc::clone(&sheet) as Arc<dyn Host>).await.expect("an instance");
        Self { sheet, instance, pool }
    }

    /// Calls the guest, and notes what was called and what came of it.
    pub async fn call(&self, callback: Callback) {
        self.sheet.note(&match &callback {
            Callback::Elected { cause, .. } => format!("elected, {cause:?}"),
            Callback::Demoted(reason) => format!("demoted, {reason:?}"),
            Callback::MembersChanged(change) => format!("members, version {}", change.version),
            Callback::Restore(state) => format!("restore {}", text(state)),
            other => other.name().to_owned(),
        });
        let result = self.instance.call(callback, PATIENCE).await;
        self.sheet.note(&match result {
            Ok(Returned::Done) => "= done".to_owned(),
            Ok(Returned::Snapshot(state)) => format!("= {}", text(&state)),
            Err(CallFailure::Refused(why)) => format!("= error: {why}"),
            Err(other) => format!("= LOST: {other}"),
        });
    }

    pub async fn tick(&self) {
        self.call(Callback::Tick).await;
    }

    /// The state that it hands over.
    pub async fn snapshot(&self) -> GuestState {
        match self.instance.call(Callback::Snapshot, PATIENCE).await {
            Ok(Returned::Snapshot(state)) => state,
            other => panic!("no snapshot: {other:?}"),
        }
    }

    /// Gives a worker a task.
    pub async fn work(&self, payload: &[u8], epoch: Option<u64>) {
        self.sheet.note(&format!("task {}", text(payload)));
        let task = Task {
            sender: NodeId::new("n0").expect("a name"),
            epoch: epoch.map(Epoch),
            payload: payload.to_vec().into(),
        };
        let result = self.pool.handle(task, PATIENCE).await;
        self.sheet.note(&match result {
            Ok(answer) => format!("= {}", text(&answer)),
            Err(WorkError::Failed(why)) => format!("= error: {why}"),
            Err(other) => format!("= LOST: {other}"),
        });
    }
}
