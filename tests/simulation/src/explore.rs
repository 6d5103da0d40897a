//! Every order of events of a small cluster, instead of one order a seed: a search through all states that can be reached with a
//! bounded number of faults, each state visited once.
//!
//! Steps are: the server takes a node's next request; a node hears the next thing that the server or its guest sent; and the faults.
//! What a node hears changes nothing for others until the server takes what it then sends, so whoever has something to hear hears
//! it first, and only the faults that could come between are tried as well. Guests answer at once.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use bellwether_coordination::memory::Server;
use bellwether_core::callback::{Callback, Exports, Prepared, Returned};
use bellwether_core::command::Command;
use bellwether_core::event::{Ask, Asker, Event, SessionEvent};
use bellwether_core::id::{Epoch, Generation, InstanceId, RequestId, SessionId, Tag};
use bellwether_core::node::Node;
use bellwether_core::request::{Op, Request, RequestError};
use bellwether_core::state::{Expectation, StateOp};
use bellwether_core::status::Role;
use bellwether_core::time::Moment;

use crate::guests::release;
use crate::node::{ROOT, core, group_name};
use crate::options::{Missing, Options, Profile};

/// What may go wrong, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// Connections that break, with all that is on its way.
    pub breaks: u8,
    /// Processes that end without a word and start again.
    pub crashes: u8,
    /// Election znodes that an operator deletes.
    pub deletions: u8,
    /// Times at which nobody does anything for half a session timeout.
    pub sleeps: u8,
}

/// How far a search came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Explored {
    /// States that were visited.
    pub states: usize,
    /// Steps from one to the next.
    pub steps: usize,
    /// States in which nothing was under way, and from which the cluster was seen to come to rest.
    pub ends: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Take(usize),
    Hear(usize),
    Wake(usize),
    Return(usize),
    Break(usize),
    Crash(usize),
    Delete(usize),
    Sleep,
}

#[derive(Debug, Clone)]
struct Peer {
    core: Node,
    core_key: u64,
    core_changed: bool,
    generation: Generation,
    session: Option<SessionId>,
    connected: bool,
    unknown: bool,
    up: VecDeque<(Tag, Request)>,
    down: VecDeque<SessionEvent>,
    local: VecDeque<Event>,
    /// A guest that is not ready before the cluster is.
    preparing: Option<Event>,
    pending: BTreeSet<Tag>,
    /// Watches that were let go of before the request that sets them was taken.
    forgotten: BTreeSet<Tag>,
    granted: Option<Epoch>,
    lease: Moment,
    told: Option<Epoch>,
    lives: u64,
}

/// A small cluster. It has one group.
#[derive(Debug, Clone)]
pub struct Small {
    now: Moment,
    server: Server,
    server_key: u64,
    server_changed: bool,
    peers: Vec<Peer>,
    left: Faults,
    /// The transaction of the last deletion by an operator.
    tampered: u64,
    newest: Option<Epoch>,
    missing: Option<Missing>,
}

struct Hash(DefaultHasher);

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn key(of: &impl fmt::Debug) -> u64 {
    let mut hash = Hash(DefaultHasher::new());
    // Writing into a hash cannot fail.
    let _ = write!(hash, "{of:?}");
    hash.0.finish()
}

const TIMEOUT: Duration = Duration::from_secs(6);

fn start(index: usize, lives: u64, missing: Option<Missing>) -> Option<Peer> {
    let options = Options { timeout: TIMEOUT, missing, ..Options::default() };
    let core = core(index, index as u64, &options, &Profile::PLAIN)?;
    Some(Peer {
        core,
        core_key: 0,
        core_changed: true,
        generation: Generation(0),
        session: None,
        connected: false,
        unknown: false,
        up: VecDeque::new(),
        down: VecDeque::new(),
        local: VecDeque::from([Event::Tick]),
        preparing: None,
        pending: BTreeSet::new(),
        forgotten: BTreeSet::new(),
        granted: None,
        lease: Moment::default(),
        told: None,
        lives,
    })
}

