//! The cluster, its clock and what is on its way.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use bellwether_coordination::memory::Server;
use bellwether_core::callback::{CallFailure, Callback, Exports, PrepareFailure, Prepared, Returned, Step};
use bellwether_core::command::{Answer, Command, SwapOutcome};
use bellwether_core::config::{ElectionFormat, FailurePolicy, GroupConfig, NodeConfig, StateAccess, TickConfig, Watch};
use bellwether_core::event::{Ask, Asker, Event, SessionEvent, Source};
use bellwether_core::id::{
    CallId, Epoch, Generation, GroupName, Guid, InstanceId, NodeId, ReleaseId, RequestId, SessionId, Tag,
};
use bellwether_core::node::Node;
use bellwether_core::request::{Op, Reply, Request, RequestError};
use bellwether_core::state::{Expectation, StateOp};
use bellwether_core::time::Moment;
use bellwether_core::work::Fence;

use crate::client::{Cable, Client};
use crate::faults;
use crate::guest::{Fate, Guests, Instance, Manners};
use crate::history::{History, Term};
use crate::invariants;

/// What a run is like.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// How long faults go on, in simulated time.
    pub trouble: Duration,
    /// How long the cluster is given to come to rest after that.
    pub calm: Duration,
    /// The session timeout.
    pub timeout: Duration,
    /// The ensemble's tickTime.
    pub tick_time: Duration,
    /// Whether to say what happens.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            trouble: Duration::from_secs(60),
            calm: Duration::from_secs(60),
            timeout: Duration::from_secs(6),
            tick_time: Duration::from_secs(2),
            trace: false,
        }
    }
}

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The run.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// When, on the simulated clock.
    pub at: Moment,
    /// Which, and what was found.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} step {} at {}: {}", self.seed, self.step, self.at, self.what)
    }
}

impl std::error::Error for Violation {}

/// A node: what is production code, and what is modelled around it.
pub struct SimNode {
    /// The production core; none while the process is down.
    pub core: Option<Node>,
    pub(crate) incarnation: u64,
    pub(crate) client: Option<Client>,
    pub(crate) cable: Cable,
    /// While set, the node's server is cut off from its leader: reads are answered from this, writes and pings go nowhere.
    pub(crate) stale: Option<Box<Server>>,
    pub(crate) paused: bool,
    /// What could not be delivered while the process stood still.
    held: VecDeque<Event>,
    pub(crate) guests: Guests,
    lease: Moment,
    granted: Option<Epoch>,
    fence: Fence,
    wake: u64,
    release: u64,
    next_request: u64,
}

/// What is on its way.
#[derive(Debug, Clone)]
enum Parcel {
    Connect,
    Ping,
    Up { connection: u64, tag: Tag, request: Request },
    Down { connection: u64, event: SessionEvent },
    Local(Event),
    Finish { instance: InstanceId, call: CallId, fate: Fate, returned: Returned },
    Act { instance: InstanceId },
    Wake(u64),
    Notice,
    Close { session: SessionId },
    Restart,
}

/// The cluster.
pub struct World {
    /// The seed of the run.
    pub seed: u64,
    /// What the run is like.
    pub options: Options,
    /// The clock.
    pub now: Moment,
    /// Steps taken.
    pub step: u64,
    /// Steps since the clock moved last.
    idle: u32,
    /// The coordinator.
    pub server: Server,
    /// The nodes.
    pub nodes: Vec<SimNode>,
    /// What happened.
    pub history: History,
    pub(crate) rng: fastrand::Rng,
    parcels: BTreeMap<(Moment, u64), (usize, u64, Parcel)>,
    next_parcel: u64,
    pub(crate) manners: Manners,
    /// Whether the whole ensemble is without a quorum.
    pub(crate) quorum: bool,
    quorum_lost: Moment,
}

fn group() -> GroupName {
    // A constant that is fit.
    GroupName::new("g").unwrap_or_else(|_| unreachable!())
}

const ROOT: &str = "/bellwether";

fn release_id(number: u64) -> ReleaseId {
    ReleaseId(format!("{number:064x}").into())
}

