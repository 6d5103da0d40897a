//! A node for guests to run on: it does what the tests want of it and remembers what it was asked.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bellwether_core::id::{Epoch, NodeId};
use bellwether_core::member::{Leader, Member};
use bellwether_core::state::{Entry, Expectation, StateError, StateOp, StateReply};
use bellwether_core::work::WorkError;
use bellwether_guest::host::{Assignment, ClusterError, Host, HttpError, HttpRequest, LogLevel, Task};
use bellwether_guest::{Component, Engine, EngineOptions, Grants, Instance, Limits, Linked};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OnceCell, watch};

/// Longer than anything a test waits for, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The node.
pub struct Script {
    pub epoch: Mutex<Option<Epoch>>,
    pub members: Mutex<Vec<Arc<Member>>>,
    pub entries: Mutex<BTreeMap<String, Entry>>,
    pub logged: watch::Sender<Vec<(LogLevel, String, String)>>,
    /// Host calls that hang just now.
    pub hanging: watch::Sender<usize>,
    pub sending: AtomicUsize,
    pub most_sending: AtomicUsize,
    /// Tasks that it was told of.
    pub given: AtomicUsize,
    pub last_timeout: Mutex<Option<Duration>>,
}

impl Script {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            epoch: Mutex::new(Some(Epoch(7))),
            members: Mutex::new(vec![member("w1"), member("w2")]),
            entries: Mutex::default(),
            logged: watch::Sender::new(Vec::new()),
            hanging: watch::Sender::new(0),
            sending: AtomicUsize::new(0),
            most_sending: AtomicUsize::new(0),
            given: AtomicUsize::new(0),
            last_timeout: Mutex::new(None),
        })
    }

    pub fn lines(&self, context: &str) -> Vec<String> {
        let logged = self.logged.borrow();
        logged.iter().filter(|(_, c, _)| c == context).map(|(_, _, message)| message.clone()).collect()
    }

    /// Waits until so many host calls hang.
    pub async fn hangs(&self, count: usize) {
        let mut hanging = self.hanging.subscribe();
        let waited = tokio::time::timeout(PATIENCE, hanging.wait_for(|now| *now == count)).await;
        waited.expect("the host calls hang, or have been dropped, in time").expect("the node is there");
    }

    /// Waits for a line of this context.
    pub async fn says(&self, context: &str) {
        let mut logged = self.logged.subscribe();
        let waited =
            tokio::time::timeout(PATIENCE, logged.wait_for(|all| all.iter().any(|(_, c, _)| c == context))).await;
        waited.expect("the guest says so in time").expect("the node is there");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn member(id: &str) -> Arc<Member> {
    Arc::new(Member { id: NodeId::new(id).expect("a name"), address: format!("{id}:1"), labels: BTreeMap::new() })
}

struct Hanging<'a>(&'a watch::Sender<usize>);

impl<'a> Hanging<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|now| *now += 1);
        Self(count)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|now| *now -= 1);
    }
}

impl Host for Script {
    fn this(&self) -> Arc<Member> {
        member("me")
    }

    fn members(&self) -> Arc<[Arc<Member>]> {
        locked(&self.members).clone().into()
    }