impl Small {
    /// A cluster whose nodes have their sessions and are about to join: their guests are ready.
    ///
    /// # Errors
    /// An invariant that does not hold on the way there.
    pub fn new(nodes: usize, left: Faults, missing: Option<Missing>) -> Result<Self, String> {
        let now = Moment::from_boot(Duration::from_secs(1000));
        let peers = (0..nodes).filter_map(|index| start(index, 0, missing)).collect();
        let none = Faults { breaks: 0, crashes: 0, deletions: 0, sleeps: 0 };
        let mut small = Self {
            now,
            server: Server::new(),
            server_key: 0,
            server_changed: true,
            peers,
            left: none,
            tampered: 0,
            newest: None,
            missing,
        };
        while let Some(step) = small.steps().into_iter().next() {
            small.take_step(step)?;
        }
        for peer in &mut small.peers {
            peer.local.extend(peer.preparing.take());
        }
        small.left = left;
        Ok(small)
    }

    /// Tells states apart. What a step leaves alone is not looked at again.
    fn key(&mut self) -> u64 {
        if std::mem::take(&mut self.server_changed) {
            self.server_key = key(&self.server);
        }
        let peers: Vec<_> = (self.peers.iter_mut())
            .map(|peer| {
                if std::mem::take(&mut peer.core_changed) {
                    peer.core_key = key(&peer.core);
                }
                let connection =
                    (peer.generation, peer.session, peer.connected, peer.unknown, &peer.pending, &peer.forgotten);
                let queues = (&peer.up, &peer.down, &peer.local);
                (peer.core_key, connection, queues, peer.granted, peer.lease, peer.told, peer.lives)
            })
            .collect();
        key(&(self.now, self.server_key, peers, self.left, self.tampered, self.newest))
    }

    /// What can happen next.
    fn steps(&self) -> Vec<Step> {
        let hears = |peer: &Peer| !peer.local.is_empty() || !peer.down.is_empty();
        let due = |peer: &Peer| peer.core.deadline(self.now).is_some_and(|at| at <= self.now);
        let all = 0..self.peers.len();
        let mut steps = Vec::new();
        if self.left.sleeps > 0 {
            steps.push(Step::Sleep);
        }
        // One that hears, or sees that it is late, does not get in anybody's way.
        let local = all.clone().find(|index| hears(&self.peers[*index]) || due(&self.peers[*index]));
        for index in local.map_or(all, |index| index..index + 1) {
            let peer = &self.peers[index];
            if hears(peer) {
                steps.push(Step::Hear(index));
            } else if due(peer) {
                steps.push(Step::Wake(index));
            }
            if self.left.breaks > 0 && peer.connected {
                steps.push(Step::Break(index));
            }
            if self.left.crashes > 0 {
                steps.push(Step::Crash(index));
            }
            if local.is_none() {
                if !peer.up.is_empty() {
                    steps.push(Step::Take(index));
                }
                if peer.session.is_some() && !peer.connected {
                    steps.push(Step::Return(index));
                }
                if self.left.deletions > 0 && self.own(index).is_some() {
                    steps.push(Step::Delete(index));
                }
            }
        }
        steps
    }

    /// The election znode of a node.
    fn own(&self, index: usize) -> Option<String> {
        let parent = format!("{ROOT}/{}/election", group_name(0));
        let name =
            self.server.children(&parent)?.into_iter().find(|name| name.starts_with(&format!("node-{index}-")))?;
        Some(format!("{parent}/{name}"))
    }

