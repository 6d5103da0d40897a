//! What a session owns, kept where it outlives the session's task: for whoever clears it away after a crash.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_core::id::{Generation, SessionId, Tag};
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError};
use futures::FutureExt;
use tokio::sync::Notify;

use crate::{Coordinator, Session, SessionEvent, Sink};

/// So many changes are kept for who has not asked yet; then all is told anew.
const CHANGES_MAX: usize = 4096;

/// What is released is told so much later, with all else that has changed by then: each telling wakes a task and a process, at the very moment
/// when a leadership changes hands. To delete what is gone does no harm.
const RELEASE_TOLD_AFTER: Duration = Duration::from_millis(20);

/// A session and the ephemeral sequential znodes that are known to be its: candidates and members, which others wait for. Their names are never
/// given to anybody else, so that they can be deleted by name. The session's other znodes are in nobody's way until it times out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The session.
    pub session: SessionId,
    /// Its timeout: when nobody keeps it, all of this goes by itself.
    pub timeout: Duration,
    /// The paths, below the chroot.
    pub znodes: BTreeSet<String>,
}

/// What is new of an estate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Whatever was told before is to be forgotten: this is all; nothing while there is no session.
    Everything(Option<Holdings>),
    /// What has changed since, in this order.
    Changes(Vec<Change>),
}

/// A change of what a session owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It owns this znode.
    Owns(String),
    /// It does not own it any more.
    Released(String),
}

/// What the present session owns.
#[derive(Debug, Clone, Default)]
pub struct Estate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ledger: Mutex<Ledger>,
    changed: Notify,
    /// That something has changed will be told.
    gathering: AtomicBool,
}

#[derive(Debug, Default)]
struct Ledger {
    holdings: Option<Holdings>,
    /// Since the last look; none if everything is to be told.
    changes: Option<Vec<Change>>,
}

