//! The session as the core sees it: what is under way on it, which watches it holds, and until when it proves that this
//! node may lead.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::command::{Command, Level, Notice};
use crate::config::{Jitter, NodeConfig, Safeguard, Safeguards, Timing};
use crate::event::SessionEvent;
use crate::id::{CallId, Generation, GroupName, InstanceId, SessionId, Tag};
use crate::request::{CreateMode, Reply, Request, RequestError};
use crate::time::Moment;
use crate::{election, registry, rollout, store};

/// What a request was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The node's own znode and what everything stands on.
    Node(NodePurpose),
    /// A group's.
    Group(GroupName, Purpose),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodePurpose {
    Base,
    Create,
    Look,
    Evict,
    Heartbeat,
    Audit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    Parent,
    Election(election::Purpose),
    Registry(registry::Purpose),
    Store(store::Purpose),
    Rollout(rollout::Purpose),
}

#[derive(Debug, Clone)]
struct Pending {
    owner: Owner,
    sent: Moment,
    writes: bool,
    watches: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// No session; the next attempt is due then.
    Closed { retry_at: Moment },
    /// Asked for, not there yet.
    Opening,
    /// There.
    Open { session: SessionId, connected: bool },
    /// Told to close.
    Closing,
    /// Never to be opened (again).
    Over,
}

/// Whether the node's own znode is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Not looked at yet, or lost.
    Unknown,
    /// A request is under way.
    Asking,
    /// Held by this session.
    Held,
    /// Held by somebody else, or not to be had just now; looked for again then.
    Taken { again_at: Moment },
}

/// What a machine of the core works with while it handles one event.
pub(crate) struct Cx<'a> {
    pub now: Moment,
    pub node: &'a NodeConfig,
    pub link: &'a mut Link,
    pub out: &'a mut Vec<Command>,
    pub rng: &'a mut Jitter,
    pub counters: &'a mut Counters,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    instance: u64,
    call: u64,
}

impl Counters {
    pub fn instance(&mut self) -> InstanceId {
        self.instance += 1;
        InstanceId(self.instance)
    }

    pub fn call(&mut self) -> CallId {
        self.call += 1;
        CallId(self.call)
    }
}

/// What is certain of the time at which the ensemble's leader last heard of the session; that time, and not the send time of
/// a write that it acknowledged, is what the session's end counts from. A follower passes writes on at once, but tells its
/// leader of the sessions it has heard of only every half tickTime. So a write that was acknowledged proves that
/// whatever had been answered half a tickTime before it was sent has been told; the write itself may not have been.
#[derive(Debug, Clone, Default)]
struct Heard {
    /// The leader has heard of the session then, or later.
    certain: Moment,
    /// When requests were sent and answered, in that order, thinned out.
    answered: VecDeque<(Moment, Moment)>,
    /// When the session was asked for, or the last request sent.
    asked: Moment,
}

/// So many answers are remembered; with what lies between them, more than anything that is under way can need.
const ANSWERS: usize = 64;

impl Heard {
    /// The session was opened: the leader has made it, after it was asked for.
    fn opened(&mut self) {
        self.answered.clear();
        self.certain = self.asked;
    }

    /// Connected again: the leader was asked whether the session lives, after all that was answered before.
    fn reconnected(&mut self) {
        self.certain = self.answered.drain(..).map(|(sent, _)| sent).fold(self.certain, Moment::max);
    }

    /// A request was answered.
    fn answered(&mut self, sent: Moment, now: Moment, half_tick: Duration) {
        if self.answered.back().is_some_and(|(last, _)| sent.since(*last) < half_tick / 10) {
            return;
        }
        if self.answered.len() == ANSWERS {
            self.answered.pop_front();
        }
        self.answered.push_back((sent, now));
    }