    fn take_step(&mut self, step: Step) -> Result<(), String> {
        self.server_changed |= !matches!(step, Step::Hear(_) | Step::Wake(_));
        match step {
            Step::Take(index) => self.take(index)?,
            Step::Hear(index) => {
                let peer = &mut self.peers[index];
                let generation = peer.generation;
                let local = peer.local.pop_front();
                let event = match (local, peer.down.pop_front()) {
                    (Some(event), later) => {
                        // Put back what was not looked at.
                        later.into_iter().for_each(|event| peer.down.push_front(event));
                        event
                    }
                    (None, Some(event)) => {
                        if let SessionEvent::Answered { tag, .. } = &event {
                            peer.pending.remove(tag);
                        }
                        Event::Session { generation, event }
                    }
                    (None, None) => return Ok(()),
                };
                self.feed(index, event)?;
            }
            Step::Wake(index) => self.feed(index, Event::Tick)?,
            Step::Return(index) => self.reconnect(index),
            Step::Break(index) => {
                self.left.breaks -= 1;
                self.lose(index);
            }
            Step::Crash(index) => {
                self.left.crashes -= 1;
                let lives = self.peers[index].lives + 1;
                if let Some(peer) = start(index, lives, self.missing) {
                    self.peers[index] = peer;
                }
            }
            Step::Delete(index) => {
                self.left.deletions -= 1;
                if let Some(path) = self.own(index) {
                    let _ = self.server.operate(Request::Delete { path, version: None });
                    self.tampered = self.server.zxid().unsigned_abs();
                    self.fire();
                }
            }
            Step::Sleep => {
                self.left.sleeps -= 1;
                self.pass(TIMEOUT / 2);
            }
        }
        self.check()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.server.expire(self.now);
        self.fire();
    }

    fn take(&mut self, index: usize) -> Result<(), String> {
        let peer = &mut self.peers[index];
        let (Some(session), Some((tag, request))) = (peer.session, peer.up.pop_front()) else { return Ok(()) };
        self.server.touch(session, self.now);
        let writer = writer(&request);
        let result = self.server.apply(session, tag, request);
        if let (Some(writer), Ok(_)) = (writer, &result) {
            let held = self.server.data(&format!("{ROOT}/{}/epoch", group_name(0)));
            let held = held.map_or(0, |(_, stat)| stat.mzxid.unsigned_abs());
            if held != writer {
                return Err(format!("fenced_writes: a write of {writer} was accepted while the epoch was {held}"));
            }
        }
        self.fire();
        if self.peers[index].forgotten.remove(&tag) {
            self.server.forget(session, tag);
        }
        if result == Err(RequestError::SessionEnded) {
            self.lose(index);
        } else {
            self.peers[index].down.push_back(SessionEvent::Answered { tag, result });
        }
        Ok(())
    }

    fn fire(&mut self) {
        for (session, event) in self.server.take_told() {
            for peer in self.peers.iter_mut().filter(|peer| peer.session == Some(session) && peer.connected) {
                peer.down.push_back(event.clone());
            }
        }
    }

    /// The connection breaks: what was not taken is lost, and so are the answers to what was.
    fn lose(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.connected = false;
        peer.up.clear();
        peer.forgotten.clear();
        // A session whose id never arrived is not known to its client, which opens another.
        peer.unknown |= peer.down.iter().any(|event| matches!(event, SessionEvent::Opened { .. }));
        peer.down.clear();
        peer.down.push_back(SessionEvent::Disconnected);
        if let Some(session) = peer.session {
            self.server.disconnect(session);
        }
        for tag in std::mem::take(&mut peer.pending) {
            if let Some(session) = peer.session {
                self.server.forget(session, tag);
            }
            let result = Err(RequestError::Unknown("connection lost".into()));
            peer.down.push_back(SessionEvent::Answered { tag, result });
        }
    }

    fn reconnect(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let Some(session) = peer.session else { return };
        if std::mem::take(&mut peer.unknown) {
            let session = self.server.open(self.now, TIMEOUT);
            peer.session = Some(session);
            peer.connected = true;
            peer.down.push_back(SessionEvent::Opened { session, timeout: TIMEOUT });
            return;
        }
        if self.server.touch(session, self.now) {
            peer.connected = true;
            peer.down.push_back(SessionEvent::Reconnected { session });
        } else {
            peer.session = None;
            peer.down.push_back(SessionEvent::Ended { reason: "expired".into(), permanent: false });
        }
    }

