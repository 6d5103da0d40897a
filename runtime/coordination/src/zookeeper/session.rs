//! One ZooKeeper session: the task behind its handle.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bellwether_core::id::{SessionId, Tag};
use bellwether_core::request::{CreateMode, Reply, Request, RequestError};
use futures::future::{AbortHandle, Abortable, FutureExt as _};
use futures::stream::{BoxStream, SelectAll, StreamExt as _};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};
use zookeeper_client::{Acls, Client, SessionState};

use super::config::ZookeeperConfig;
use super::connect::{Backoff, Failure, Link, connect};
use super::feed::{Feed, Standing, is_connected};
use super::handle::{Command, Owner};
use super::overflow::{Overflow, Room, Watched, look};
use super::request::{self, Answer, Lookout, Told, acls, lost, prepare};
use super::spawner::Serving;
use crate::SessionEvent;
use crate::check::{check, too_many};

/// How long closing may take at most, before the session is left to run out.
pub(super) const CLOSE: Duration = Duration::from_secs(5);

pub(super) async fn run(
    config: Arc<ZookeeperConfig>,
    timeout: Duration,
    owner: Owner,
    mut inbox: UnboundedReceiver<Command>,
) {
    let Some(opened) = establish(&config, timeout, &owner, &mut inbox).await else { return };
    let link = match opened {
        Ok(link) => link,
        Err((reason, permanent)) => return owner.end(inbox, reason, permanent).await,
    };
    let session = SessionId(link.client.session_id().0);
    let timeout = link.client.session_timeout();
    if !owner.arm(link.serving.stopper()) {
        return;
    }
    tracing::debug!(%session, ?timeout, "session opened");
    owner.tell(SessionEvent::Opened { session, timeout }).await;
    Live::new(link, config, owner, session, timeout).run(inbox).await;
}

/// Tries until there is a session. An error is the reason why there will be none, and whether for good; `None` means that the
/// owner is gone.
async fn establish(
    config: &ZookeeperConfig,
    timeout: Duration,
    owner: &Owner,
    inbox: &mut UnboundedReceiver<Command>,
) -> Option<Result<Link, (String, bool)>> {
    let mut backoff = Backoff::new();
    let mut told = None;
    loop {
        let reason = match until_closed(connect(config, timeout), owner, inbox).await? {
            None => return Some(Err(("closed before it was open".to_owned(), false))),
            Some(Ok(link)) => return Some(Ok(link)),
            Some(Err(Failure::Permanent(reason))) => return Some(Err((reason, true))),
            Some(Err(Failure::Passing(reason))) => reason,
        };
        if told.as_ref() != Some(&reason) {
            owner.tell(SessionEvent::Waiting { reason: reason.clone() }).await;
            told = Some(reason);
        }
        if until_closed(tokio::time::sleep(backoff.next()), owner, inbox).await?.is_none() {
            return Some(Err(("closed before it was open".to_owned(), false)));
        }
    }
}

/// Runs `work` while there is no session. `Some(None)`: the owner closed it; `None`: the owner is gone.
async fn until_closed<T>(
    work: impl Future<Output = T>,
    owner: &Owner,
    inbox: &mut UnboundedReceiver<Command>,
) -> Option<Option<T>> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Some(Some(done)),
            command = inbox.recv() => match command? {
                Command::Submit(tag, _) | Command::Refuse(tag) => owner.answer(tag, Err(not_connected())).await,
                Command::Forget(_) => {}
                Command::Close => return Some(None),
            },
        }
    }
}

fn not_connected() -> RequestError {
    RequestError::Unknown("not connected to ZooKeeper".to_owned())
}

/// A request that was sent, or would have been.
struct UnderWay {
    tag: Tag,
    slot: Slot,
}

enum Slot {
    Sent(request::Pending),
    Done(Box<Result<Answer, request::Failure>>),
}

/// An open session.
struct Live {
    /// First, so that it is stopped before the last client is dropped: dropping a `Live` must not close the session.
    serving: Serving,
    owner: Owner,
    session: SessionId,
    timeout: Duration,
    prefix: usize,
    acls: Acls<'static>,
    /// None once the owner has closed the session. When the last clone is gone, the library closes it.
    client: Option<Client>,
    feed: Feed,
    /// Requests in the order in which they were submitted; the server answers in that order as well.
    under_way: VecDeque<UnderWay>,
    watches: HashMap<Tag, AbortHandle>,
    /// What they tell.
    telling: SelectAll<BoxStream<'static, (Tag, Told)>>,
    /// For this session's own watches.
    room: Room,
    overflow: Overflow,
    /// Watches that were let go of before their request was answered.
    forgotten: HashSet<Tag>,
    /// The owner has been told that there is no connection.
    down: bool,
    /// The losses of which the owner knows that they are over.
    settled: u64,
    /// The first ephemeral znode that this session made.
    made: Option<String>,
    /// Connected again: what shows whether it is in the same session.
    proof: Option<request::Pending>,
    /// When the session is being closed: how long that may take.
    close_by: Option<Instant>,
    /// Why it is being closed.
    verdict: &'static str,
}