impl World {
    /// A cluster whose nodes are about to start.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> Self {
        let mut world = Self {
            seed,
            options,
            now: Moment::from_boot(Duration::from_secs(1000)),
            step: 0,
            idle: 0,
            server: Server::new(),
            nodes: Vec::new(),
            history: History::default(),
            rng: fastrand::Rng::with_seed(seed),
            parcels: BTreeMap::new(),
            next_parcel: 0,
            manners: Manners { trap: 5, refuse: 5, hang: 3, broken: 50 },
            quorum: true,
            quorum_lost: Moment::default(),
        };
        for index in 0..options.nodes {
            world.nodes.push(SimNode {
                core: None,
                incarnation: 0,
                client: None,
                cable: Cable::WHOLE,
                stale: None,
                paused: false,
                held: VecDeque::new(),
                guests: Guests::default(),
                lease: Moment::default(),
                granted: None,
                fence: Fence::default(),
                wake: 0,
                release: 1,
                next_request: 0,
            });
            world.boot(index);
        }
        world
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first invariant that did not hold.
    pub fn run(&mut self) -> Result<(), Violation> {
        let calm_from = self.now + self.options.trouble;
        let end = calm_from + self.options.calm;
        let mut next_fault = self.now + Duration::from_millis(self.rng.u64(500..3000));
        let mut calm = false;
        loop {
            let next = self.parcels.keys().next().map_or(end, |(at, _)| *at);
            let expiry = self.server.next_expiry().filter(|_| self.quorum).unwrap_or(end);
            let fault = if calm { end } else { next_fault };
            let at = next.min(expiry).min(fault).min(end).max(self.now);
            self.idle = if at == self.now { self.idle + 1 } else { 0 };
            if self.idle > 10_000 {
                let asked: Vec<_> =
                    self.nodes.iter().map(|node| node.core.as_ref().and_then(|core| core.deadline(at))).collect();
                return self.check(Err(format!("the clock stands still; the nodes ask to be woken at {asked:?}")));
            }
            self.now = at;
            if at >= end {
                break;
            }
            self.step += 1;
            if !calm && at >= calm_from {
                calm = true;
                faults::heal_all(self);
            } else if !calm && fault <= at {
                faults::inject(self);
                next_fault = at + Duration::from_millis(self.rng.u64(50..4000));
            } else if expiry <= at {
                let ended = self.server.expire(at);
                self.say(format_args!("server: sessions {ended:?} expired"));
                self.fire();
            } else if let Some((_, (node, incarnation, parcel))) = self.parcels.pop_first()
                && self.nodes[node].incarnation == incarnation
            {
                self.deliver(node, parcel);
            }
            self.check(invariants::always(self))?;
        }
        self.check(invariants::at_rest(self))
    }

    fn check(&self, result: Result<(), String>) -> Result<(), Violation> {
        result.map_err(|what| Violation { seed: self.seed, step: self.step, at: self.now, what })
    }

    pub(crate) fn say(&self, what: fmt::Arguments<'_>) {
        if self.options.trace {
            #[expect(clippy::print_stdout, reason = "the trace of a replayed seed is this program's output")]
            {
                println!("{:>8} {} {what}", self.step, self.now);
            }
        }
    }

    fn post(&mut self, after: Duration, node: usize, parcel: Parcel) {
        let at = self.now + after;
        self.post_at(at, node, parcel);
    }

    fn post_at(&mut self, at: Moment, node: usize, parcel: Parcel) {
        self.next_parcel += 1;
        let incarnation = self.nodes[node].incarnation;
        self.parcels.insert((at, self.next_parcel), (node, incarnation, parcel));
    }

    fn delay(&mut self) -> Duration {
        // Mostly quick, now and then slow.
        if self.rng.u32(0..50) == 0 {
            Duration::from_micros(self.rng.u64(5_000..400_000))
        } else {
            Duration::from_micros(self.rng.u64(100..3_000))
        }
    }