impl Estate {
    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ledger().holdings.is_none()
    }

    /// Has everything told from now on: who was told before is gone.
    pub fn start_over(&self) {
        self.ledger().changes = None;
    }

    /// What is new since the last look.
    #[must_use]
    pub fn news(&self) -> News {
        let mut ledger = self.ledger();
        match ledger.changes.replace(Vec::new()) {
            Some(changes) => News::Changes(changes),
            None => News::Everything(ledger.holdings.clone()),
        }
    }

    /// Waits for a change since the last wait; a change that nobody waited for counts.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// The session's thread takes this lock as well: whoever has it does some instructions, and for a few of them a copy.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, session: SessionId, timeout: Duration) {
        let holdings = Some(Holdings { session, timeout, znodes: BTreeSet::new() });
        *self.ledger() = Ledger { holdings, changes: None };
        // Whoever was about to tell of changes may have ended with the session before.
        self.0.gathering.store(false, Ordering::Release);
        self.0.changed.notify_one();
    }

    /// Changes what `session` owns; late news of another one changes nothing.
    fn change(&self, session: SessionId, change: Change) {
        let mut ledger = self.ledger();
        let Ledger { holdings, changes } = &mut *ledger;
        let Some(holdings) = holdings.as_mut().filter(|holdings| holdings.session == session) else { return };
        let is_new = match &change {
            Change::Owns(path) => !holdings.znodes.contains(path) && holdings.znodes.insert(path.clone()),
            Change::Released(path) => holdings.znodes.remove(path),
        };
        if !is_new {
            return;
        }
        let owns = matches!(change, Change::Owns(_));
        match changes {
            Some(kept) if kept.len() < CHANGES_MAX => kept.push(change),
            _ => *changes = None,
        }
        drop(ledger);
        if owns {
            self.0.changed.notify_one();
        } else {
            self.tell_later();
        }
    }

    /// On the runtime of whoever changes something, which has timers; where there is none, at once.
    fn tell_later(&self) {
        if self.0.gathering.swap(true, Ordering::AcqRel) {
            return;
        }
        let estate = self.clone();
        let tell = move || {
            // Before it is told: what changes from here on is told once more.
            estate.0.gathering.store(false, Ordering::Release);
            estate.0.changed.notify_one();
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(tokio::time::sleep(RELEASE_TOLD_AFTER).map(move |()| tell()))),
            Err(_) => tell(),
        }
    }

    fn end(&self, session: SessionId) {
        let mut ledger = self.ledger();
        if ledger.holdings.take_if(|holdings| holdings.session == session).is_some() {
            ledger.changes = None;
            drop(ledger);
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
        self.record.note(tag, &request);
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

/// What the path of a znode is below.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Asked {
    fn of(request: &Request) -> Option<Self> {
        match request {
            Request::Create { mode: CreateMode::EphemeralSequential, .. } => Some(Self::Created),
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
    /// Where sequential znodes were asked for: two places for each group.
    places: BTreeSet<String>,
}

impl Record {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, tag: Tag, request: &Request) {
        let mut state = self.state();
        if let Request::Create { path, mode: CreateMode::EphemeralSequential, .. } = request
            && !state.places.contains(parent(path))
        {
            state.places.insert(parent(path).to_owned());
        }
        // What was not made in one of these places, or is not found there, is of no interest.
        let asked = Asked::of(request).filter(|asked| match asked {
            Asked::Read(path) => state.places.contains(parent(path)),
            Asked::Created | Asked::Deleted(_) => true,
        });
        if let Some(asked) = asked {
            state.asked.insert(tag, asked);
        }
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
                    (Asked::Read(path), Err(RequestError::NoNode)) => self.disown(session, vec![path]),
                    (Asked::Deleted(paths), Ok(_)) => self.disown(session, paths),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn own(&self, session: SessionId, path: &str) {
        self.estate.change(session, Change::Owns(path.to_owned()));
    }

    fn disown(&self, session: SessionId, paths: Vec<String>) {
        for path in paths {
            self.estate.change(session, Change::Released(path));
        }
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
            self.record.note(tag, request);
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
        estate.ledger().holdings.as_ref().map(|holdings| holdings.znodes.iter().cloned().collect())
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
        bench.read("/nodes/a", Ok(OURS));
        assert_eq!(owned(&estate).unwrap(), ["/e/n_1", "/e/n_2"]);
        bench.read("/e/n_2", Err(RequestError::NoNode));
        let delete = |path: &str| Op::Delete { path: path.into(), version: None };
        bench.ask(&Request::Multi(vec![delete("/e/n_1")]), Err(RequestError::NoNode));
        assert_eq!(owned(&estate).unwrap(), ["/e/n_1"], "a multi that failed has done nothing");
        bench.ask(&Request::Multi(vec![delete("/e/n_1")]), Ok(Reply::Multi(vec![None])));
        bench.ask(&Request::Delete { path: "/nodes/a".into(), version: None }, Ok(Reply::Deleted));
        assert_eq!(owned(&estate).unwrap(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owned_is_told_at_once_and_what_is_released_a_little_later_and_together() {
        let estate = Estate::default();
        let mut bench = Bench::opened(&estate, OURS);
        estate.changed().await;
        assert!(matches!(estate.news(), News::Everything(Some(_))));
        for _ in 0..2 {
            let began = tokio::time::Instant::now();
            for path in ["/e/n_1", "/e/n_2"] {
                bench.create(CreateMode::EphemeralSequential, created(path));
            }
            estate.changed().await;
            assert_eq!(began.elapsed(), Duration::ZERO);
            assert!(matches!(estate.news(), News::Changes(changes) if changes.len() == 2));
            for path in ["/e/n_1", "/e/n_2"] {
                bench.read(path, Err(RequestError::NoNode));
            }
            estate.changed().await;
            assert_eq!(began.elapsed(), RELEASE_TOLD_AFTER);
            assert!(matches!(estate.news(), News::Changes(changes) if changes.len() == 2));
        }
        // The end of a session is told at once.
        let began = tokio::time::Instant::now();
        bench.record.hear(&SessionEvent::Ended { reason: "closed".into(), permanent: false });
        estate.changed().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[test]
    fn late_news_of_a_former_session_changes_nothing() {
        let estate = Estate::default();
        let mut former = Bench::opened(&estate, OURS);
        former.create(CreateMode::EphemeralSequential, created("/e/old"));
        let mut present = Bench::opened(&estate, SessionId(8));
        present.create(CreateMode::EphemeralSequential, created("/e/new"));
        former.create(CreateMode::EphemeralSequential, created("/e/late"));
        former.ask(&Request::Delete { path: "/e/new".into(), version: None }, Ok(Reply::Deleted));
        former.record.hear(&SessionEvent::Ended { reason: "expired".into(), permanent: false });
        assert_eq!(owned(&estate).unwrap(), ["/e/new"]);
        present.record.hear(&SessionEvent::Ended { reason: "closed".into(), permanent: false });
        assert_eq!(owned(&estate), None);
    }

    #[test]
    fn news_are_told_once_and_all_of_it_where_too_much_was_missed() {
        let estate = Estate::default();
        assert_eq!(estate.news(), News::Everything(None));
        let mut bench = Bench::opened(&estate, OURS);
        assert!(matches!(estate.news(), News::Everything(Some(_))));
        bench.create(CreateMode::EphemeralSequential, created("/e/n_1"));
        bench.read("/e/n_1", Ok(OURS));
        bench.read("/e/n_1", Err(RequestError::NoNode));
        let (came, went) = (Change::Owns("/e/n_1".into()), Change::Released("/e/n_1".into()));
        assert_eq!(estate.news(), News::Changes(vec![came, went]));
        assert_eq!(estate.news(), News::Changes(Vec::new()));
        for n in 0..=CHANGES_MAX {
            bench.create(CreateMode::EphemeralSequential, created(&format!("/e/n_{n}")));
        }
        let News::Everything(Some(holdings)) = estate.news() else { panic!("more than is kept") };
        assert_eq!(holdings.znodes.len(), CHANGES_MAX + 1);
        estate.start_over();
        assert!(matches!(estate.news(), News::Everything(Some(_))), "another one listens");
    }
}
