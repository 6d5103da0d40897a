//! What the sessions of a [`MemoryCoordinator`](super::MemoryCoordinator) share: the server, and how each is connected.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bellwether_core::event::SessionEvent;
use bellwether_core::id::{SessionId, Tag};
use bellwether_core::request::{Reply, Request, RequestError};
use bellwether_core::time::Moment;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::server::Server;
use crate::check::{MAX_UNDER_WAY, too_many};

/// What a session's task shall tell the owner. The queue is unbounded, but holds no more than one entry for each request
/// under way (which are counted), each watch, each fault that was brought about, and each change that a lasting watch tells of.
#[derive(Debug)]
pub(super) enum Out {
    Answer(Tag, Result<Reply, RequestError>),
    /// What a watch tells.
    Watch(Tag, SessionEvent),
    Down,
    Up,
    /// The last.
    End {
        reason: String,
    },
    /// Look whether a session can be opened by now.
    TryAgain,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Connected,
    Disconnected {
        since: Instant,
    },
    /// The owner has been told that the session has ended, or is gone itself.
    Over,
}

/// One opened (or opening) session, as its client sees it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) out: UnboundedSender<(Instant, Out)>,
    pub(super) session: Option<SessionId>,
    pub(super) timeout: Duration,
    pub(super) phase: Phase,
    /// Replies do not get through.
    pub(super) dropping: bool,
    /// The requests whose replies were dropped.
    lost: Vec<Tag>,
    /// What watches told while nothing got through.
    held: Vec<(Tag, SessionEvent)>,
    /// The watches that may still be told of.
    pub(super) armed: BTreeSet<u64>,
    pub(super) under_way: usize,
}

impl Connection {
    pub(super) fn new(out: UnboundedSender<(Instant, Out)>, timeout: Duration) -> Self {
        Self {
            out,
            session: None,
            timeout,
            phase: Phase::Opening,
            dropping: false,
            lost: Vec::new(),
            held: Vec::new(),
            armed: BTreeSet::new(),
            under_way: 0,
        }
    }

    fn tell(&self, due: Instant, out: Out) {
        // The task that listens ends when its runtime does; then nobody is left to be told.
        let _ = self.out.send((due, out));
    }

    fn go_down(&mut self, now: Instant) {
        self.phase = Phase::Disconnected { since: now };
        self.tell(now, Out::Down);
        for tag in std::mem::take(&mut self.lost) {
            self.tell(now, Out::Answer(tag, Err(unknown())));
        }
        for (tag, event) in std::mem::take(&mut self.held) {
            self.tell(now, Out::Watch(tag, event));
        }
    }

    fn end(&mut self, due: Instant, reason: &str) {
        self.phase = Phase::Over;
        for tag in std::mem::take(&mut self.lost) {
            self.tell(due, Out::Answer(tag, Err(unknown())));
        }
        self.tell(due, Out::End { reason: reason.to_owned() });
    }
}

pub(super) fn unknown() -> RequestError {
    RequestError::Unknown("the connection is gone".to_owned())
}