    /// A process starts.
    pub(crate) fn boot(&mut self, index: usize) {
        let seed = self.rng.u64(..);
        let guid = Guid::new(&format!("{:032x}", index + 1)).unwrap_or_else(|| unreachable!());
        let id = NodeId::new(format!("node-{index}")).unwrap_or_else(|_| unreachable!());
        let config = NodeConfig {
            id,
            guid,
            address: format!("10.0.0.{index}:1"),
            root: ROOT.into(),
            session_timeout: self.options.timeout,
            tick_time: self.options.tick_time,
            audit: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            seed,
        };
        let group = GroupConfig {
            name: group(),
            candidate: true,
            election_format: ElectionFormat::Bellwether,
            election_path: None,
            watch: if self.seed.is_multiple_of(3) { Watch::All } else { Watch::Leader },
            labels: BTreeMap::new(),
            tick: Some(TickConfig { every: Duration::from_millis(700), always: false }),
            callback: Duration::from_secs(2),
            on_failure: FailurePolicy {
                restarts: 3,
                backoff: Duration::from_millis(50),
                backoff_max: Duration::from_secs(1),
                sit_out: Duration::from_secs(5),
            },
            state: StateAccess::Leader,
        };
        let node = &mut self.nodes[index];
        node.incarnation += 1;
        node.core = Node::new(config, [group]).ok();
        node.client = None;
        node.guests = Guests::default();
        node.lease = Moment::default();
        node.granted = None;
        node.fence = Fence::default();
        node.paused = false;
        node.held.clear();
        self.feed(index, Event::Tick);
    }

    /// A process ends without a word.
    pub(crate) fn crash(&mut self, index: usize) {
        let incarnation = self.nodes[index].incarnation;
        self.history.leave(index, incarnation, self.now);
        let node = &mut self.nodes[index];
        node.core = None;
        node.client = None;
        node.incarnation += 1;
        let pause = Duration::from_millis(self.rng.u64(10..12_000));
        self.post(pause, index, Parcel::Restart);
    }

    /// Gives the core an event and carries out what it wants.
    pub(crate) fn feed(&mut self, index: usize, event: Event) {
        if self.nodes[index].paused {
            self.nodes[index].held.push_back(event);
            return;
        }
        let now = self.now;
        let Some(core) = self.nodes[index].core.as_mut() else { return };
        let commands = core.handle(now, event);
        let deadline = core.deadline(now);
        for command in commands {
            self.execute(index, command);
        }
        let node = &mut self.nodes[index];
        node.wake += 1;
        if let Some(at) = deadline {
            let wake = Parcel::Wake(node.wake);
            self.post_at(at.max(now), index, wake);
        }
    }

    pub(crate) fn resume(&mut self, index: usize) {
        self.nodes[index].paused = false;
        // What matters most on waking is the time that has passed: the driver's alarm comes first.
        self.feed(index, Event::Tick);
        while let Some(event) = self.nodes[index].held.pop_front() {
            self.feed(index, event);
        }
    }

    fn execute(&mut self, index: usize, command: Command) {
        match command {
            Command::OpenSession { generation, .. } => {
                self.nodes[index].client = Some(Client::new(generation, self.now));
                let delay = self.delay();
                self.post(delay, index, Parcel::Connect);
            }
            Command::CloseSession { generation } => self.close(index, generation),
            Command::Submit { generation, tag, request } => self.submit(index, generation, tag, request),
            Command::Forget { tag, .. } => {
                if let Some(session) = self.nodes[index].client.as_ref().and_then(|client| client.session) {
                    self.server.forget(session, tag);
                }
            }
            Command::Grant { epoch, until, .. } => {
                let node = &mut self.nodes[index];
                node.granted = Some(epoch);
                node.lease = node.lease.max(until);
                self.history.elections += 1;
            }
            Command::Extend { until } => self.nodes[index].lease = self.nodes[index].lease.max(until),
            Command::Revoke { .. } => self.nodes[index].granted = None,
            Command::Witness { epoch, .. } => {
                let _ = self.nodes[index].fence.admit(epoch);
            }
            Command::Prepare { instance, source, .. } => self.prepare(index, instance, source),
            Command::Call { instance, call, callback, budget, .. } => {
                self.call(index, instance, call, callback, budget)
            }
            Command::Stop { instance, .. } => self.stop(index, instance),
            Command::Promote { instance, .. } => self.nodes[index].guests.live = Some(instance),
            Command::Drain { group } => {
                let delay = self.delay();
                self.post(delay, index, Parcel::Local(Event::Drained { group }));
            }
            Command::Answer { answer: Answer::Swapped(SwapOutcome::Committed { .. }), .. } => self.history.swaps += 1,
            Command::Notice(notice) => {
                self.say(format_args!("node-{index}: {} {:?}: {}", notice.what, notice.epoch, notice.text));
            }
            Command::Finished { .. } => self.nodes[index].core = None,
            Command::Publish { .. } | Command::Answer { .. } => {}
        }
    }