/// What happens next.
enum Next {
    State(Standing),
    Stopped,
    Told(Tag, Told),
    Answered(Result<Answer, request::Failure>),
    Proved(Result<Answer, request::Failure>),
    Watched(Watched),
    Command(Option<Command>),
    Overdue,
}

/// How a session ended.
struct End {
    reason: String,
    permanent: bool,
}

impl Live {
    fn new(link: Link, config: Arc<ZookeeperConfig>, owner: Owner, session: SessionId, timeout: Duration) -> Self {
        let feed = Feed::new(&link.client);
        let acls = acls(config.auth.is_some());
        Self {
            serving: link.serving,
            owner,
            session,
            timeout,
            prefix: config.chroot.as_ref().map_or(0, String::len),
            acls,
            client: Some(link.client),
            feed,
            under_way: VecDeque::new(),
            watches: HashMap::new(),
            telling: SelectAll::new(),
            room: Room::default(),
            overflow: Overflow::new(config, timeout, acls),
            forgotten: HashSet::new(),
            down: false,
            settled: 0,
            made: None,
            proof: None,
            close_by: None,
            verdict: "closed",
        }
    }

    async fn run(mut self, mut inbox: UnboundedReceiver<Command>) {
        let standing = self.feed.now();
        let mut end = self.on_state(standing).await;
        let End { reason, permanent } = loop {
            if let Some(end) = end {
                break end;
            }
            end = match self.next(&mut inbox).await {
                Next::State(standing) => self.on_state(standing).await,
                Next::Stopped => {
                    // The state it ended with may not have come through the feed yet.
                    let state = self.feed.peek();
                    Some(self.terminated(state).unwrap_or_else(|| self.ended("the ZooKeeper client stopped")))
                }
                Next::Told(tag, told) => {
                    self.tell(tag, told).await;
                    None
                }
                Next::Answered(result) => {
                    self.on_answer(result).await;
                    None
                }
                Next::Proved(result) => {
                    self.on_proof(result).await;
                    None
                }
                Next::Watched(watched) => {
                    self.on_watched(watched);
                    None
                }
                Next::Command(Some(command)) => {
                    self.on_command(command);
                    None
                }
                // Without a handle, nobody will ever close the session: let it run out.
                Next::Command(None) => return,
                Next::Overdue => {
                    self.verdict = "closed, but ZooKeeper did not confirm it: \
                                    it will end the session when its timeout has passed";
                    Some(self.ended(self.verdict))
                }
            };
        };
        // Whatever it was still trying: the owner may count on the end. Not its watches, which nobody ends when the library is stopped.
        self.telling.clear();
        self.serving.stop();
        self.settle_all().await;
        tracing::debug!(session = %self.session, reason, "session ended");
        self.owner.end(inbox, reason, permanent).await;
    }

    async fn next(&mut self, inbox: &mut UnboundedReceiver<Command>) -> Next {
        let close_by = self.close_by;
        // Watches panic when the library was stopped, as it is when the owner has gone.
        let listens = !self.telling.is_empty() && self.proof.is_none() && !self.owner.is_gone();
        let front = self.under_way.front_mut();
        tokio::select! {
            biased;
            standing = self.feed.changed() => Next::State(standing),
            // Before the answers: an owner sees a watch's event before it sees the new data. Not before it knows of the connection.
            Some((tag, told)) = self.telling.next(), if listens => Next::Told(tag, told),
            Some(result) = answer(front) => Next::Answered(result),
            Some(result) = proved(self.proof.as_mut()) => Next::Proved(result),
            watched = self.overflow.next() => Next::Watched(watched),
            () = self.serving.ended() => Next::Stopped,
            command = inbox.recv(), if close_by.is_none() || !inbox.is_closed() => Next::Command(command),
            () = sleep_until(close_by.unwrap_or_else(Instant::now)), if close_by.is_some() => Next::Overdue,
        }
    }

    async fn on_state(&mut self, standing: Standing) -> Option<End> {
        if standing.losses > self.settled {
            self.go_down().await;
        }
        if is_connected(standing.state) && self.down && standing.losses > self.settled {
            self.settled = standing.losses;
            self.proof = self.prove();
            if self.proof.is_none() {
                self.go_up().await;
            }
        }
        self.terminated(standing.state)
    }