/// The server and all connections to it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) server: Server,
    start: Instant,
    pub(super) connections: BTreeMap<u64, Connection>,
    by_session: HashMap<SessionId, u64>,
    next: u64,
    pub(super) unavailable: bool,
    pub(super) delay: Duration,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            server: Server::new(),
            start: Instant::now(),
            connections: BTreeMap::new(),
            by_session: HashMap::new(),
            next: 0,
            unavailable: false,
            delay: Duration::ZERO,
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment::from_boot(self.start.elapsed())
    }

    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.start + moment.since_boot()
    }

    fn due(&self) -> Instant {
        Instant::now() + self.delay
    }

    pub(super) fn enter(&mut self, connection: Connection) -> u64 {
        let id = self.next;
        self.next += 1;
        self.connections.insert(id, connection);
        id
    }

    /// Opens the session of a connection, if the service is there.
    pub(super) fn try_open(&mut self, id: u64) -> Option<SessionId> {
        self.tick();
        if self.unavailable {
            return None;
        }
        let now = self.now();
        let connection = self.connections.get_mut(&id).filter(|connection| connection.phase == Phase::Opening)?;
        let session = self.server.open(now, connection.timeout);
        connection.session = Some(session);
        connection.phase = Phase::Connected;
        self.by_session.insert(session, id);
        Some(session)
    }

    fn of_session(&mut self, session: SessionId) -> Option<&mut Connection> {
        self.connections.get_mut(self.by_session.get(&session)?)
    }

    pub(super) fn submit(&mut self, id: u64, tag: Tag, request: Request) {
        self.tick();
        let due = self.due();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.under_way >= MAX_UNDER_WAY {
            connection.under_way += 1;
            connection.tell(due, Out::Answer(tag, Err(too_many())));
            return;
        }
        connection.under_way += 1;
        let (Phase::Connected, Some(session)) = (connection.phase, connection.session) else {
            if connection.phase != Phase::Over {
                connection.tell(Instant::now(), Out::Answer(tag, Err(unknown())));
            }
            return;
        };
        let watch = matches!(
            request,
            Request::Get { watch: true, .. } | Request::List { watch: true, .. } | Request::WatchChildren { .. }
        );
        let result = self.server.apply(session, tag, request);
        if watch && result.is_ok() {
            connection.armed.insert(tag.0);
        }
        // What this write fired goes out before its answer, and before the answer to any read that follows.
        self.deliver_fired();
        if let Some(connection) = self.connections.get_mut(&id) {
            if connection.dropping {
                connection.lost.push(tag);
            } else {
                connection.tell(due, Out::Answer(tag, result));
            }
        }
    }

    pub(super) fn forget(&mut self, id: u64, tag: Tag) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.armed.remove(&tag.0);
            connection.held.retain(|(held, _)| *held != tag);
            if let Some(session) = connection.session {
                self.server.forget(session, tag);
            }
        }
    }

    /// The owner is about to be told the answer. A read whose answer was lost leaves no watch.
    pub(super) fn answered(&mut self, id: u64, tag: Tag, unknown: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.under_way -= 1;
        }
        if unknown {
            self.forget(id, tag);
        }
    }

    /// Closes a session on behalf of its owner.
    pub(super) fn close(&mut self, id: u64) {
        self.tick();
        let due = self.due();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match connection.phase {
            Phase::Opening => connection.end(due, "closed before it was open"),
            Phase::Connected => {
                connection.end(due, "closed");
                if let Some(session) = connection.session {
                    self.server.close(session);
                }
                self.deliver_fired();
            }
            Phase::Disconnected { .. } => {
                connection.end(due, "closed while disconnected: the server will end it when its timeout has passed");
            }
            Phase::Over => {}
        }
    }

    /// The owner is gone, or as good as gone: it hears nothing more, and its session runs out.
    pub(super) fn abandon(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.phase = Phase::Over;
            connection.tell(Instant::now(), Out::End { reason: String::new() });
        }
    }

    pub(super) fn disconnect(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.phase == Phase::Connected
        {
            connection.go_down(Instant::now());
        }
    }

    pub(super) fn reconnect(&mut self, id: u64) {
        self.tick();
        let (now, moment) = (Instant::now(), self.now());
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.dropping = false;
        if connection.phase == Phase::Connected && !(connection.lost.is_empty() && connection.held.is_empty()) {
            connection.go_down(now);
        }
        if let (Phase::Disconnected { .. }, Some(session)) = (connection.phase, connection.session) {
            self.server.disconnect(session);
            if self.server.touch(session, moment) {
                connection.phase = Phase::Connected;
                connection.tell(now, Out::Up);
            } else {
                connection.end(now, "the session expired");
            }
        }
    }

    pub(super) fn expire_session(&mut self, session: SessionId) {
        self.server.close(session);
        self.tell_expired(session);
        self.deliver_fired();
    }

    /// Expires what is due. Called before anything else looks at the server.
    pub(super) fn tick(&mut self) {
        for session in self.server.expire(self.now()) {
            self.tell_expired(session);
        }
        self.deliver_fired();
    }

    /// A connected client hears at once; a disconnected one when it is back, or when it gives up.
    fn tell_expired(&mut self, session: SessionId) {
        let due = self.due();
        if let Some(connection) = self.of_session(session)
            && connection.phase == Phase::Connected
        {
            connection.end(due, "the session expired");
        }
    }

    pub(super) fn deliver_fired(&mut self) {
        let due = self.due();
        for (session, event) in self.server.take_told() {
            let Some(tag) = event.watch() else { continue };
            let Some(connection) = self.of_session(session) else { continue };
            match connection.phase {
                Phase::Connected if connection.dropping => connection.held.push((tag, event)),
                Phase::Connected | Phase::Disconnected { .. } => connection.tell(due, Out::Watch(tag, event)),
                Phase::Opening | Phase::Over => {}
            }
        }
    }

    /// Keeps a session alive while its owner is connected, and says when to look again; none when there is nothing more to do.
    pub(super) fn keep(&mut self, id: u64) -> Option<Instant> {
        self.tick();
        let moment = self.now();
        let connection = self.connections.get_mut(&id)?;
        let now = Instant::now();
        let (mut next, deadline) =
            (now + connection.timeout / 3, connection.session.map(|id| self.server.deadline(id)));
        match connection.phase {
            Phase::Connected => {
                if let Some(session) = connection.session {
                    self.server.touch(session, moment);
                }
            }
            Phase::Disconnected { since } => {
                // The same guess that the ZooKeeper client makes when it cannot ask.
                let give_up = since + connection.timeout * 7 / 5;
                if now >= give_up {
                    connection.end(now, "no connection for so long that the session must have expired");
                }
                next = next.min(give_up);
            }
            Phase::Opening => {}
            // Nobody is left to tell; stay only until the server has forgotten the session.
            Phase::Over if deadline.flatten().is_none() => {
                if let Some(session) = self.connections.remove(&id).and_then(|connection| connection.session) {
                    self.by_session.remove(&session);
                }
                return None;
            }
            Phase::Over => {}
        }
        if let Some(expiry) = self.server.next_expiry() {
            next = next.min(self.instant(expiry));
        }
        Some(next.max(now + Duration::from_millis(1)))
    }
}