    /// Whether the node's packets reach the server, or come back.
    fn reachable(&self, index: usize) -> bool {
        let cable = self.nodes[index].cable;
        cable.up && cable.down && self.nodes[index].stale.is_none() && self.quorum
    }

    fn submit(&mut self, index: usize, generation: Generation, tag: Tag, request: Request) {
        let delay = self.delay();
        let now = self.now;
        let Some(client) = self.nodes[index].client.as_mut().filter(|client| client.generation == generation) else {
            return;
        };
        if !client.connected {
            let event = SessionEvent::Answered { tag, result: Err(RequestError::Unknown("not connected".into())) };
            self.post(Duration::ZERO, index, Parcel::Local(Event::Session { generation, event }));
            return;
        }
        client.pending.insert(tag);
        client.last_up = client.last_up.max(now + delay);
        let (at, connection) = (client.last_up, client.connection);
        self.post_at(at, index, Parcel::Up { connection, tag, request });
    }

    fn close(&mut self, index: usize, generation: Generation) {
        let Some(client) = self.nodes[index].client.as_mut().filter(|client| client.generation == generation) else {
            return;
        };
        client.over = true;
        client.connected = false;
        let session = client.session;
        if let Some(session) = session.filter(|_| self.reachable(index)) {
            let delay = self.delay();
            self.post(delay, index, Parcel::Close { session });
        }
        let event = SessionEvent::Ended { reason: "closed".into(), permanent: false };
        let delay = self.delay();
        self.post(delay, index, Parcel::Local(Event::Session { generation, event }));
    }

    /// Sends an event of the session to its node, behind everything that was sent before.
    fn down(&mut self, index: usize, event: SessionEvent) {
        let delay = self.delay();
        let now = self.now;
        let Some(client) = self.nodes[index].client.as_mut() else { return };
        client.last_down = client.last_down.max(now + delay);
        let (at, connection) = (client.last_down, client.connection);
        self.post_at(at, index, Parcel::Down { connection, event });
    }

    /// Sends the watches that have fired on their way.
    pub(crate) fn fire(&mut self) {
        for (session, tag) in self.server.take_fired() {
            let owner = self.nodes.iter().position(|node| {
                node.client.as_ref().is_some_and(|client| client.session == Some(session) && !client.over)
            });
            if let Some(index) = owner {
                self.down(index, SessionEvent::Fired { tag });
            }
        }
    }

    fn deliver(&mut self, index: usize, parcel: Parcel) {
        match parcel {
            Parcel::Wake(wake) => {
                if self.nodes[index].wake == wake {
                    self.feed(index, Event::Tick);
                }
            }
            Parcel::Local(event) => self.feed(index, event),
            Parcel::Restart => self.boot(index),
            Parcel::Connect => self.connect(index),
            Parcel::Ping => self.ping(index),
            Parcel::Notice => self.notice_loss(index),
            Parcel::Close { session } => {
                self.server.close(session);
                self.fire();
            }
            Parcel::Up { connection, tag, request } => self.arrive(index, connection, tag, request),
            Parcel::Down { connection, event } => self.down_arrives(index, connection, event),
            Parcel::Finish { instance, call, fate, returned } => self.finish(index, instance, call, fate, returned),
            Parcel::Act { instance } => self.act(index, instance),
        }
    }

    fn connect(&mut self, index: usize) {
        let (timeout, now) = (self.options.timeout, self.now);
        if !self.reachable(index) || self.nodes[index].paused {
            let pause = Duration::from_millis(self.rng.u64(100..600));
            return self.post(pause, index, Parcel::Connect);
        }
        let Some(client) = self.nodes[index].client.as_mut().filter(|client| !client.over && !client.connected) else {
            return;
        };
        client.connection += 1;
        client.connected = true;
        client.doomed = false;
        client.heard = now;
        client.last_up = client.last_up.max(now);
        client.last_down = client.last_down.max(now);
        let generation = client.generation;
        // A session whose id never arrived is not known here; it runs out by itself.
        let event = match client.session.filter(|_| client.opened) {
            None => {
                let session = self.server.open(now, timeout);
                client.session = Some(session);
                SessionEvent::Opened { session, timeout }
            }
            Some(session) if self.server.touch(session, now) => SessionEvent::Reconnected { session },
            Some(_) => {
                client.over = true;
                client.connected = false;
                SessionEvent::Ended { reason: "expired".into(), permanent: false }
            }
        };
        self.say(format_args!("node-{index}: client {event:?}"));
        if matches!(event, SessionEvent::Ended { .. }) {
            return self.feed(index, Event::Session { generation, event });
        }
        self.down(index, event);
        self.post(timeout / 3, index, Parcel::Ping);
    }

