//! What the scenarios run on: a coordinator, what can be done to it, and a session that can be awaited.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bellwether_coordination::memory::{MemoryCoordinator, Whom};
use bellwether_coordination::zookeeper::{DigestAuth, Secret, ZookeeperConfig, ZookeeperCoordinator};
use bellwether_coordination::{Coordinator, Session, SessionEvent};
use bellwether_core::id::{Generation, SessionId, Tag};
use bellwether_core::request::{CreateMode, Reply, Request, RequestError, Stat};
use bellwether_tests::zookeeper::Server;
use tokio::sync::mpsc;

/// The longest that anything may take that shall happen.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The session timeout of most scenarios.
pub const TIMEOUT: Duration = Duration::from_secs(4);

/// A server that scenarios share: it is gone with the last of them, so that none is left behind.
static SHARED: Mutex<Weak<Mutex<Server>>> = Mutex::new(Weak::new());
static NEXT: AtomicUsize = AtomicUsize::new(0);

enum Control {
    Memory(MemoryCoordinator),
    Zookeeper { server: Arc<Mutex<Server>>, chroot: String },
}

pub struct Bed {
    pub coordinator: Arc<dyn Coordinator>,
    control: Control,
    /// Clients begin with as many watched bytes as their session can hold, so that others watch whatever they watch.
    full: bool,
}

/// The bytes of paths that the adapter lets one session watch.
pub const ROOM: usize = 96 * 1024;

impl Bed {
    pub fn memory() -> Self {
        let memory = MemoryCoordinator::new();
        Self { coordinator: Arc::new(memory.clone()), control: Control::Memory(memory), full: false }
    }

    pub fn zookeeper() -> Result<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let server = match shared.upgrade() {
            Some(server) => server,
            None => {
                let server = Arc::new(Mutex::new(Server::start()?));
                *shared = Arc::downgrade(&server);
                server
            }
        };
        Self::on(server)
    }

    pub fn zookeeper_alone() -> Result<Self> {
        Self::on(Arc::new(Mutex::new(Server::start()?)))
    }

    fn on(server: Arc<Mutex<Server>>) -> Result<Self> {
        let chroot = format!("/conformance/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let config = config_for(&server, &chroot)?;
        let coordinator = Arc::new(ZookeeperCoordinator::new(config)?);
        Ok(Self { coordinator, control: Control::Zookeeper { server, chroot }, full: false })
    }

    pub fn zookeeper_full() -> Result<Self> {
        Ok(Self { full: true, ..Self::zookeeper()? })
    }

    pub async fn client(&self) -> Result<Client> {
        self.client_with(TIMEOUT).await
    }

    pub async fn client_with(&self, timeout: Duration) -> Result<Client> {
        let mut client = self.opening(timeout);
        client.await_opened().await?;
        if let (true, Control::Zookeeper { chroot, .. }) = (self.full, &self.control) {
            client.fill(ROOM - chroot.len()).await?;
        }
        Ok(client)
    }

    /// A session that may not be open yet.
    pub fn opening(&self, timeout: Duration) -> Client {
        Client::open(&*self.coordinator, timeout)
    }

    /// Takes the service away: connections break at once, and no new ones are possible.
    pub async fn cut(&self) -> Result<()> {
        match &self.control {
            Control::Memory(memory) => {
                memory.unavailable(true);
                memory.disconnect(Whom::All);
            }
            Control::Zookeeper { server, .. } => {
                let server = server.clone();
                tokio::task::spawn_blocking(move || lock(&server).kill()).await?;
            }
        }
        Ok(())
    }

    /// Brings it back, with everything it held.
    pub async fn heal(&self) -> Result<()> {
        match &self.control {
            Control::Memory(memory) => {
                memory.unavailable(false);
                memory.reconnect(Whom::All);
            }
            Control::Zookeeper { server, .. } => {
                let server = server.clone();
                tokio::task::spawn_blocking(move || lock(&server).restart()).await??;
            }
        }
        Ok(())
    }

    /// Makes the znode `path`, and lets nobody of this bed change it or anything below.
    pub async fn forbid(&self, path: &str) -> Result<()> {
        match &self.control {
            Control::Memory(memory) => {
                let path = path.to_owned();
                memory.operate(Request::Create {
                    path: path.clone(),
                    data: Arc::default(),
                    mode: CreateMode::Persistent,
                })?;
                memory.deny(&path);
            }
            Control::Zookeeper { server, chroot } => {
                let mut config = config_for(server, chroot)?;
                config.auth = Some(DigestAuth { user: "other".to_owned(), password: Secret::new("secret") });
                let mut other = Client::open(&ZookeeperCoordinator::new(config)?, TIMEOUT);
                other.await_opened().await?;
                other.create(path, b"").await?;
                other.close().await?;
            }
        }
        Ok(())
    }

    pub fn is_memory(&self) -> bool {
        matches!(self.control, Control::Memory(_))
    }
}

