//! What is on its way between a node and its server, and everything else that happens later. A connection is a stream: nothing in
//! it overtakes, and nothing is missing from its middle. A cut cable holds what is sent until it is mended; when the client gives
//! a connection up, what it had sent may be taken all the same, without an answer, until the session moves to another.

use std::time::Duration;

use bellwether_core::event::{Event, SessionEvent};
use bellwether_core::id::{CallId, Epoch, Generation, InstanceId, SessionId, Tag};
use bellwether_core::request::{Request, RequestError};

use crate::client::Cable;
use crate::guests::Fate;
use crate::world::World;

/// A request on its way.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The client that sent it.
    pub generation: Generation,
    /// Which of its connections.
    pub connection: u64,
    /// The session.
    pub session: SessionId,
    /// Its name.
    pub tag: Tag,
    /// The request.
    pub request: Request,
    /// The term in which it was sent, if it was one.
    pub term: Option<Epoch>,
}

/// Something that happens later.
#[derive(Debug, Clone)]
pub(crate) enum Parcel {
    Connect(Generation),
    Ping(Generation, u64),
    Report(Generation, u64),
    Notice(Generation, u64),
    CatchUp(Generation, u64),
    Up(Packet),
    Late(Packet),
    Down { generation: Generation, connection: u64, event: SessionEvent },
    Close { session: SessionId },
    Local(Event),
    Finish { group: usize, instance: InstanceId, call: CallId, fate: Fate },
    Act { group: usize, instance: InstanceId },
    Task { group: usize, epoch: Epoch },
    Wake(u64),
    Restart,
}

impl Parcel {
    /// Whether it goes on when the process that it belongs to has ended.
    pub fn outlives(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Late(_) | Self::Close { .. })
    }
}

fn writes(request: &Request) -> bool {
    !matches!(
        request,
        Request::Get { .. }
            | Request::GetAll { .. }
            | Request::List { .. }
            | Request::WatchChildren { .. }
            | Request::Sync { .. }
    )
}

/// A request in a few words.
fn brief(request: &Request) -> String {
    match request {
        Request::Create { path, mode, .. } => format!("create {path} {mode:?}"),
        Request::Delete { path, .. } => format!("delete {path}"),
        Request::Set { path, .. } => format!("set {path}"),
        Request::Get { path, watch } => format!("get {path}{}", if *watch { ", watched" } else { "" }),
        Request::GetAll { paths } => format!("get {}", paths.join(" ")),
        Request::List { path, watch } => format!("list {path}{}", if *watch { ", watched" } else { "" }),
        Request::WatchChildren { path } => format!("watch {path}"),
        Request::Sync { path } => format!("sync {path}"),
        Request::Multi(operations) => format!("{operations:?}"),
    }
}

impl World {
    pub(crate) fn delay(&mut self) -> Duration {
        // Mostly quick, now and then slow.
        if self.rng.u32(0..50) == 0 {
            Duration::from_micros(self.rng.u64(5_000..400_000))
        } else {
            Duration::from_micros(self.rng.u64(100..3_000))
        }
    }

    /// The core sends a request.
    pub(crate) fn submit(&mut self, index: usize, generation: Generation, tag: Tag, request: Request) {
        let delay = self.delay();
        let now = self.now;
        let Some(client) = self.nodes[index].client.as_mut().filter(|client| client.generation == generation) else {
            return;
        };
        let Some(session) = client.session.filter(|_| client.connected) else {
            let event = SessionEvent::Answered { tag, result: Err(RequestError::Unknown("not connected".into())) };
            return self.post(Duration::ZERO, index, Parcel::Local(Event::Session { generation, event }));
        };
        client.pending.insert(tag, (now, writes(&request)));
        if self.options.trace {
            self.say(format_args!("node-{index}:   {tag} → {}", brief(&request)));
        }
        let Some(client) = self.nodes[index].client.as_mut() else { return };
        client.last_up = client.last_up.max(now + delay);
        let (at, connection) = (client.last_up, client.connection);
        let term = self.conducts(index, &request);
        self.post_at(at, index, Parcel::Up(Packet { generation, connection, session, tag, request, term }));
    }

