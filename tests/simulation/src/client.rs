//! A model of the client library's view of one session: what it believes of its connection, and what is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bellwether_core::event::{Event, SessionEvent};
use bellwether_core::id::{Generation, SessionId, Tag};
use bellwether_core::request::RequestError;
use bellwether_core::time::Moment;

use crate::wire::{Packet, Parcel};
use crate::world::World;

/// Which way packets go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cable {
    /// From the node to the server.
    pub up: bool,
    /// From the server to the node.
    pub down: bool,
}

impl Cable {
    /// Both ways.
    pub const WHOLE: Self = Self { up: true, down: true };
}

/// The client of one node.
#[derive(Debug, Clone)]
pub struct Client {
    /// The generation that its owner knows it by.
    pub generation: Generation,
    /// The session, once the server has opened it.
    pub session: Option<SessionId>,
    /// Whether the session's id has arrived.
    pub opened: bool,
    /// Whether it believes itself connected.
    pub connected: bool,
    /// Which connection this is.
    pub connection: u64,
    /// When it last heard from the server.
    pub heard: Moment,
    /// Requests that wait for an answer: when each was sent, and whether it writes.
    pub pending: BTreeMap<Tag, (Moment, bool)>,
    /// Nothing sent later may arrive earlier.
    pub last_up: Moment,
    /// The same, the other way.
    pub last_down: Moment,
    /// The server has let go of the connection: nothing gets through any more, and the client finds out some time.
    pub doomed: bool,
    /// What waits in a cut cable: TCP sends it again when the cable is mended, if the connection still stands.
    pub stuck_up: VecDeque<Packet>,
    /// The same, the other way.
    pub stuck_down: VecDeque<SessionEvent>,
    /// Watches that have fired and of which the owner was not told: the next connection tells of them.
    pub fired: BTreeSet<Tag>,
    /// Watches that were let go of before the request that sets them was answered.
    pub forgotten: BTreeSet<Tag>,
    /// Told to close, or at its end.
    pub over: bool,
}

impl Client {
    /// A client that is about to open a session.
    #[must_use]
    pub fn new(generation: Generation, now: Moment) -> Self {
        Self {
            generation,
            session: None,
            opened: false,
            connected: false,
            connection: 0,
            heard: now,
            pending: BTreeMap::new(),
            last_up: now,
            last_down: now,
            doomed: false,
            stuck_up: VecDeque::new(),
            stuck_down: VecDeque::new(),
            fired: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            over: false,
        }
    }
}

impl World {
    /// The client tries to connect to a server that has a leader.
    pub(crate) fn connect(&mut self, index: usize, generation: Generation) {
        let (timeout, now) = (self.options.timeout, self.now);
        let cable = self.nodes[index].cable;
        let current = |client: &&mut Client| client.generation == generation && !client.over && !client.connected;
        if self.nodes[index].client.as_mut().filter(current).is_none() {
            return;
        }
        if !(cable.up && cable.down && self.ensemble.quorum) || self.nodes[index].paused {
            let pause = Duration::from_millis(self.rng.u64(100..600));
            return self.post(pause, index, Parcel::Connect(generation));
        }
        self.nodes[index].follower.reset();
        let Some(client) = self.nodes[index].client.as_mut() else { return };
        client.connection += 1;
        client.connected = true;
        client.doomed = false;
        client.heard = now;
        client.last_up = client.last_up.max(now);
        client.last_down = client.last_down.max(now);
        let (connection, known) = (client.connection, client.session.filter(|_| client.opened));
        // A session whose id never arrived is not known here; it runs out by itself.
        let Some(session) = known else {
            let session = self.ensemble.server.open(now, timeout);
            self.set_session(index, session);
            self.say(format_args!("node-{index}: client is given session {session}"));
            self.down(index, SessionEvent::Opened { session, timeout });
            return self.connected(index, connection);
        };
        // The session moves to this connection: nothing that an earlier one still holds is taken any more.
        self.nodes[index].late.retain(|packet| packet.session != session);
        if self.ensemble.server.touch(session, now) {
            self.say(format_args!("node-{index}: client is connected again"));
            self.down(index, SessionEvent::Reconnected { session });
            if self.rng.u32(0..10) == 0 {
                self.down(index, SessionEvent::Reconnected { session });
            }
            // Watches that fired meanwhile are found by the server when the client sets them again.
            let fired = self.nodes[index].client.as_ref().map(|client| client.fired.clone()).unwrap_or_default();
            for tag in fired {
                self.down(index, SessionEvent::Fired { tag });
            }
            return self.connected(index, connection);
        }
        if self.profile.silent_sessions {
            let session = self.ensemble.server.open(now, timeout);
            self.set_session(index, session);
            self.say(format_args!("node-{index}: client is given session {session} in the place of its own, silently"));
            self.down(index, SessionEvent::Reconnected { session });
            return self.connected(index, connection);
        }
        let Some(client) = self.nodes[index].client.as_mut() else { return };
        client.over = true;
        client.connected = false;
        self.say(format_args!("node-{index}: client finds its session {session} expired"));
        // Some clients take their time to say so.
        let late = if self.rng.u32(0..4) == 0 { self.rng.u64(0..14) } else { 0 };
        let event = SessionEvent::Ended { reason: "expired".into(), permanent: false };
        self.post(timeout * late as u32 / 10, index, Parcel::Local(Event::Session { generation, event }));
    }