    /// The client pings every third of the timeout, and gives its connection up when it heard nothing for two.
    fn ping(&mut self, index: usize) {
        let (timeout, now) = (self.options.timeout, self.now);
        let paused = self.nodes[index].paused;
        let cable = self.nodes[index].cable;
        let stale = self.nodes[index].stale.is_some();
        let quorum = self.quorum;
        let Some(client) = self.nodes[index].client.as_mut().filter(|client| client.connected && !client.over) else {
            return;
        };
        if !paused {
            if cable.up
                && !stale
                && quorum
                && let Some(session) = client.session
                && !self.server.touch(session, now)
            {
                // The server answers a dead session's packet by closing the connection.
                client.heard = Moment::default();
            } else if cable.up && cable.down && quorum && !client.doomed {
                // A follower that is cut off from its leader answers pings all the same.
                client.heard = now;
            }
            if now.since(client.heard) >= timeout * 2 / 3 {
                self.post(Duration::ZERO, index, Parcel::Notice);
                return;
            }
        }
        self.post(timeout / 3, index, Parcel::Ping);
    }

    /// The client finds that its connection is gone.
    pub(crate) fn lose_connection(&mut self, index: usize) {
        self.post(Duration::ZERO, index, Parcel::Notice);
    }

    fn notice_loss(&mut self, index: usize) {
        let Some(client) = self.nodes[index].client.as_mut().filter(|client| client.connected) else { return };
        client.connected = false;
        client.connection += 1;
        let generation = client.generation;
        let pending = std::mem::take(&mut client.pending);
        self.say(format_args!("node-{index}: client lost its connection"));
        self.feed(index, Event::Session { generation, event: SessionEvent::Disconnected });
        for tag in pending {
            let event = SessionEvent::Answered { tag, result: Err(RequestError::Unknown("connection lost".into())) };
            self.feed(index, Event::Session { generation, event });
        }
        let pause = Duration::from_millis(self.rng.u64(1..400));
        self.post(pause, index, Parcel::Connect);
    }

    fn arrive(&mut self, index: usize, connection: u64, tag: Tag, request: Request) {
        let node = &self.nodes[index];
        let Some(client) = node.client.as_ref().filter(|client| client.connection == connection && !client.doomed)
        else {
            return;
        };
        let Some(session) = client.session else { return };
        if !node.cable.up || !self.quorum {
            return self.doom(index);
        }
        let result = match &node.stale {
            // Writes wait for a leader that cannot be reached; reads are answered from what there was.
            Some(stale) => match request {
                Request::Get { .. } | Request::List { .. } => stale.read(&request),
                _ => return,
            },
            None => {
                self.server.touch(session, self.now);
                self.note_write(index, &request);
                let result = self.server.apply(session, tag, request);
                if let (Ok(Reply::Multi(_)), Some((writer, held))) = (&result, self.history.writes.last().copied())
                    && writer == Epoch(u64::MAX)
                {
                    // Filled in by `note_write`; kept only if it was accepted.
                    self.history.writes.pop();
                    self.history.writes.push((held, held));
                }
                result
            }
        };
        self.fire();
        self.down(index, SessionEvent::Answered { tag, result });
    }

    /// A packet was lost. The stream of a connection has no gaps: whatever comes behind is lost too, until both ends notice.
    fn doom(&mut self, index: usize) {
        if let Some(client) = &mut self.nodes[index].client {
            client.doomed = true;
        }
    }

    /// A fenced write is about to be tried: whose is it, and would it be accepted?
    fn note_write(&mut self, index: usize, request: &Request) {
        let Request::Multi(operations) = request else { return };
        let state = format!("{ROOT}/g/state/");
        let writes = operations.iter().any(|op| {
            matches!(op, Op::Set { path, .. } | Op::Create { path, .. } | Op::Delete { path, .. } if path.starts_with(&state))
        });
        if !writes {
            return;
        }
        let mut trial = self.server.clone();
        let session = self.nodes[index].client.as_ref().and_then(|client| client.session);
        let accepted = session.is_some_and(|session| trial.apply(session, Tag(0), request.clone()).is_ok());
        let held = self.server.data(&format!("{ROOT}/g/epoch")).map_or(0, |(_, stat)| stat.mzxid);
        // The writer's term is the one its request was made in: the guest's.
        let guests = &self.nodes[index].guests;
        let told = guests.live.and_then(|live| guests.instances.get(&live)).and_then(|instance| instance.told);
        if let (true, Some(told)) = (accepted, told) {
            self.history.accepted += 1;
            self.history.writes.push((told, Epoch(held.unsigned_abs())));
        }
    }