    fn terminated(&self, state: SessionState) -> Option<End> {
        match state {
            SessionState::Expired => Some(self.ended("the session expired")),
            SessionState::Closed => Some(self.ended("the ZooKeeper client closed the session")),
            SessionState::AuthFailed => {
                Some(End { reason: "ZooKeeper refused to authenticate us".to_owned(), permanent: true })
            }
            _ => None,
        }
    }

    /// However a session ends that is being closed: it is closed.
    fn ended(&self, reason: &str) -> End {
        let reason = if self.close_by.is_some() { self.verdict } else { reason };
        End { reason: reason.to_owned(), permanent: false }
    }

    /// Some servers answer a reconnect with a new session and do not say so, nor does the library tell the id that it was given. So an
    /// ephemeral znode is made, whose owner shows it, beside the first one that this session made; a session that has made none has
    /// none to lose. It goes at once, and what an interrupted attempt has left of it goes before the next.
    fn prove(&self) -> Option<request::Pending> {
        let (path, client) = (format!("{}~", self.made.as_ref()?), self.client.as_ref()?);
        let delete = || Request::Delete { path: path.clone(), version: None };
        let create = Request::Create { path: path.clone(), data: Arc::from([]), mode: CreateMode::Ephemeral };
        let [before, proof, after] = [delete(), create, delete()].map(|request| {
            let mut sent = prepare(client.clone(), self.acls, request, None);
            // Polled once, it is sent; they are answered in this order.
            let done = (&mut sent).now_or_never();
            done.map_or(sent, |done| std::future::ready(done).boxed())
        });
        drop((before, after));
        Some(proof)
    }

    async fn on_proof(&mut self, result: Result<Answer, request::Failure>) {
        self.proof = None;
        match result {
            Ok(Answer { owner, .. }) if owner != Some(self.session) => self.replaced(owner),
            // Whether the connection is gone again is told as such, and what is proved then counts.
            Err(failure) if failure.disconnected => {}
            // Where the znode cannot be made, what it would stand beside is gone as well, or no longer allowed: the owner sees
            // that from what it asks next.
            Ok(_) | Err(_) => self.go_up().await,
        }
    }

    fn replaced(&mut self, owner: Option<SessionId>) {
        tracing::error!(session = %self.session, ?owner, "the server has silently opened a new session; closing it");
        self.close("the server had silently opened a new session in the place of this one");
    }

    async fn go_up(&mut self) {
        self.down = false;
        self.owner.tell(SessionEvent::Reconnected { session: self.session }).await;
    }

    /// Tells the owner, once, that the connection is gone, and what that means for what was under way.
    async fn go_down(&mut self) {
        self.proof = None;
        if !self.down {
            self.down = true;
            self.owner.tell(SessionEvent::Disconnected).await;
            self.settle_all().await;
            self.forgotten.clear();
        }
    }

    /// Gives every request its last answer: the one that has arrived, or that it is unknown.
    async fn settle_all(&mut self) {
        for UnderWay { tag, slot } in std::mem::take(&mut self.under_way) {
            let result = match slot {
                Slot::Done(done) => Some(*done),
                Slot::Sent(sent) => sent.now_or_never(),
            };
            self.settle(tag, result.unwrap_or_else(|| Err(lost()))).await;
        }
        for tag in self.overflow.give_up() {
            self.settle(tag, Err(lost())).await;
        }
    }

    async fn on_answer(&mut self, result: Result<Answer, request::Failure>) {
        if let Err(failure) = &result
            && failure.disconnected
            && !self.down
        {
            // The answer was faster than the news; the owner hears the news first.
            if let Some(front) = self.under_way.front_mut() {
                front.slot = Slot::Done(Box::new(result));
            }
            self.go_down().await;
        } else if let Some(UnderWay { tag, .. }) = self.under_way.pop_front() {
            self.settle(tag, result).await;
        }
    }

    async fn settle(&mut self, tag: Tag, result: Result<Answer, request::Failure>) {
        // All events that came before this answer are ready by now.
        while !self.owner.is_gone()
            && let Some(Some((tag, told))) = self.telling.next().now_or_never()
        {
            self.tell(tag, told).await;
        }
        let forgotten = self.forgotten.remove(&tag);
        let result = match result {
            Ok(Answer { reply, watch, owner }) => {
                if let Some(watch) = watch.filter(|_| !forgotten) {
                    self.watch(tag, watch);
                }
                match (owner, &reply) {
                    (Some(owner), _) if owner != self.session => self.replaced(Some(owner)),
                    (Some(_), Reply::Created { path }) if self.made.is_none() => self.made = Some(path.clone()),
                    _ => {}
                }
                Ok(reply)
            }
            Err(failure) => Err(failure.error),
        };
        self.owner.answer(tag, result).await;
    }