    fn set_session(&mut self, index: usize, session: SessionId) {
        if let Some(client) = self.nodes[index].client.as_mut() {
            client.session = Some(session);
            client.fired.clear();
        }
    }

    fn connected(&mut self, index: usize, connection: u64) {
        let Some(generation) = self.nodes[index].client.as_ref().map(|client| client.generation) else { return };
        self.post(self.options.timeout / 3, index, Parcel::Ping(generation, connection));
        if self.profile.reports {
            let first = Duration::from_micros(self.rng.u64(0..=self.options.tick_time.as_micros() as u64 / 2));
            self.post(first, index, Parcel::Report(generation, connection));
        }
    }

    /// The client pings every third of the timeout, and gives its connection up when it heard nothing for two.
    pub(crate) fn ping(&mut self, index: usize, generation: Generation, connection: u64) {
        let (timeout, now) = (self.options.timeout, self.now);
        let node = &self.nodes[index];
        let (paused, cable, quorum) = (node.paused, node.cable, self.ensemble.quorum);
        let answers = node.follower.answers_pings();
        let current = |client: &&mut Client| {
            client.generation == generation && client.connection == connection && client.connected && !client.over
        };
        let Some(client) = self.nodes[index].client.as_mut().filter(current) else { return };
        if !paused {
            let taken = cable.up && quorum && !client.doomed;
            if taken && cable.down && answers {
                client.heard = now;
            }
            let silent = now.since(client.heard) >= timeout * 2 / 3;
            if let (true, Some(session)) = (taken, client.session)
                && !self.heard_of(index, session)
            {
                // The server answers a dead session's packet by closing the connection.
                return self.doom(index);
            }
            if silent {
                return self.post(Duration::ZERO, index, Parcel::Notice(generation, connection));
            }
        }
        self.post(timeout / 3, index, Parcel::Ping(generation, connection));
    }

    /// The client finds that its connection is gone.
    pub(crate) fn lose_connection(&mut self, index: usize, after: Duration) {
        if let Some((generation, connection)) =
            self.nodes[index].client.as_ref().map(|client| (client.generation, client.connection))
        {
            self.post(after, index, Parcel::Notice(generation, connection));
        }
    }

    pub(crate) fn notice_loss(&mut self, index: usize, generation: Generation, connection: u64) {
        if self.nodes[index].paused {
            let pause = Duration::from_millis(50);
            return self.post(pause, index, Parcel::Notice(generation, connection));
        }
        let current = |client: &&mut Client| {
            client.generation == generation && client.connection == connection && client.connected
        };
        let Some(client) = self.nodes[index].client.as_mut().filter(current) else { return };
        client.connected = false;
        client.stuck_down.clear();
        let pending = std::mem::take(&mut client.pending);
        client.forgotten.clear();
        if let Some(session) = client.session {
            self.ensemble.server.disconnect(session);
            // A watch whose request was not answered is none that the client knows of: the next connection does not set it.
            for tag in pending.keys() {
                self.ensemble.server.forget(session, *tag);
            }
        }
        self.abandon_packets(index);
        self.say(format_args!("node-{index}: client lost its connection"));
        self.feed(index, Event::Session { generation, event: SessionEvent::Disconnected });
        for tag in pending.into_keys() {
            let event = SessionEvent::Answered { tag, result: Err(RequestError::Unknown("connection lost".into())) };
            self.feed(index, Event::Session { generation, event });
        }
        let pause = Duration::from_millis(self.rng.u64(1..400));
        self.post(pause, index, Parcel::Connect(generation));
    }

    /// The owner closes its session.
    pub(crate) fn close(&mut self, index: usize, generation: Generation) {
        let (cable, quorum) = (self.nodes[index].cable, self.ensemble.quorum);
        let Some(client) = self.nodes[index].client.as_mut().filter(|client| client.generation == generation) else {
            return;
        };
        let (session, reaches) = (client.session, client.connected && !client.doomed && cable.up && quorum);
        let after_all = client.last_up.max(self.now);
        client.over = true;
        client.connected = false;
        let pending: Vec<Tag> = client.pending.keys().copied().collect();
        if let Some(session) = session.filter(|_| reaches && !self.nodes[index].follower.is_cut()) {
            let at = after_all + self.delay();
            self.post_at(at, index, Parcel::Close { session });
        }
        let delay = self.delay();
        let event = SessionEvent::Ended { reason: "closed".into(), permanent: false };
        self.post(delay, index, Parcel::Local(Event::Session { generation, event }));
        // A word of the old session that comes late must not be taken for one of the next.
        if let Some(tag) = pending.first().copied().filter(|_| self.rng.u32(0..4) == 0) {
            for event in [SessionEvent::Fired { tag }, SessionEvent::Disconnected] {
                let late = Duration::from_millis(self.rng.u64(1..2000));
                self.post(late, index, Parcel::Local(Event::Session { generation, event }));
            }
        }
    }
}
