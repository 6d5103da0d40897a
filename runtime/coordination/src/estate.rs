//! What a session owns, kept where it outlives the session's task: for whoever clears it away after a crash.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_core::id::{Generation, SessionId, Tag};
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError};
use tokio::sync::Notify;

use crate::{Coordinator, Session, SessionEvent, Sink};

/// A session and the ephemeral znodes that are known to be its.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The session.
    pub session: SessionId,
    /// Its timeout: when nobody keeps it, all of this goes by itself.
    pub timeout: Duration,
    /// The paths, below the chroot.
    pub znodes: BTreeSet<String>,
}

/// What the present session owns; nothing while there is none.
#[derive(Debug, Clone, Default)]
pub struct Estate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    holdings: Mutex<Option<Holdings>>,
    changed: Notify,
}

impl Estate {
    /// Looks at it. What is done here holds up the session's task: some microseconds, no more.
    pub fn look<T>(&self, look: impl FnOnce(Option<&Holdings>) -> T) -> T {
        look(self.holdings().as_ref())
    }

    /// Waits for a change since the last wait; a change that nobody waited for counts.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn holdings(&self) -> MutexGuard<'_, Option<Holdings>> {
        self.0.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, session: SessionId, timeout: Duration) {
        *self.holdings() = Some(Holdings { session, timeout, znodes: BTreeSet::new() });
        self.0.changed.notify_one();
    }

    /// Changes what `session` owns; late news of another one changes nothing.
    fn change(&self, session: SessionId, change: impl FnOnce(&mut BTreeSet<String>) -> bool) {
        let mut holdings = self.holdings();
        if let Some(holdings) = holdings.as_mut().filter(|holdings| holdings.session == session)
            && change(&mut holdings.znodes)
        {
            self.0.changed.notify_one();
        }
    }

    fn end(&self, session: SessionId) {
        if self.holdings().take_if(|holdings| holdings.session == session).is_some() {
            self.0.changed.notify_one();
        }
    }
}

/// A coordinator whose sessions are written down in an [`Estate`]. One that has lost the reply to a create is told of the znode when
/// its owner reads it.
pub struct Recorded {
    coordinator: Arc<dyn Coordinator>,
    estate: Estate,
}

impl Recorded {
    /// Records what the sessions of `coordinator` own; they must be opened one after the other.
    #[must_use]
    pub fn new(coordinator: Arc<dyn Coordinator>, estate: Estate) -> Self {
        Self { coordinator, estate }
    }
}

impl Coordinator for Recorded {
    fn open(&self, generation: Generation, timeout: Duration, sink: Sink) -> Box<dyn Session> {
        let record = Arc::new(Record { estate: self.estate.clone(), state: Mutex::default() });
        let noting = record.clone();
        let sink: Sink = Arc::new(move |generation, event| {
            noting.hear(&event);
            sink(generation, event)
        });
        Box::new(RecordedSession { session: self.coordinator.open(generation, timeout, sink), record })
    }
}

struct RecordedSession {
    session: Box<dyn Session>,
    record: Arc<Record>,
}

impl Session for RecordedSession {
    fn submit(&mut self, tag: Tag, request: Request) {
        if let Some(asked) = Asked::of(&request) {
            self.record.state().asked.insert(tag, asked);
        }
        self.session.submit(tag, request);
    }

    fn forget(&mut self, tag: Tag) {
        self.session.forget(tag);
    }

    fn close(&mut self) {
        self.session.close();
    }
}

/// A request whose answer may tell what is owned.
enum Asked {
    Created,
    Read(String),
    Deleted(Vec<String>),
}

impl Asked {
    fn of(request: &Request) -> Option<Self> {
        match request {
            Request::Create { mode: CreateMode::Ephemeral | CreateMode::EphemeralSequential, .. } => {
                Some(Self::Created)
            }
            Request::Get { path, .. } => Some(Self::Read(path.clone())),
            Request::Delete { path, .. } => Some(Self::Deleted(vec![path.clone()])),
            Request::Multi(operations) => {
                let deleted = operations.iter().filter_map(|operation| match operation {
                    Op::Delete { path, .. } => Some(path.clone()),
                    _ => None,
                });
                let deleted: Vec<String> = deleted.collect();
                (!deleted.is_empty()).then_some(Self::Deleted(deleted))
            }
            _ => None,
        }
    }
}

/// What one session has asked and come to own.
struct Record {
    estate: Estate,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<SessionId>,
    /// As many as the session has requests under way, which is bounded.
    asked: HashMap<Tag, Asked>,
}

impl Record {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, event: &SessionEvent) {
        let mut state = self.state();
        match event {
            SessionEvent::Opened { session, timeout } => {
                state.session = Some(*session);
                self.estate.begin(*session, *timeout);
            }
            SessionEvent::Ended { .. } => {
                if let Some(session) = state.session.take() {
                    self.estate.end(session);
                }
            }
            SessionEvent::Answered { tag, result } => {
                let (Some(asked), Some(session)) = (state.asked.remove(tag), state.session) else { return };
                match (asked, result) {
                    (Asked::Created, Ok(Reply::Created { path })) => self.own(session, path),
                    (Asked::Read(path), Ok(Reply::Data { stat, .. })) if stat.owner == Some(session) => {
                        self.own(session, &path);
                    }
                    (Asked::Read(path), Err(RequestError::NoNode)) => self.disown(session, &[path]),
                    (Asked::Deleted(paths), Ok(_)) => self.disown(session, &paths),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn own(&self, session: SessionId, path: &str) {
        // Not made anew at every read.
        self.estate.change(session, |znodes| !znodes.contains(path) && znodes.insert(path.to_owned()));
    }

    fn disown(&self, session: SessionId, paths: &[String]) {
        self.estate.change(session, |znodes| paths.iter().filter(|path| znodes.remove(*path)).count() > 0);
    }
}