fn lock(server: &Mutex<Server>) -> std::sync::MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config_for(server: &Mutex<Server>, chroot: &str) -> Result<ZookeeperConfig> {
    Ok(ZookeeperConfig::parse(&format!("zookeeper://{}{chroot}", lock(server).address()))?)
}

/// A session, with its events at hand.
pub struct Client {
    session: Option<Box<dyn Session>>,
    events: mpsc::Receiver<SessionEvent>,
    stash: VecDeque<SessionEvent>,
    next: u64,
    pub id: SessionId,
    pub timeout: Duration,
}

impl Client {
    pub fn open(coordinator: &dyn Coordinator, timeout: Duration) -> Self {
        let (sender, events) = mpsc::channel(64);
        let session = coordinator.open(
            Generation(7),
            timeout,
            Arc::new(move |generation, event| {
                assert_eq!(generation, Generation(7));
                let sender = sender.clone();
                Box::pin(async move {
                    // The test may be over.
                    let _ = sender.send(event).await;
                })
            }),
        );
        Self { session: Some(session), events, stash: VecDeque::new(), next: 0, id: SessionId(0), timeout }
    }

    pub async fn await_opened(&mut self) -> Result<()> {
        let opened = self.wait_for("Opened", |event| matches!(event, SessionEvent::Opened { .. })).await?;
        if let SessionEvent::Opened { session, timeout } = opened {
            self.id = session;
            self.timeout = timeout;
        }
        Ok(())
    }

    async fn pull(&mut self) -> Result<SessionEvent> {
        let next = tokio::time::timeout(PATIENCE, self.events.recv()).await.context("nothing happened")?;
        next.context("the session's task has ended")
    }

    /// The next event, in order.
    pub async fn next_event(&mut self) -> Result<SessionEvent> {
        match self.stash.pop_front() {
            Some(event) => Ok(event),
            None => self.pull().await,
        }
    }