    /// The server sends something, behind everything that it sent before. What a watch tells may overtake answers, but for the one that
    /// the watch is set with: clients hand it on first when they find both.
    pub(crate) fn down(&mut self, index: usize, event: SessionEvent) {
        let delay = self.delay();
        let hurries = self.rng.u32(0..3) == 0;
        let now = self.now;
        let Some(client) = self.nodes[index].client.as_mut().filter(|client| client.connected) else { return };
        let overtakes = hurries && event.watch().is_some_and(|tag| !client.pending.contains_key(&tag));
        let at = if overtakes { now + delay } else { client.last_down.max(now + delay) };
        client.last_down = client.last_down.max(at);
        let (connection, generation) = (client.connection, client.generation);
        self.post_at(at, index, Parcel::Down { generation, connection, event });
    }

    /// A request arrives, or waits in a cut cable, or comes from a connection that is gone.
    pub(crate) fn arrive(&mut self, index: usize, packet: Packet) {
        let node = &mut self.nodes[index];
        let current = node.client.as_mut().filter(|client| {
            client.generation == packet.generation
                && client.connection == packet.connection
                && client.session == Some(packet.session)
                && client.connected
        });
        match current {
            Some(client) if client.doomed => {}
            Some(client) if !node.cable.up || !client.stuck_up.is_empty() => client.stuck_up.push_back(packet),
            Some(_) => self.take(index, packet, true),
            None if self.now <= node.linger && node.cable.up => self.take(index, packet, false),
            None => {}
        }
    }

    /// The server takes a request.
    pub(crate) fn take(&mut self, index: usize, packet: Packet, answer: bool) {
        if !self.ensemble.quorum {
            return if answer {
                self.doom(index)
            };
        }
        let Packet { session, tag, request, term, .. } = packet;
        self.history.requests += 1;
        if self.nodes[index].follower.is_cut() && !answer {
            return;
        }
        if self.nodes[index].follower.is_behind() && answer {
            if let Some(result) = self.follow(index, session, tag, &request) {
                self.down(index, SessionEvent::Answered { tag, result });
                return;
            }
            if self.nodes[index].follower.is_cut() {
                // It waits for a leader that cannot be reached.
                return;
            }
        }
        if !answer {
            self.say(format_args!("node-{index}: the server takes a request of a connection that is gone"));
        }
        self.heard_of(index, session);
        let noted = self.note(&request);
        let result = self.ensemble.server.apply(session, tag, request.clone());
        self.noted(noted, &result);
        if result.is_ok() {
            self.wrote(index, &request, term);
        }
        self.fire();
        if answer {
            self.down(index, SessionEvent::Answered { tag, result });
        } else if result.is_ok() {
            // A watch of a request that nobody waits for is not set.
            self.ensemble.server.forget(session, tag);
        }
    }

    /// Sends what watches tell on its way.
    pub(crate) fn fire(&mut self) {
        for (session, event) in self.ensemble.server.take_told() {
            for index in 0..self.nodes.len() {
                let node = &mut self.nodes[index];
                let Some(client) = node.client.as_mut().filter(|c| c.session == Some(session) && !c.over) else {
                    continue;
                };
                if let SessionEvent::Fired { tag } = event {
                    client.fired.insert(tag);
                }
                if !node.follower.hold(&event) {
                    self.down(index, event.clone());
                }
            }
        }
    }

    /// Something arrives at the client.
    pub(crate) fn down_arrives(&mut self, index: usize, generation: Generation, connection: u64, event: SessionEvent) {
        let now = self.now;
        let down = self.nodes[index].cable.down;
        let Some(client) = self.nodes[index].client.as_mut().filter(|client| {
            client.generation == generation && client.connection == connection && client.connected && !client.doomed
        }) else {
            return;
        };
        if !down || !client.stuck_down.is_empty() {
            return client.stuck_down.push_back(event);
        }
        client.heard = now;
        match &event {
            SessionEvent::Opened { .. } | SessionEvent::Reconnected { .. } => client.opened = true,
            SessionEvent::Answered { tag, result } => match client.pending.remove(tag) {
                Some((sent, true)) if result.is_ok() => {
                    let node = &mut self.nodes[index];
                    node.proved = node.proved.max(sent);
                }
                Some(_) => {}
                None => return,
            },
            SessionEvent::Fired { tag } if !client.fired.remove(tag) => return,
            _ => {}
        }
        if let SessionEvent::Answered { tag, .. } = &event
            && let Some(client) = self.nodes[index].client.as_mut()
            && client.forgotten.remove(tag)
            && let Some(session) = client.session
        {
            self.ensemble.server.forget(session, *tag);
        }
        match &event {
            SessionEvent::Answered { tag, result: Ok(_) } => self.say(format_args!("node-{index}:   {tag} ← done")),
            SessionEvent::Answered { tag, result: Err(error) } => {
                self.say(format_args!("node-{index}:   {tag} ← {error}"));
            }
            SessionEvent::Fired { tag } => self.say(format_args!("node-{index}:   {tag} ← fired")),
            SessionEvent::ChildChanged { tag, name } => self.say(format_args!("node-{index}:   {tag} ← {name}")),
            _ => {}
        }
        self.feed(index, Event::Session { generation, event });
    }