    /// A write that was sent then was acknowledged: what the lease counts from, so that the session ends no earlier than its
    /// timeout less half a tickTime after that.
    fn renews(&mut self, sent: Moment, half_tick: Duration) -> Moment {
        let told = self.answered.iter().rev().find(|(_, answered)| *answered + half_tick <= sent);
        if let Some((asked, _)) = told {
            self.certain = self.certain.max(*asked);
        }
        sent.min(self.certain + half_tick)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub generation: Generation,
    pub state: State,
    pub timing: Timing,
    pub safeguards: Safeguards,
    half_tick: Duration,
    /// What the lease counts from: see [`Heard::renews`].
    renewed: Option<Moment>,
    heard: Heard,
    /// The same, whatever became of the session: what the guest must be demoted by counts from here.
    proved: Moment,
    /// The ACL forbids making what everything stands on. That does not matter if it is there.
    base_denied: bool,
    /// Why the session is to be given up, as soon as no guest leads by it.
    pub giving_up: Option<String>,
    pending: BTreeMap<Tag, Pending>,
    watches: BTreeMap<Tag, Owner>,
    next_tag: u64,
    attempts: u32,
    presence: Presence,
    heartbeat_at: Moment,
    heartbeat_pending: bool,
    /// The last thing that went wrong, for the status.
    pub trouble: Option<String>,
}

/// What the rest of the core must know of an event of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Connected and known to be alone under the node's id, for the first time or again.
    Connected,
    /// All that this session held is gone.
    Lost { permanent: Option<String> },
    /// Closed as it was told to.
    Closed,
    /// An answer for a group.
    Answered(GroupName, Purpose, Tag, Result<Reply, RequestError>),
    /// A watch of a group.
    Fired(GroupName, Purpose, Tag),
    /// A lasting watch of a group tells of a child.
    ChildChanged(GroupName, Tag, String),
}

impl Link {
    pub fn new(timing: Timing, tick_time: Duration) -> Self {
        Self {
            generation: Generation(0),
            state: State::Closed { retry_at: Moment::default() },
            timing,
            safeguards: Safeguards::default(),
            half_tick: tick_time / 2,
            renewed: None,
            heard: Heard::default(),
            proved: Moment::default(),
            base_denied: false,
            giving_up: None,
            pending: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_tag: 0,
            attempts: 0,
            presence: Presence::Unknown,
            heartbeat_at: Moment::default(),
            heartbeat_pending: false,
            trouble: None,
        }
    }

    /// The session, while it is open.
    pub fn session(&self) -> Option<SessionId> {
        match self.state {
            State::Open { session, .. } => Some(session),
            _ => None,
        }
    }

    pub fn connected(&self) -> bool {
        matches!(self.state, State::Open { connected: true, .. })
    }

    /// Connected, and the node's id is ours alone.
    pub fn ready(&self) -> bool {
        self.connected() && self.presence == Presence::Held
    }

    /// The end of the lease.
    pub fn lease(&self) -> Option<Moment> {
        if !self.safeguards.hold(Safeguard::Lease) {
            return self.renewed.map(|sent| sent + Duration::MAX);
        }
        self.renewed.map(|sent| sent + self.timing.lease)
    }

    /// From when on a claim that is sent is worth it: one that is proved gives a lease of `T`/4 at least. It may lie behind; there is
    /// none while nothing is certain, until something is answered.
    pub fn claim_from(&self, now: Moment) -> Option<Moment> {
        let (lease, least) = (self.timing.lease, self.timing.timeout / 4);
        let long = |heard: Moment, sent: Moment| heard + self.half_tick + lease >= sent + least;
        if !self.safeguards.hold(Safeguard::Told) || long(self.heard.certain, now) {
            return Some(now);
        }
        let told = self.heard.answered.iter().map(|(sent, answered)| (*sent, (*answered + self.half_tick).max(now)));
        told.filter(|(sent, from)| long(*sent, *from)).map(|(_, from)| from).min()
    }

    /// When a guest that led must have been demoted or stopped.
    pub fn demote_by(&self) -> Moment {
        self.proved + self.timing.demoted
    }