    /// Begins to close the session: the library does so when the last client is dropped, and every request that is under way
    /// holds one.
    fn close(&mut self, verdict: &'static str) {
        self.client = None;
        if self.close_by.is_none() {
            self.close_by = Some(Instant::now() + (self.timeout / 2).min(CLOSE));
            self.verdict = verdict;
        }
    }

    fn watch(&mut self, tag: Tag, watch: Lookout) {
        let (stop, registration) = AbortHandle::new_pair();
        let tells = watch.tells().map(move |told| (tag, told));
        self.telling.push(Abortable::new(tells, registration).boxed());
        self.watches.insert(tag, stop);
    }

    /// Tells what a watch does, unless it was let go of.
    async fn tell(&mut self, tag: Tag, told: Told) {
        let event = match told {
            Told::Fired if self.watches.remove(&tag).is_some() => SessionEvent::Fired { tag },
            Told::Child(name) if self.watches.contains_key(&tag) => SessionEvent::ChildChanged { tag, name },
            Told::Fired | Told::Child(_) => return,
        };
        self.owner.tell(event).await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Submit(tag, request) => self.submit(tag, request),
            Command::Refuse(tag) => self.queue(tag, Err(too_many())),
            Command::Forget(tag) => {
                if let Some(stop) = self.watches.remove(&tag) {
                    stop.abort();
                } else if self.overflow.holds(tag) || self.under_way.iter().any(|under_way| under_way.tag == tag) {
                    self.forgotten.insert(tag);
                }
            }
            Command::Close => self.close("closed"),
        }
    }

    fn submit(&mut self, tag: Tag, request: Request) {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return self.queue(tag, Err(error)),
        };
        if let Err(error) = check(&request, self.prefix) {
            return self.queue(tag, Err(error));
        }
        let taken = match &request {
            Request::Get { path, watch: true } | Request::List { path, watch: true } => {
                let bytes = self.prefix + path.len();
                let Some(taken) = self.room.take(bytes) else { return self.overflow.begin(tag, request, bytes) };
                Some(taken)
            }
            Request::WatchChildren { path } => match self.room.take(self.prefix + path.len()) {
                Some(taken) => Some(taken),
                // What watches elsewhere may tell later than the data, and then the next list knows nothing of what was told.
                None => {
                    let why = "no room in this session for a lasting watch".to_owned();
                    return self.queue(tag, Err(RequestError::Refused(why)));
                }
            },
            _ => None,
        };
        self.send(tag, prepare(client, self.acls, request, taken));
    }

    /// Another session watches what does not fit into this one: now it can be read.
    fn on_watched(&mut self, Watched { tag, read, watch }: Watched) {
        match self.client() {
            Ok(client) => self.send(tag, look(client, self.acls, read, watch)),
            Err(error) => self.queue(tag, Err(error)),
        }
    }

    /// The client, if something can be sent now.
    fn client(&self) -> Result<Client, RequestError> {
        let client = self.client.as_ref().ok_or(RequestError::SessionEnded)?;
        // The library would keep it, and carry it out whenever it is connected again.
        if self.down || !is_connected(client.state()) {
            return Err(not_connected());
        }
        Ok(client.clone())
    }

    fn send(&mut self, tag: Tag, mut sent: request::Pending) {
        let slot = match (&mut sent).now_or_never() {
            Some(done) => Slot::Done(Box::new(done)),
            None => Slot::Sent(sent),
        };
        self.under_way.push_back(UnderWay { tag, slot });
    }

    /// Queues an answer behind those that are still awaited.
    fn queue(&mut self, tag: Tag, result: Result<std::convert::Infallible, RequestError>) {
        let Err(error) = result;
        let failure = request::Failure { error, disconnected: false };
        self.under_way.push_back(UnderWay { tag, slot: Slot::Done(Box::new(Err(failure))) });
    }
}

/// What shows the session after a reconnect; none when nothing is to be shown.
async fn proved(proof: Option<&mut request::Pending>) -> Option<Result<Answer, request::Failure>> {
    Some(proof?.await)
}

/// The answer to the oldest request; none when there is no request.
async fn answer(front: Option<&mut UnderWay>) -> Option<Result<Answer, request::Failure>> {
    let front = front?;
    match &mut front.slot {
        Slot::Sent(sent) => Some(sent.await),
        Slot::Done(_) => {
            // Taken out of its place; the entry itself goes when the answer is handled.
            let taken = std::mem::replace(&mut front.slot, Slot::Done(Box::new(Err(lost()))));
            match taken {
                Slot::Done(done) => Some(*done),
                Slot::Sent(_) => None,
            }
        }
    }
}