    /// The server lets go of the node's connection.
    pub(crate) fn doom(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(client) = node.client.as_mut().filter(|client| client.connected) else { return };
        client.doomed = true;
        client.stuck_up.clear();
        client.stuck_down.clear();
        node.follower.reset();
        if node.cable.down {
            let after = self.delay();
            self.lose_connection(index, after);
        }
    }

    /// The client side of a connection has gone: what becomes of what it had sent.
    pub(crate) fn abandon_packets(&mut self, index: usize) {
        let (goes_through, kept) = (self.rng.bool(), self.rng.u32(0..3) == 0);
        let while_ = Duration::from_micros(self.rng.u64(0..20_000));
        let node = &mut self.nodes[index];
        let stuck = node.client.as_mut().map(|client| std::mem::take(&mut client.stuck_up)).unwrap_or_default();
        node.linger = if goes_through && stuck.is_empty() { self.now + while_ } else { self.now };
        if kept {
            node.late.extend(stuck);
        }
    }

    /// The node's cable is cut, one way or both, or mended.
    pub(crate) fn set_cable(&mut self, index: usize, cable: Cable) {
        let node = &mut self.nodes[index];
        node.cable = cable;
        let late = if cable.up { std::mem::take(&mut node.late) } else { Default::default() };
        for packet in late {
            let delay = self.delay();
            self.post(delay, index, Parcel::Late(packet));
        }
        let Some(client) = self.nodes[index].client.as_mut() else { return };
        if client.doomed && cable.down {
            return self.lose_connection(index, Duration::ZERO);
        }
        if cable.up {
            for packet in std::mem::take(&mut client.stuck_up) {
                self.arrive(index, packet);
            }
        }
        let Some(client) = self.nodes[index].client.as_mut().filter(|_| cable.down) else { return };
        let (generation, connection) = (client.generation, client.connection);
        for event in std::mem::take(&mut client.stuck_down) {
            self.down_arrives(index, generation, connection, event);
        }
    }

    /// Something that was under way when its time came.
    pub(crate) fn deliver(&mut self, index: usize, parcel: Parcel) {
        match parcel {
            Parcel::Wake(wake) => self.wake(index, wake),
            Parcel::Local(event) => self.feed(index, event),
            Parcel::Restart => self.boot(index),
            Parcel::Connect(generation) => self.connect(index, generation),
            Parcel::Ping(generation, connection) => self.ping(index, generation, connection),
            Parcel::Report(generation, connection) => self.report(index, generation, connection),
            Parcel::Notice(generation, connection) => self.notice_loss(index, generation, connection),
            Parcel::CatchUp(generation, connection) => {
                let client = self.nodes[index].client.as_ref();
                if client.is_some_and(|c| c.generation == generation && c.connection == connection) {
                    self.catch_up(index);
                }
            }
            Parcel::Close { session } => {
                if self.ensemble.quorum {
                    self.ensemble.server.close(session);
                    self.fire();
                }
            }
            Parcel::Up(packet) => self.arrive(index, packet),
            Parcel::Late(packet) => self.take(index, packet, false),
            Parcel::Down { generation, connection, event } => self.down_arrives(index, generation, connection, event),
            Parcel::Finish { group, instance, call, fate } => self.finish(index, group, instance, call, fate),
            Parcel::Act { group, instance } => self.act(index, group, instance),
            Parcel::Task { group, epoch } => self.task_arrives(index, group, epoch),
        }
    }
}
