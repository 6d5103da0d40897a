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

#[cfg(test)]
mod tests {
    use bellwether_core::request::Stat;

    use super::*;

    const OURS: SessionId = SessionId(7);

    struct Bench {
        record: Record,
        tags: u64,
    }

    impl Bench {
        fn opened(estate: &Estate, session: SessionId) -> Self {
            let record = Record { estate: estate.clone(), state: Mutex::default() };
            record.hear(&SessionEvent::Opened { session, timeout: Duration::from_secs(6) });
            Self { record, tags: 0 }
        }

        fn ask(&mut self, request: &Request, result: Result<Reply, RequestError>) {
            self.tags += 1;
            let tag = Tag(self.tags);
            if let Some(asked) = Asked::of(request) {
                self.record.state().asked.insert(tag, asked);
            }
            self.record.hear(&SessionEvent::Answered { tag, result });
            assert!(self.record.state().asked.is_empty(), "what is answered is not kept");
        }

        fn create(&mut self, mode: CreateMode, result: Result<Reply, RequestError>) {
            self.ask(&Request::Create { path: "/e/n_".into(), data: Arc::from([]), mode }, result);
        }

        fn read(&mut self, path: &str, result: Result<SessionId, RequestError>) {
            let data =
                |owner| Reply::Data { data: Arc::from([]), stat: Stat { owner: Some(owner), ..Stat::default() } };
            self.ask(&Request::Get { path: path.into(), watch: false }, result.map(data));
        }
    }

    fn owned(estate: &Estate) -> Option<Vec<String>> {
        estate.look(|holdings| holdings.map(|holdings| holdings.znodes.iter().cloned().collect()))
    }

    fn created(path: &str) -> Result<Reply, RequestError> {
        Ok(Reply::Created { path: path.into() })
    }

    #[test]
    fn what_is_made_and_what_is_found_to_be_ours_is_owned_until_it_is_gone() {
        let estate = Estate::default();
        assert_eq!(owned(&estate), None);
        let mut bench = Bench::opened(&estate, OURS);
        bench.create(CreateMode::EphemeralSequential, created("/e/n_1"));
        bench.create(CreateMode::Ephemeral, created("/nodes/a"));
        bench.create(CreateMode::Persistent, created("/e"));
        bench.create(CreateMode::EphemeralSequential, Err(RequestError::Unknown("lost".into())));
        bench.read("/e/n_2", Ok(OURS));
        bench.read("/e/n_3", Ok(SessionId(8)));
        assert_eq!(owned(&estate).unwrap(), ["/e/n_1", "/e/n_2", "/nodes/a"]);
        bench.read("/e/n_2", Err(RequestError::NoNode));
        let delete = |path: &str| Op::Delete { path: path.into(), version: None };
        bench.ask(&Request::Multi(vec![delete("/e/n_1")]), Err(RequestError::NoNode));
        assert_eq!(owned(&estate).unwrap(), ["/e/n_1", "/nodes/a"], "a multi that failed has done nothing");
        bench.ask(&Request::Multi(vec![delete("/e/n_1")]), Ok(Reply::Multi(vec![None])));
        bench.ask(&Request::Delete { path: "/nodes/a".into(), version: None }, Ok(Reply::Deleted));
        assert_eq!(owned(&estate).unwrap(), [""; 0]);
    }

    #[test]
    fn late_news_of_a_former_session_changes_nothing() {
        let estate = Estate::default();
        let mut former = Bench::opened(&estate, OURS);
        former.create(CreateMode::Ephemeral, created("/e/old"));
        let mut present = Bench::opened(&estate, SessionId(8));
        present.create(CreateMode::Ephemeral, created("/e/new"));
        former.create(CreateMode::Ephemeral, created("/e/late"));
        former.ask(&Request::Delete { path: "/e/new".into(), version: None }, Ok(Reply::Deleted));
        former.record.hear(&SessionEvent::Ended { reason: "expired".into(), permanent: false });
        assert_eq!(owned(&estate).unwrap(), ["/e/new"]);
        present.record.hear(&SessionEvent::Ended { reason: "closed".into(), permanent: false });
        assert_eq!(owned(&estate), None);
    }
}