    fn leader(&self) -> BoxFuture<'_, Result<Option<Leader>, ClusterError>> {
        Box::pin(async {
            let epoch = *locked(&self.epoch);
            Ok(epoch.map(|epoch| Leader { id: member("me").id.clone(), epoch, address: "me:1".into() }))
        })
    }

    fn epoch(&self) -> Option<Epoch> {
        *locked(&self.epoch)
    }

    fn resign(&self) -> Result<(), ClusterError> {
        locked(&self.epoch).take().map(drop).ok_or(ClusterError::NotLeader)
    }

    fn given_task(&self) {
        self.given.fetch_add(1, Ordering::SeqCst);
    }

    fn send(&self, assignment: Assignment, timeout: Duration) -> BoxFuture<'_, Result<Bytes, WorkError>> {
        Box::pin(async move {
            *locked(&self.last_timeout) = Some(timeout);
            let now = self.sending.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_sending.fetch_max(now, Ordering::SeqCst);
            let answer = match assignment.to.as_str() {
                "hang" | "n3" => {
                    let _hanging = Hanging::new(&self.hanging);
                    std::future::pending().await
                }
                "nobody" => Err(WorkError::UnknownMember),
                "stale" => Err(WorkError::StaleEpoch(Epoch(9))),
                "given" => Ok(self.given.load(Ordering::SeqCst).to_string().into()),
                "big" => Ok(vec![0; 1 << 20].into()),
                _ => {
                    // So that others begin before this one ends.
                    tokio::task::yield_now().await;
                    Ok(assignment.payload)
                }
            };
            self.sending.fetch_sub(1, Ordering::SeqCst);
            answer
        })
    }

    fn state(&self, op: StateOp) -> BoxFuture<'_, Result<StateReply, StateError>> {
        Box::pin(async move {
            if self.epoch().is_none() {
                return Err(StateError::NotLeader);
            }
            let mut entries = locked(&self.entries);
            match op {
                StateOp::Get(key) => Ok(StateReply::Entry(entries.get(&key).cloned())),
                StateOp::Put { key, value, expect } => {
                    let held = entries.get(&key).map(|entry| entry.version);
                    let fits = match expect {
                        Expectation::Anything => true,
                        Expectation::Absent => held.is_none(),
                        Expectation::Version(version) => held == Some(version),
                    };
                    if !fits {
                        return Err(StateError::Conflict(held));
                    }
                    let version = held.map_or(0, |version| version + 1);
                    entries.insert(key, Entry { value, version });
                    Ok(StateReply::Version(version))
                }
                StateOp::Delete { key, .. } => {
                    entries.remove(&key);
                    Ok(StateReply::Done)
                }
                StateOp::List(prefix) => {
                    Ok(StateReply::Keys(entries.keys().filter(|key| key.starts_with(&prefix)).cloned().collect()))
                }
                StateOp::Watch(_) | StateOp::Unwatch(_) => Ok(StateReply::Done),
            }
        })
    }

    fn http(&self, asked: HttpRequest) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        Box::pin(async move {
            let request = asked.request;
            match request.uri().path() {
                "/hang" => {
                    let _hanging = Hanging::new(&self.hanging);
                    std::future::pending().await
                }
                "/not-leader" => return Err(HttpError::NotLeader),
                "/refused" => return Err(HttpError::Refused),
                _ => {}
            }
            let by = request.headers().get("x-asked-by").and_then(|by| by.to_str().ok()).unwrap_or_default();
            let body = String::from_utf8_lossy(request.body());
            self.log(LogLevel::Info, "http", &format!("{} {} {by} {body}", request.method(), request.uri()));
            let mut response = http::Response::new(Bytes::from_static(b"made"));
            if request.uri().path() == "/long-header" {
                let long = http::HeaderValue::from_bytes(&[b'x'; 70_000]).expect("a value");
                response.headers_mut().insert("x-long", long);
            }
            *response.status_mut() = http::StatusCode::from_u16(299).expect("a status");
            Ok(response)
        })
    }

    fn log(&self, level: LogLevel, context: &str, message: &str) {
        self.logged.send_modify(|all| all.push((level, context.to_owned(), message.to_owned())));
    }
}

/// One engine for all tests of a process. As in a node, guests that compute have a runtime of their own.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<(Engine, Runtime)> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        let guests = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let options = EngineOptions { runtime: Some(guests.handle().clone()), ..EngineOptions::default() };
        (Engine::new(options).expect("an engine"), guests)
    });
    &engine.0
}

/// The guest that does as it is told.
pub async fn probe() -> &'static Component {
    static PROBE: OnceCell<Component> = OnceCell::const_new();
    PROBE
        .get_or_init(|| async {
            engine().compile(bellwether_tests::guests::guest_bytes("probe").into()).await.expect("the probe is well")
        })
        .await
}

pub fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A release of the probe.
pub async fn linked(grants: &Grants, limits: &Limits, orders: &[(&str, &str)]) -> Linked {
    probe().await.link(grants, limits, config(orders)).expect("everything the probe imports is granted")
}

/// An instance of the probe with the usual limits.
pub async fn instance(orders: &[(&str, &str)]) -> (Instance, Arc<Script>) {
    limited(&Limits::default(), orders).await
}

/// An instance of the probe with limits of its own.
pub async fn limited(limits: &Limits, orders: &[(&str, &str)]) -> (Instance, Arc<Script>) {
    let script = Script::new();
    let linked = linked(&Grants::default(), limits, orders).await;
    let instance = linked.instantiate(Arc::clone(&script) as Arc<dyn Host>).await.expect("an instance");
    (instance, script)
}

pub fn task(order: &str) -> Task {
    Task { sender: NodeId::new("leader").expect("a name"), epoch: Some(Epoch(7)), payload: order.to_owned().into() }
}