    /// The first event that `wanted` takes; those before it stay.
    pub async fn wait_for(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&SessionEvent) -> bool,
    ) -> Result<SessionEvent> {
        if let Some(at) = self.stash.iter().position(&mut wanted)
            && let Some(found) = self.stash.remove(at)
        {
            return Ok(found);
        }
        loop {
            let event = self.pull().await.with_context(|| format!("waiting for {what}; so far {:?}", self.stash))?;
            if wanted(&event) {
                return Ok(event);
            }
            if let SessionEvent::Ended { reason, .. } = &event {
                bail!("waiting for {what}, but the session ended: {reason}");
            }
            self.stash.push_back(event);
        }
    }

    pub fn submit(&mut self, request: Request) -> Tag {
        self.next += 1;
        let tag = Tag(self.next);
        if let Some(session) = &mut self.session {
            session.submit(tag, request);
        }
        tag
    }

    pub async fn answer(&mut self, tag: Tag) -> Result<Result<Reply, RequestError>> {
        let is_it = |event: &SessionEvent| matches!(event, SessionEvent::Answered { tag: found, .. } if *found == tag);
        match self.wait_for(&format!("the answer to {tag}"), is_it).await? {
            SessionEvent::Answered { result, .. } => Ok(result),
            other => bail!("not an answer: {other:?}"),
        }
    }

    pub async fn call(&mut self, request: Request) -> Result<Result<Reply, RequestError>> {
        let tag = self.submit(request);
        self.answer(tag).await
    }

    pub async fn ok(&mut self, request: Request) -> Result<Reply> {
        let shown = format!("{request:?}");
        self.call(request).await?.with_context(|| shown)
    }

    pub async fn err(&mut self, request: Request) -> Result<RequestError> {
        let shown = format!("{request:?}");
        match self.call(request).await? {
            Ok(reply) => bail!("{shown} succeeded: {reply:?}"),
            Err(error) => Ok(error),
        }
    }

    pub async fn create(&mut self, path: &str, data: &[u8]) -> Result<()> {
        self.ok(create(path, data, CreateMode::Persistent)).await.map(drop)
    }

    pub async fn get(&mut self, path: &str) -> Result<(Arc<[u8]>, Stat)> {
        match self.ok(get(path, false)).await? {
            Reply::Data { data, stat } => Ok((data, stat)),
            other => bail!("not data: {other:?}"),
        }
    }

    pub async fn set(&mut self, path: &str, data: &[u8]) -> Result<Stat> {
        match self.ok(set(path, data, None)).await? {
            Reply::Written(stat) => Ok(stat),
            other => bail!("not written: {other:?}"),
        }
    }

    pub async fn list(&mut self, path: &str) -> Result<Vec<String>> {
        match self.ok(list(path, false)).await? {
            Reply::Children { mut names, .. } => {
                names.sort();
                Ok(names)
            }
            other => bail!("not children: {other:?}"),
        }
    }

    /// A znode's stat, as its list has it.
    pub async fn stat(&mut self, path: &str) -> Result<Stat> {
        match self.ok(list(path, false)).await? {
            Reply::Children { stat, .. } => Ok(stat),
            other => bail!("not children: {other:?}"),
        }
    }

    /// Watches a znode whose path is that long.
    pub async fn fill(&mut self, length: usize) -> Result<()> {
        let path = format!("/{}", "x".repeat(length - 1));
        match self.call(create(&path, b"", CreateMode::Persistent)).await? {
            Ok(_) | Err(RequestError::NodeExists) => self.watch(get(&path, true)).await.map(drop),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads with a watch; the tag names it.
    pub async fn watch(&mut self, request: Request) -> Result<Tag> {
        let tag = self.submit(request);
        self.answer(tag).await??;
        Ok(tag)
    }

    pub async fn fired(&mut self, tag: Tag) -> Result<()> {
        let is_it = |event: &SessionEvent| *event == SessionEvent::Fired { tag };
        self.wait_for(&format!("the watch {tag}"), is_it).await.map(drop)
    }

    /// That none of these watches has fired: everything that came before a round trip has come by now.
    pub async fn not_fired(&mut self, tags: &[Tag]) -> Result<()> {
        self.ok(Request::Sync { path: "/".to_owned() }).await?;
        self.ok(get("/", false)).await?;
        for event in &self.stash {
            if let SessionEvent::Fired { tag } = event
                && tags.contains(tag)
            {
                bail!("{tag} has fired");
            }
        }
        Ok(())
    }

    /// Takes the events of watches that have come so far; as [`Client::not_fired`], after a round trip.
    pub async fn fired_so_far(&mut self) -> Result<Vec<Tag>> {
        self.not_fired(&[]).await?;
        let mut fired = Vec::new();
        self.stash.retain(|event| match event {
            SessionEvent::Fired { tag } => {
                fired.push(*tag);
                false
            }
            _ => true,
        });
        Ok(fired)
    }

    /// The children that a lasting watch has named so far, each once for as long as nothing else comes between; as
    /// [`Client::not_fired`], after a round trip.
    pub async fn named(&mut self, watch: Tag) -> Result<Vec<String>> {
        self.not_fired(&[watch]).await?;
        let mut names = Vec::new();
        self.stash.retain(|event| match event {
            SessionEvent::ChildChanged { tag, name } if *tag == watch => {
                names.push(name.clone());
                false
            }
            _ => true,
        });
        names.dedup();
        Ok(names)
    }

    pub fn forget(&mut self, tag: Tag) {
        if let Some(session) = &mut self.session {
            session.forget(tag);
        }
    }

    pub async fn await_disconnected(&mut self) -> Result<()> {
        self.wait_for("Disconnected", |event| *event == SessionEvent::Disconnected).await.map(drop)
    }

    pub async fn await_reconnected(&mut self) -> Result<()> {
        match self.wait_for("Reconnected", |event| matches!(event, SessionEvent::Reconnected { .. })).await? {
            SessionEvent::Reconnected { session } if session == self.id => Ok(()),
            other => bail!("not reconnected to {}: {other:?}", self.id),
        }
    }

    /// Waits until the session has ended, and says whether for good; nothing may come after that.
    pub async fn await_ended(&mut self) -> Result<bool> {
        loop {
            if let SessionEvent::Ended { permanent, .. } = self.next_event().await? {
                let after = tokio::time::timeout(PATIENCE, self.events.recv()).await?;
                if let Some(after) = after {
                    bail!("{after:?} came after the end");
                }
                return Ok(permanent);
            }
        }
    }

    pub fn begin_close(&mut self) {
        if let Some(session) = &mut self.session {
            session.close();
        }
    }

    pub async fn close(mut self) -> Result<()> {
        self.begin_close();
        self.await_ended().await.map(drop)
    }

    /// Lets go of the session without closing it, as a crash would.
    pub fn crash(mut self) {
        self.session = None;
    }
}

pub fn create(path: &str, data: &[u8], mode: CreateMode) -> Request {
    Request::Create { path: path.to_owned(), data: data.into(), mode }
}

pub fn get(path: &str, watch: bool) -> Request {
    Request::Get { path: path.to_owned(), watch }
}

pub fn list(path: &str, watch: bool) -> Request {
    Request::List { path: path.to_owned(), watch }
}

pub fn watch_children(path: &str) -> Request {
    Request::WatchChildren { path: path.to_owned() }
}

pub fn set(path: &str, data: &[u8], version: Option<i32>) -> Request {
    Request::Set { path: path.to_owned(), data: data.into(), version }
}

pub fn delete(path: &str, version: Option<i32>) -> Request {
    Request::Delete { path: path.to_owned(), version }
}