    fn feed(&mut self, index: usize, event: Event) -> Result<(), String> {
        self.peers[index].core_changed = true;
        for command in self.peers[index].core.handle(self.now, event) {
            let to_server =
                matches!(command, Command::OpenSession { .. } | Command::CloseSession { .. } | Command::Forget { .. });
            self.server_changed |= to_server;
            self.execute(index, command)?;
        }
        Ok(())
    }

    fn execute(&mut self, index: usize, command: Command) -> Result<(), String> {
        let (now, peer) = (self.now, &mut self.peers[index]);
        match command {
            Command::OpenSession { generation, timeout } => {
                let session = self.server.open(now, timeout);
                peer.generation = generation;
                peer.session = Some(session);
                peer.connected = true;
                peer.down.clear();
                peer.down.push_back(SessionEvent::Opened { session, timeout });
            }
            Command::CloseSession { .. } => {
                if let Some(session) = peer.session.take() {
                    self.server.close(session);
                }
                peer.connected = false;
                peer.up.clear();
                peer.pending.clear();
                peer.down = VecDeque::from([SessionEvent::Ended { reason: "closed".into(), permanent: false }]);
                self.fire();
            }
            Command::Submit { tag, request, .. } => {
                if peer.connected {
                    peer.pending.insert(tag);
                    peer.up.push_back((tag, request));
                } else {
                    let result = Err(RequestError::Unknown("not connected".into()));
                    peer.down.push_back(SessionEvent::Answered { tag, result });
                }
            }
            Command::Forget { tag, .. } => {
                peer.down.retain(|event| event.watch() != Some(tag));
                if peer.up.iter().any(|(sent, _)| *sent == tag) {
                    peer.forgotten.insert(tag);
                }
                if let Some(session) = peer.session {
                    self.server.forget(session, tag);
                }
            }
            Command::Grant { epoch, until, .. } => {
                peer.granted = Some(epoch);
                peer.lease = peer.lease.max(until);
                if self.newest.is_some_and(|newest| newest >= epoch) && epoch.0 > self.tampered {
                    return Err(format!("epochs_grow: node-{index} was granted {epoch} after {:?}", self.newest));
                }
                self.newest = self.newest.max(Some(epoch));
            }
            Command::Extend { until } => peer.lease = peer.lease.max(until),
            Command::Revoke { .. } => peer.granted = None,
            Command::Prepare { group, instance, .. } => {
                let exports = Exports { worker: true, ticker: false, handover: true, observer: false };
                let prepared = Prepared { instance, release: release(1), digest: "d".into(), exports, took: [].into() };
                let event = Event::Prepared { group, instance, result: Ok(prepared) };
                if peer.lives == 0 && instance == InstanceId(1) {
                    peer.preparing = Some(event);
                } else {
                    peer.local.push_back(event);
                }
            }
            Command::Call { group, instance, call, callback, .. } => {
                match &callback {
                    Callback::Elected { epoch, .. } => peer.told = Some(*epoch),
                    Callback::Demoted(_) => peer.told = None,
                    _ => {}
                }
                let elected = matches!(callback, Callback::Elected { .. });
                peer.local.push_back(Event::Returned { group, instance, call, result: Ok(Returned::Done) });
                if let Some(epoch) = peer.told.filter(|_| elected) {
                    peer.local.push_back(put(instance, epoch));
                }
            }
            Command::Stop { .. } => peer.told = None,
            Command::Finished { error } => return Err(format!("never_gives_up: node-{index}: {error:?}")),
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let open = |peer: &&Peer| peer.granted.is_some() && self.now < peer.lease;
        let sound = |epoch: Option<Epoch>| epoch.is_some_and(|epoch| epoch.0 > self.tampered);
        let newest = self.peers.iter().filter(open).filter_map(|peer| peer.granted).max();
        if self.peers.iter().filter(open).any(|peer| peer.granted < newest && sound(peer.granted)) {
            return Err(format!("one_gate: {:?}", self.peers.iter().map(|peer| peer.granted).collect::<Vec<_>>()));
        }
        Ok(())
    }

    /// Nothing goes wrong any more, and time goes on: there must be one leader soon, and every other node its member.
    fn settle(mut self) -> Result<(), String> {
        self.left = Faults { breaks: 0, crashes: 0, deletions: 0, sleeps: 0 };
        let end = self.now + TIMEOUT * 6;
        let mut idle = 0;
        while self.now < end {
            if let Some(step) = self.steps().into_iter().next() {
                idle += 1;
                if idle > 10_000 {
                    return Err(format!("time_goes_on: {step:?} again and again"));
                }
                self.take_step(step)?;
                continue;
            }
            idle = 0;
            let deadline = self.peers.iter().filter_map(|peer| peer.core.deadline(self.now)).min();
            let next = deadline.unwrap_or(end).min(self.now + TIMEOUT / 3).min(end);
            // The clients ping.
            for session in self.peers.iter().filter(|peer| peer.connected).filter_map(|peer| peer.session) {
                self.server.touch(session, self.now);
            }
            let time = next.since(self.now);
            self.pass(time);
        }
        let roles: Vec<Option<Role>> =
            (self.peers.iter()).map(|peer| peer.core.status(self.now).groups.first().map(|group| group.role)).collect();
        let count = |wanted| roles.iter().filter(|role| **role == Some(wanted)).count();
        if count(Role::Leader) == 1 && count(Role::Worker) + 1 == roles.len() {
            Ok(())
        } else {
            Err(format!("one_leader_at_rest: the roles are {roles:?}"))
        }
    }
}

/// The epoch that a state write carries as its value.
fn writer(request: &Request) -> Option<u64> {
    let Request::Multi(operations) = request else { return None };
    operations.iter().find_map(|op| match op {
        Op::Set { path, data, .. } | Op::Create { path, data } if path.contains("/state/") => {
            std::str::from_utf8(data).ok()?.parse().ok()
        }
        _ => None,
    })
}

fn put(instance: InstanceId, epoch: Epoch) -> Event {
    let value = epoch.0.to_string().into_bytes().into();
    let op = StateOp::Put { key: "k".into(), value, expect: Expectation::Absent };
    let (group, request) = (group_name(0), RequestId(epoch.0));
    Event::Ask { group, request, asker: Asker::Guest(instance), ask: Ask::State(op) }
}

/// Goes through every state that can be reached, `most` at most, with a safeguard missing or none.
///
/// # Errors
/// The first invariant that does not hold, with the steps that led there.
pub fn explore(nodes: usize, faults: Faults, missing: Option<Missing>, most: usize) -> Result<Explored, String> {
    let mut first = Small::new(nodes, faults, missing)?;
    let mut seen = BTreeSet::from([first.key()]);
    let mut explored = Explored { states: 1, ..Explored::default() };
    let mut stack: Vec<(Small, Vec<Step>)> = Vec::new();
    let mut path: Vec<Step> = Vec::new();
    let steps = first.steps();
    stack.push((first, steps));
    while let Some((state, steps)) = stack.last_mut() {
        let Some(step) = steps.pop() else {
            stack.pop();
            path.pop();
            continue;
        };
        let mut next = state.clone();
        let failed = |what: String, path: &[Step]| format!("{what}\nafter {path:?}, {step:?}");
        next.take_step(step).map_err(|what| failed(what, &path))?;
        explored.steps += 1;
        if !seen.insert(next.key()) {
            continue;
        }
        explored.states += 1;
        if explored.states > most {
            return Err(failed(format!("more than {most} states"), &path));
        }
        let steps = next.steps();
        let under_way = |step: &Step| matches!(step, Step::Take(_) | Step::Hear(_) | Step::Wake(_) | Step::Return(_));
        if !steps.iter().any(under_way) {
            explored.ends += 1;
            next.clone().settle().map_err(|what| failed(what, &path))?;
        }
        path.push(step);
        stack.push((next, steps));
    }
    Ok(explored)
}