    fn down_arrives(&mut self, index: usize, connection: u64, event: SessionEvent) {
        let now = self.now;
        let down = self.nodes[index].cable.down;
        let Some(client) =
            self.nodes[index].client.as_mut().filter(|client| client.connection == connection && client.connected)
        else {
            return;
        };
        if !down || client.doomed {
            client.doomed = true;
            return;
        }
        client.heard = now;
        client.opened = true;
        if let SessionEvent::Answered { tag, .. } = &event
            && !client.pending.remove(tag)
        {
            return;
        }
        let generation = client.generation;
        self.feed(index, Event::Session { generation, event });
    }

    fn prepare(&mut self, index: usize, instance: InstanceId, source: Source) {
        let broken = self.rng.u32(0..1000) < self.manners.broken && matches!(source, Source::File(_));
        let release = match source {
            Source::File(path) => path.to_string_lossy().parse().unwrap_or(1),
            Source::Manifest | Source::Current => self.nodes[index].release,
        };
        let exports = Exports { worker: true, ticker: true, handover: true, observer: false };
        let result = if broken {
            Err(PrepareFailure { step: Step::Compile, reason: "broken".into() })
        } else {
            let release = release_id(release);
            let made = Instance { release: release.clone(), told: None, call: None, counter: 0 };
            self.nodes[index].guests.instances.insert(instance, made);
            Ok(Prepared { instance, release, digest: "d".into(), exports })
        };
        let pause = Duration::from_millis(self.rng.u64(1..300));
        self.post(pause, index, Parcel::Local(Event::Prepared { group: group(), instance, result }));
    }

    fn call(&mut self, index: usize, instance: InstanceId, call: CallId, callback: Callback, budget: Duration) {
        let now = self.now;
        let incarnation = self.nodes[index].incarnation;
        let (fate, takes) = self.manners.draw(&mut self.rng, budget);
        self.say(format_args!("node-{index}: {instance} {} begins, ends {fate:?} after {takes:?}", callback.name()));
        let Some(called) = self.nodes[index].guests.instances.get_mut(&instance) else { return };
        assert!(called.call.is_none(), "two calls at once into {instance} of node-{index}");
        called.call = Some((call, matches!(callback, Callback::Demoted(_))));
        let mut returned = Returned::Done;
        match &callback {
            Callback::Elected { epoch, cause } => {
                let (epoch, cause) = (*epoch, *cause);
                called.told = Some(epoch);
                let fresh = !self.history.terms.iter().any(|term| {
                    term.node == index && term.incarnation == incarnation && term.until.is_none() && term.epoch == epoch
                });
                if fresh {
                    let _ = cause;
                    self.history.terms.push(Term {
                        node: index,
                        incarnation,
                        epoch,
                        from: now,
                        until: None,
                        paused: false,
                        tampered: false,
                    });
                }
                let soon = Duration::from_millis(self.rng.u64(1..200));
                self.post(soon, index, Parcel::Act { instance });
            }
            Callback::Snapshot => returned = Returned::Snapshot(called.counter.to_be_bytes().to_vec().into()),
            Callback::Restore(state) => {
                called.counter = state.as_ref().try_into().map_or(u64::MAX, u64::from_be_bytes);
            }
            _ => called.counter += 1,
        }
        self.post(takes, index, Parcel::Finish { instance, call, fate, returned });
    }