    pub fn watch_count(&self) -> usize {
        self.watches.len()
    }

    /// When the session wants to be tended next.
    pub fn deadline(&self, leading: bool) -> Option<Moment> {
        let mut at = match (&self.state, self.presence) {
            (State::Closed { retry_at }, _) => Some(*retry_at),
            (State::Open { connected: true, .. }, Presence::Taken { again_at }) => Some(again_at),
            _ => None,
        };
        let mut sooner = |moment: Moment| at = Some(at.map_or(moment, |at| at.min(moment)));
        if self.connected() {
            if self.giving_up.is_none()
                && let Some(oldest) = self.pending.values().next()
            {
                sooner(oldest.sent + self.timing.timeout * 3);
            }
            if self.ready() {
                sooner(self.heard.asked + self.timing.timeout / 3);
            }
            if leading && self.ready() && !self.heartbeat_pending {
                sooner(self.heartbeat_at);
            }
        }
        at
    }

    fn reset(&mut self) {
        self.pending.clear();
        self.watches.clear();
        self.renewed = None;
        self.giving_up = None;
        self.presence = Presence::Unknown;
        self.heartbeat_pending = false;
    }
}

impl Cx<'_> {
    pub fn notice(&mut self, notice: Notice) {
        self.out.push(Command::Notice(notice));
    }

    fn say(&mut self, level: Level, what: &'static str, text: String) {
        self.notice(Notice { level, group: None, epoch: None, release: None, what, text });
    }

    /// Sends a request. Only while connected: nothing is ever left to a later connection.
    pub fn submit(&mut self, owner: Owner, request: Request) -> Option<Tag> {
        if !self.link.connected() {
            return None;
        }
        self.link.heard.asked = self.now;
        self.link.next_tag += 1;
        let tag = Tag(self.link.next_tag);
        let (writes, watches) = match &request {
            Request::Get { watch, .. } | Request::List { watch, .. } => (false, *watch),
            Request::WatchChildren { .. } => (false, true),
            Request::GetAll { .. } | Request::Sync { .. } => (false, false),
            Request::Create { .. } | Request::Delete { .. } | Request::Set { .. } | Request::Multi(_) => (true, false),
        };
        self.link.pending.insert(tag, Pending { owner, sent: self.now, writes, watches });
        self.out.push(Command::Submit { generation: self.link.generation, tag, request });
        Some(tag)
    }

    /// Lets go of a watch, whether its request was answered or not.
    pub fn forget(&mut self, tag: Tag) {
        let pending = self.link.pending.get_mut(&tag).map(|pending| pending.watches = false);
        if self.link.watches.remove(&tag).is_some() || pending.is_some() {
            self.out.push(Command::Forget { generation: self.link.generation, tag });
        }
    }

    /// Gives the session up as soon as no guest leads by it; whatever was unsure ends with it.
    pub fn abandon(&mut self, why: String) {
        if matches!(self.link.state, State::Open { .. }) && self.link.giving_up.is_none() {
            self.say(Level::Warn, "session-abandoned", why.clone());
            self.link.giving_up = Some(why);
        }
    }

    /// Closes the session.
    pub fn close_session(&mut self) {
        if matches!(self.link.state, State::Open { .. } | State::Opening) {
            self.link.state = State::Closing;
            self.out.push(Command::CloseSession { generation: self.link.generation });
        }
    }

    /// Takes an event of the session.
    pub fn session_event(&mut self, generation: Generation, event: SessionEvent) -> Change {
        if generation != self.link.generation {
            return Change::None;
        }
        match event {
            SessionEvent::Waiting { reason } => {
                self.say(Level::Warn, "waiting", format!("waiting for the coordinator: {reason}"));
                self.link.trouble = Some(reason);
                Change::None
            }
            SessionEvent::Opened { session, timeout } => self.opened(session, timeout),
            SessionEvent::Disconnected => {
                if let State::Open { connected, .. } = &mut self.link.state
                    && *connected
                {
                    *connected = false;
                    self.link.trouble = Some("disconnected".into());
                    self.say(Level::Warn, "disconnected", "the connection to the coordinator is gone".into());
                }
                Change::None
            }
            SessionEvent::Reconnected { session } => self.reconnected(session),
            SessionEvent::Ended { reason, permanent } => self.ended(reason, permanent),
            SessionEvent::Answered { tag, result } => self.answered(tag, result),
            SessionEvent::Fired { tag } => match self.link.watches.remove(&tag) {
                Some(Owner::Group(group, purpose)) => Change::Fired(group, purpose, tag),
                Some(Owner::Node(_)) | None => Change::None,
            },
            SessionEvent::ChildChanged { tag, name } => match self.link.watches.get(&tag) {
                Some(Owner::Group(group, _)) => Change::ChildChanged(group.clone(), tag, name),
                Some(Owner::Node(_)) | None => Change::None,
            },
        }
    }

    fn opened(&mut self, session: SessionId, timeout: Duration) -> Change {
        if self.link.state != State::Opening {
            return Change::None;
        }
        match Timing::new(timeout, self.node.tick_time) {
            Ok(timing) => self.link.timing = timing,
            Err(too_short) => {
                self.out.push(Command::CloseSession { generation: self.link.generation });
                self.link.state = State::Over;
                return Change::Lost {
                    permanent: Some(format!("the server granted a session that will not do: {too_short}")),
                };
            }
        }
        self.link.state = State::Open { session, connected: true };
        self.link.heard.opened();
        self.link.attempts = 0;
        self.link.trouble = None;
        self.say(Level::Info, "session-opened", format!("session {session} is open, timeout {timeout:?}"));
        self.make_base();
        self.tend();
        Change::None
    }

    fn reconnected(&mut self, session: SessionId) -> Change {
        let State::Open { session: ours, connected } = &mut self.link.state else { return Change::None };
        if *ours != session {
            // Some servers answer a reconnect with a new session and do not say so. Nothing that we hold is ours then.
            self.say(
                Level::Warn,
                "session-replaced",
                format!("the coordinator put session {session} in the place of ours"),
            );
            self.close_session();
            return Change::Lost { permanent: None };
        }
        if *connected {
            return Change::None;
        }
        *connected = true;
        self.link.heard.reconnected();
        self.link.trouble = None;
        if self.link.presence == Presence::Asking {
            self.link.presence = Presence::Unknown;
        }
        self.say(Level::Info, "reconnected", "connected to the coordinator again, in the same session".into());
        self.tend();
        if self.link.ready() { Change::Connected } else { Change::None }
    }

    fn ended(&mut self, reason: String, permanent: bool) -> Change {
        let asked = self.link.state == State::Closing;
        if self.link.state == State::Over {
            return Change::Closed;
        }
        self.link.reset();
        if permanent {
            self.link.state = State::Over;
            return Change::Lost { permanent: Some(reason) };
        }
        self.link.attempts += 1;
        let pause = self.rng.backoff(Duration::from_millis(100), Duration::from_secs(5), self.link.attempts);
        self.link.state = State::Closed { retry_at: self.now + if asked { Duration::ZERO } else { pause } };
        if asked {
            return Change::Closed;
        }
        self.say(Level::Warn, "session-ended", format!("the session has ended: {reason}"));
        self.link.trouble = Some(reason);
        Change::Lost { permanent: None }
    }

    fn answered(&mut self, tag: Tag, result: Result<Reply, RequestError>) -> Change {
        let Some(pending) = self.link.pending.remove(&tag) else { return Change::None };
        let half_tick = self.link.half_tick;
        if pending.writes && result.is_ok() {
            let told = self.link.heard.renews(pending.sent, half_tick);
            let from = if self.link.safeguards.hold(Safeguard::Told) { told } else { pending.sent };
            self.link.renewed = self.link.renewed.max(Some(from));
            self.link.proved = self.link.proved.max(from);
            if let Some(until) = self.link.lease() {
                self.out.push(Command::Extend { until });
            }
        }
        if !matches!(result, Err(RequestError::Unknown(_) | RequestError::SessionEnded)) {
            self.link.heard.answered(pending.sent, self.now, half_tick);
        }
        if pending.watches && result.is_ok() {
            self.link.watches.insert(tag, pending.owner.clone());
        }
        match pending.owner {
            Owner::Group(group, purpose) => Change::Answered(group, purpose, tag, result),
            Owner::Node(purpose) => {
                let was_ready = self.link.ready();
                let denied = self.node_answer(purpose, result);
                match denied {
                    Some(why) => Change::Lost { permanent: Some(why) },
                    None if !was_ready && self.link.ready() => Change::Connected,
                    None => Change::None,
                }
            }
        }
    }

    /// Opens the session when it is due, and keeps the node's own znode and its heartbeat.
    pub fn tend(&mut self) {
        match self.link.state {
            State::Closed { retry_at } if retry_at <= self.now => {
                self.link.generation = Generation(self.link.generation.0 + 1);
                self.link.state = State::Opening;
                self.link.heard.asked = self.now;
                self.out.push(Command::OpenSession {
                    generation: self.link.generation,
                    timeout: self.node.session_timeout,
                });
            }
            State::Open { connected: true, .. } => match self.link.presence {
                Presence::Unknown => self.claim_id(),
                Presence::Taken { again_at } if again_at <= self.now => self.claim_id(),
                Presence::Held if self.link.heard.asked + self.link.timing.timeout / 3 <= self.now => self.audit(),
                _ => {}
            },
            _ => {}
        }
        let slow = self.link.timing.timeout * 3;
        if self.link.connected()
            && self.link.pending.values().next().is_some_and(|oldest| oldest.sent + slow <= self.now)
        {
            self.abandon("a request went unanswered for three session timeouts".into());
        }
    }

    /// Writes a heartbeat if one is due. Called only while this node leads somewhere.
    pub fn beat(&mut self) {
        if self.link.ready() && !self.link.heartbeat_pending && self.link.heartbeat_at <= self.now {
            let path = self.node.node_path();
            let data = self.own_data();
            if self.submit(Owner::Node(NodePurpose::Heartbeat), Request::Set { path, data, version: None }).is_some() {
                self.link.heartbeat_pending = true;
                self.link.heartbeat_at = self.now + self.link.timing.heartbeat;
            }
        }
    }

    /// Looks whether the node's own znode is still there when nothing else was asked for a while. It also keeps what is certain
    /// of the session fresh, so that a claim is followed by a lease at once.
    fn audit(&mut self) {
        let request = Request::Get { path: self.node.node_path(), watch: false };
        self.submit(Owner::Node(NodePurpose::Audit), request);
    }

    fn own_data(&self) -> std::sync::Arc<[u8]> {
        serde_json::json!({ "guid": self.node.guid, "address": self.node.address }).to_string().into_bytes().into()
    }

    fn make_base(&mut self) {
        for path in self.node.base_paths() {
            let request = Request::Create { path, data: Vec::new().into(), mode: CreateMode::Persistent };
            self.submit(Owner::Node(NodePurpose::Base), request);
        }
    }

    fn claim_id(&mut self) {
        let (path, data) = (self.node.node_path(), self.own_data());
        let request = Request::Create { path, data, mode: CreateMode::Ephemeral };
        if self.submit(Owner::Node(NodePurpose::Create), request).is_some() {
            self.link.presence = Presence::Asking;
        }
    }

    fn look(&mut self) {
        let request = Request::Get { path: self.node.node_path(), watch: false };
        if self.submit(Owner::Node(NodePurpose::Look), request).is_some() {
            self.link.presence = Presence::Asking;
        }
    }

    /// Gives a reason if the node can never do its work.
    fn node_answer(&mut self, purpose: NodePurpose, result: Result<Reply, RequestError>) -> Option<String> {
        if purpose == NodePurpose::Base && result == Err(RequestError::NoAuth) {
            // ZooKeeper looks at the ACL before it looks whether the znode exists already.
            self.link.base_denied = true;
            return None;
        }
        let missing = purpose == NodePurpose::Create && result == Err(RequestError::NoNode);
        if result == Err(RequestError::NoAuth) || missing && self.link.base_denied {
            self.link.state = State::Over;
            self.out.push(Command::CloseSession { generation: self.link.generation });
            return Some(format!(
                "the coordinator denies this node's identity access to {} (NoAuth): correct the credentials under \
                 [coordination] auth, or the ACLs of that znode",
                self.node.root
            ));
        }
        match (purpose, result) {
            (NodePurpose::Heartbeat, result) => {
                self.link.heartbeat_pending = false;
                if result == Err(RequestError::NoNode) {
                    self.link.presence = Presence::Unknown;
                    self.tend();
                }
            }
            (NodePurpose::Audit, result) => {
                let lost = match &result {
                    Ok(Reply::Data { stat, .. }) => stat.owner != self.link.session(),
                    result => *result == Err(RequestError::NoNode),
                };
                if lost && self.link.presence == Presence::Held {
                    self.link.presence = Presence::Unknown;
                    self.tend();
                }
            }
            (NodePurpose::Base, Err(error))
                if !matches!(error, RequestError::NodeExists | RequestError::Unknown(_)) =>
            {
                self.link.trouble = Some(format!("cannot make {}: {error}", self.node.root));
            }
            (NodePurpose::Base, _) => {}
            (NodePurpose::Create, Ok(_)) | (NodePurpose::Create, Err(RequestError::NodeExists)) => self.look(),
            (NodePurpose::Create, Err(RequestError::NoNode)) => {
                self.make_base();
                self.link.presence = Presence::Taken { again_at: self.now + Duration::from_millis(500) };
            }
            (NodePurpose::Look, Ok(Reply::Data { data, stat })) => self.found(&data, stat.owner),
            (NodePurpose::Look, Err(RequestError::NoNode)) | (NodePurpose::Evict, _) => self.claim_id(),
            (NodePurpose::Create | NodePurpose::Look, result) => {
                self.link.presence = Presence::Taken { again_at: self.now + Duration::from_millis(500) };
                if let Err(error) = result {
                    self.link.trouble = Some(error.to_string());
                }
            }
        }
        None
    }

    fn found(&mut self, data: &[u8], owner: Option<SessionId>) {
        #[derive(serde::Deserialize)]
        struct Holder {
            guid: String,
            #[serde(default)]
            address: String,
        }
        if owner.is_some() && owner == self.link.session() {
            self.link.presence = Presence::Held;
            self.link.trouble = None;
            return;
        }
        let holder = serde_json::from_slice::<Holder>(data).ok();
        if holder.as_ref().is_some_and(|holder| holder.guid == self.node.guid.as_str()) {
            // Our own previous session, which may live on for long after an outage.
            let request = Request::Delete { path: self.node.node_path(), version: None };
            if self.submit(Owner::Node(NodePurpose::Evict), request).is_some() {
                self.link.presence = Presence::Asking;
            }
            return;
        }
        let address = holder.map_or_else(|| "unknown address".to_owned(), |holder| holder.address);
        let text = format!(
            "another process, at {address}, is node {:?} already: give this one another id, or wait until that one has gone",
            self.node.id.as_str()
        );
        if self.link.trouble.as_ref() != Some(&text) {
            self.say(Level::Error, "duplicate-node-id", text.clone());
            self.link.trouble = Some(text);
        }
        let pause = self.rng.around(self.link.timing.timeout);
        self.link.presence = Presence::Taken { again_at: self.now + pause };
    }
}