    fn finish(&mut self, index: usize, instance: InstanceId, call: CallId, fate: Fate, returned: Returned) {
        if self.nodes[index].paused {
            // The guest stands still with its process.
            return self.post(Duration::from_millis(50), index, Parcel::Finish { instance, call, fate, returned });
        }
        let now = self.now;
        let incarnation = self.nodes[index].incarnation;
        let Some(called) = self.nodes[index].guests.instances.get_mut(&instance) else { return };
        let Some((_, demotes)) = called.call.take_if(|(running, _)| *running == call) else { return };
        let result = match fate {
            Fate::Done => Ok(returned),
            Fate::Refused => Err(CallFailure::Refused("no".into())),
            Fate::Trapped => Err(CallFailure::Trapped("unreachable".into())),
            Fate::Hung => Err(CallFailure::TimedOut { budget_ms: 0 }),
        };
        let lives = result.as_ref().err().is_none_or(CallFailure::leaves_instance);
        if demotes || !lives {
            let told = called.told.take();
            if !lives {
                self.nodes[index].guests.instances.remove(&instance);
            }
            if told.is_some() && (demotes || !self.any_believes(index)) {
                self.history.leave(index, incarnation, now);
            }
        }
        self.feed(index, Event::Returned { group: group(), instance, call, result });
    }

    fn any_believes(&self, index: usize) -> bool {
        self.nodes[index].guests.instances.values().any(|instance| instance.told.is_some())
    }

    fn stop(&mut self, index: usize, instance: InstanceId) {
        let (now, incarnation) = (self.now, self.nodes[index].incarnation);
        let stopped = self.nodes[index].guests.instances.remove(&instance);
        if stopped.is_some_and(|stopped| stopped.told.is_some()) && !self.any_believes(index) {
            self.history.leave(index, incarnation, now);
        }
    }

    /// A guest that believes it leads does something: a write to the state, or a task for a worker.
    fn act(&mut self, index: usize, instance: InstanceId) {
        let again = Duration::from_millis(self.rng.u64(5..400));
        let now = self.now;
        if self.nodes[index].paused {
            return self.post(again, index, Parcel::Act { instance });
        }
        let Some(actor) = self.nodes[index].guests.instances.get(&instance) else { return };
        let Some(told) = actor.told else { return };
        // The gate that every effect goes through: granted, and the lease holds at this very moment.
        let open = self.nodes[index].granted.filter(|_| now < self.nodes[index].lease);
        if open.is_some() {
            if self.rng.bool() {
                let key = format!("k{}", self.rng.u32(0..4));
                let value = told.0.to_string().into_bytes().into();
                let op = StateOp::Put { key, value, expect: Expectation::Anything };
                self.nodes[index].next_request += 1;
                let request = RequestId(self.nodes[index].next_request);
                let event = Event::Ask { group: group(), request, asker: Asker::Guest(instance), ask: Ask::State(op) };
                self.feed(index, event);
            } else {
                let to = self.rng.usize(0..self.nodes.len());
                self.task(index, to, told);
            }
        }
        self.post(again, index, Parcel::Act { instance });
    }

    fn task(&mut self, from: usize, to: usize, epoch: Epoch) {
        if from == to || self.nodes[to].core.is_none() || self.nodes[to].paused {
            return;
        }
        let incarnation = self.nodes[to].incarnation;
        if self.nodes[to].fence.admit(epoch).is_ok() {
            self.history.tasks.push((to, incarnation, epoch));
        }
    }

    /// An operator asks for another release on a node.
    pub(crate) fn ask_swap(&mut self, index: usize) {
        let release = self.rng.u64(1..5);
        self.nodes[index].next_request += 1;
        let request = RequestId(self.nodes[index].next_request);
        let ask = Ask::Swap(Source::File(release.to_string().into()));
        self.feed(index, Event::Ask { group: group(), request, asker: Asker::Operator, ask });
    }

    /// An operator asks a node to resign.
    pub(crate) fn ask_resign(&mut self, index: usize) {
        self.nodes[index].next_request += 1;
        let request = RequestId(self.nodes[index].next_request);
        self.feed(index, Event::Ask { group: group(), request, asker: Asker::Operator, ask: Ask::Resign });
    }

    /// The ensemble loses its quorum, or has one again: every session that it knew is then given a fresh timeout.
    pub(crate) fn set_quorum(&mut self, quorum: bool) {
        if self.quorum && !quorum {
            self.quorum_lost = self.now;
        }
        if !self.quorum && quorum {
            for session in self.server.sessions() {
                self.server.touch(session, self.now);
            }
        }
        self.quorum = quorum;
    }

    /// The epoch that a node may act in now.
    #[must_use]
    pub fn gate(&self, index: usize) -> Option<Epoch> {
        self.nodes[index].granted.filter(|_| self.now < self.nodes[index].lease)
    }
}
