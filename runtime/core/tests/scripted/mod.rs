//! A node and everything around it in one value: a server, guests and an adapter that answer at once.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, Exports, PrepareFailure, Prepared, Returned, Step};
use bellwether_core::command::Command;
use bellwether_core::config::{ElectionFormat, FailurePolicy, GroupConfig, NodeConfig, Probation, StateAccess, Watch};
use bellwether_core::event::{Event, SessionEvent, Source};
use bellwether_core::id::{Generation, GroupName, Guid, NodeId, ReleaseId, SessionId, Tag};
use bellwether_core::node::Node;
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError, Stat};
use bellwether_core::status::{GroupStatus, Role};
use bellwether_core::time::Moment;

/// The one session that there is.
pub const SESSION: SessionId = SessionId(7);

#[derive(Clone)]
struct Znode {
    data: Arc<[u8]>,
    stat: Stat,
}

/// How a guest answers that nothing is wrong with.
pub fn well(callback: &Callback) -> Result<Returned, CallFailure> {
    Ok(match callback {
        Callback::Snapshot => Returned::Snapshot(Arc::default()),
        _ => Returned::Done,
    })
}

fn members_of(group: &str) -> String {
    format!("/bw/{group}/service_registry")
}

/// A node `a` with session timeout 6 s and tickTime 2 s, and its surroundings.
pub struct World {
    pub node: Node,
    pub now: Duration,
    /// What the node has wanted since it began to lead.
    pub log: Vec<Command>,
    /// How a guest answers.
    pub answer_call: fn(&Callback) -> Result<Returned, CallFailure>,
    /// Reads of paths that begin with `deny_in` and contain this are denied; empty for none.
    pub denied: &'static str,
    pub deny_in: &'static str,
    /// Requests that the server refuses for no good reason.
    pub broken: fn(&Request) -> bool,
    /// What happens at the server just before it takes a request.
    pub before: fn(&mut World, &Request),
    /// Requests whose answers are kept back.
    pub slow: fn(&Request) -> bool,
    kept_back: Vec<Event>,
    /// The server's counters of sequential names have come to their end.
    pub counted_out: bool,
    /// Sources of releases that cannot be prepared.
    pub unfit: fn(&Source) -> bool,
    tree: BTreeMap<String, Znode>,
    /// How many children were made below each znode.
    made: BTreeMap<String, u64>,
    zxid: i64,
    generation: Generation,
    pushed: VecDeque<Event>,
    watched: BTreeMap<String, Tag>,
    /// The server knows no lasting watches.
    pub old: bool,
    lasting: BTreeMap<String, Tag>,
    /// What those have seen and not told yet.
    seen: Vec<SessionEvent>,
}

impl World {
    /// A node that leads all of these groups.
    pub fn leading(groups: &[&str]) -> Self {
        Self::with_probation(groups, Probation::default())
    }

    /// The same, with releases that prove themselves in this way.
    pub fn with_probation(groups: &[&str], probation: Probation) -> Self {
        let mut world = Self::made(groups, probation);
        world.event(Event::Tick);
        assert_eq!(world.leaders().len(), groups.len(), "{:?}", world.log);
        world.log.clear();
        world
    }

    /// A node that is about to start.
    pub fn stopped(groups: &[&str]) -> Self {
        Self::made(groups, Probation::default())
    }

    fn made(groups: &[&str], probation: Probation) -> Self {
        let config = NodeConfig {
            id: NodeId::new("a").unwrap(),
            guid: Guid::new(&"0".repeat(32)).unwrap(),
            address: "h:1".into(),
            root: "/bw".into(),
            session_timeout: Duration::from_secs(6),
            tick_time: Duration::from_secs(2),
            audit: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            seed: 1,
        };
        let configs = groups.iter().map(|name| GroupConfig {
            name: GroupName::new(name).unwrap(),
            candidate: true,
            election_format: ElectionFormat::default(),
            election_path: None,
            watch: Watch::Leader,
            labels: BTreeMap::new(),
            tick: None,
            callback: Duration::from_secs(5),
            on_failure: FailurePolicy::default(),
            probation,
            state: StateAccess::Leader,
        });
        Self {
            node: Node::new(config, configs).unwrap(),
            now: Duration::from_secs(1),
            log: Vec::new(),
            answer_call: well,
            denied: "",
            deny_in: "",
            broken: |_| false,
            before: |_, _| {},
            slow: |_| false,
            kept_back: Vec::new(),
            counted_out: false,
            unfit: |_| false,
            tree: BTreeMap::new(),
            made: BTreeMap::new(),
            zxid: 0,
            generation: Generation(0),
            pushed: VecDeque::new(),
            watched: BTreeMap::new(),
            old: false,
            lasting: BTreeMap::new(),
            seen: Vec::new(),
        }
    }

    /// What a znode holds.
    pub fn data(&self, path: &str) -> Option<Vec<u8>> {
        self.tree.get(path).map(|znode| znode.data.to_vec())
    }

    /// Somebody else writes; who watches is told.
    pub fn put(&mut self, path: &str, data: Vec<u8>) {
        self.zxid += 1;
        let owner = path.contains("/running/").then_some(SessionId(8));
        if self.set(path, data.clone().into(), None).is_err() {
            self.insert(path.to_owned(), data.into(), owner).unwrap();
        }
        self.take_all();
    }

    /// As an operator would; nobody is told.
    pub fn delete(&mut self, path: &str) {
        self.zxid += 1;
        self.remove(path).unwrap();
    }

    /// Lets time pass, a step at a time.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(100);
            self.event(Event::Tick);
        }
    }

    pub fn at(&self) -> Moment {
        Moment::from_boot(self.now)
    }

    /// What the node says of a group.
    pub fn status(&self, group: &str) -> GroupStatus {
        let status = self.node.status(self.at());
        status.groups.into_iter().find(|status| status.name.as_str() == group).unwrap()
    }

    /// What the node is in a group, and what it runs.
    pub fn role(&self, group: &str) -> (Role, Option<ReleaseId>) {
        let status = self.status(group);
        (status.role, status.release.map(|(release, _, _)| release))
    }

    pub fn restarts(&self, group: &str) -> u64 {
        self.status(group).callbacks.restarts
    }

    /// Another node registers.
    pub fn add_member(&mut self, group: &str, id: &str) -> String {
        let name = format!("m_{:010}", self.made.get(&members_of(group)).copied().unwrap_or_default());
        self.add_member_as(group, id, &name);
        name
    }

    /// It does under this name.
    pub fn add_member_as(&mut self, group: &str, id: &str, name: &str) {
        self.put_member(group, name, format!("{{\"id\":\"{id}\",\"address\":\"h:1\"}}").into_bytes());
    }

    /// Somebody puts something where members are.
    pub fn put_member(&mut self, group: &str, name: &str, data: Vec<u8>) {
        self.put_member_of(group, name, data, SessionId(8));
    }

    /// A session does.
    pub fn put_member_of(&mut self, group: &str, name: &str, data: Vec<u8>, owner: SessionId) {
        self.zxid += 1;
        self.insert(format!("{}/{name}", members_of(group)), data.into(), Some(owner)).unwrap();
    }

    /// A member goes.
    pub fn remove_member(&mut self, group: &str, name: &str) {
        self.zxid += 1;
        self.remove(&format!("{}/{name}", members_of(group))).unwrap();
    }

    /// An operator deletes the registry, and makes it again.
    pub fn make_registry_anew(&mut self, group: &str) {
        for name in self.members(group).into_iter().map(String::from).collect::<Vec<_>>() {
            self.remove_member(group, &name);
        }
        self.remove(&members_of(group)).unwrap();
        self.zxid += 1;
        self.insert(members_of(group), Arc::from([]), None).unwrap();
    }

    /// Who watches the members is told what has changed.
    pub fn members_changed(&mut self, group: &str) {
        match self.watched.remove(&members_of(group)) {
            Some(tag) => self.session(SessionEvent::Fired { tag }),
            None => self.tell_seen(),
        }
    }

    fn tell_seen(&mut self) {
        let seen = std::mem::take(&mut self.seen).into_iter();
        self.pushed.extend(seen.map(|event| Event::Session { generation: self.generation, event }));
        self.take_all();
    }

    /// Another node joins, under this name.
    pub fn add_candidate(&mut self, group: &str, name: &str) {
        self.zxid += 1;
        self.insert(format!("/bw/{group}/election/{name}"), Arc::from([]), Some(SessionId(8))).unwrap();
    }

    /// The candidate goes whose name begins so.
    pub fn remove_candidate(&mut self, group: &str, name: &str) {
        let prefix = format!("/bw/{group}/election/{name}");
        let path = self.tree.keys().find(|path| path.starts_with(&prefix)).unwrap().clone();
        self.remove(&path).unwrap();
        if let Some(tag) = self.watched.remove(&path) {
            self.session(SessionEvent::Fired { tag });
        }
    }

    /// It goes, and comes back under the same name before anybody looks.
    pub fn replace_candidate(&mut self, group: &str, name: &str) {
        let path = format!("/bw/{group}/election/{name}");
        self.remove(&path).unwrap();
        self.add_candidate(group, name);
        if let Some(tag) = self.watched.remove(&path) {
            self.session(SessionEvent::Fired { tag });
        }
    }

    /// The names of a group's members.
    pub fn members(&self, group: &str) -> Vec<&str> {
        let prefix = format!("{}/", members_of(group));
        self.tree.keys().filter_map(|path| path.strip_prefix(&prefix)).collect()
    }

    /// The groups that the node leads.
    pub fn leaders(&self) -> Vec<String> {
        let groups = self.node.status(self.at()).groups;
        groups.iter().filter(|group| group.role == Role::Leader).map(|group| group.name.to_string()).collect()
    }

    /// The candidates of a group, all of them this node's.
    pub fn candidates(&self, group: &str) -> usize {
        let prefix = format!("/bw/{group}/election/");
        self.tree.keys().filter(|path| path.starts_with(&prefix)).count()
    }

    /// As an operator would.
    pub fn delete_candidates(&mut self, group: &str) {
        let prefix = format!("/bw/{group}/election/");
        let gone: Vec<String> = self.tree.keys().filter(|path| path.starts_with(&prefix)).cloned().collect();
        for path in gone {
            self.remove(&path);
            if let Some(tag) = self.watched.remove(&path) {
                self.session(SessionEvent::Fired { tag });
            }
        }
    }

    /// As an operator would: the znode above all keys of the state, which has no keys.
    pub fn delete_state(&mut self, group: &str) {
        self.remove(&format!("/bw/{group}/state")).unwrap();
    }

    pub fn session(&mut self, event: SessionEvent) {
        if event == SessionEvent::Disconnected {
            self.lasting.clear();
            self.seen.clear();
        }
        self.event(Event::Session { generation: self.generation, event });
    }

    /// Takes an event and all that follows from it.
    pub fn event(&mut self, event: Event) {
        self.pushed.push_back(event);
        self.take_all();
    }

    /// The answers come that were kept back.
    pub fn let_go(&mut self) {
        self.slow = |_| false;
        self.pushed.extend(std::mem::take(&mut self.kept_back));
        self.take_all();
    }

    fn take_all(&mut self) {
        while let Some(event) = self.pushed.pop_front() {
            self.now += Duration::from_micros(1);
            for command in self.node.handle(self.at(), event) {
                self.log.push(command.clone());
                self.execute(command);
            }
        }
    }

    fn execute(&mut self, command: Command) {
        let next = match command {
            Command::OpenSession { generation, timeout } => {
                self.generation = generation;
                Event::Session { generation, event: SessionEvent::Opened { session: SESSION, timeout } }
            }
            Command::Submit { generation, tag, request } => {
                if let Request::Get { path, watch: true } | Request::List { path, watch: true } = &request {
                    self.watched.insert(path.clone(), tag);
                }
                (self.before)(self, &request);
                let slow = (self.slow)(&request);
                if let Request::WatchChildren { path } = &request
                    && !self.old
                {
                    self.lasting.insert(path.clone(), tag);
                }
                let result = self.serve(request);
                // What was seen before is told before the answer.
                let seen = std::mem::take(&mut self.seen).into_iter();
                self.pushed.extend(seen.map(|event| Event::Session { generation, event }));
                let answer = Event::Session { generation, event: SessionEvent::Answered { tag, result } };
                if slow {
                    self.kept_back.push(answer);
                    return;
                }
                answer
            }
            Command::Prepare { group, instance, source } if (self.unfit)(&source) => {
                let result = Err(PrepareFailure { step: Step::Compile, reason: "unfit".into() });
                Event::Prepared { group, instance, result }
            }
            Command::Prepare { group, instance, source } => {
                let exports = Exports { handover: true, observer: true, ..Exports::default() };
                let release = match source {
                    Source::Component(name) => ReleaseId(name),
                    Source::Earlier(release) => release,
                    _ => ReleaseId(format!("r{}", instance.0).into()),
                };
                let prepared = Prepared { instance, release, digest: "d".into(), exports, took: Arc::from([]) };
                Event::Prepared { group, instance, result: Ok(prepared) }
            }
            Command::Call { group, instance, call, callback, .. } => {
                Event::Returned { group, instance, call, result: (self.answer_call)(&callback) }
            }
            Command::Forget { tag, .. } => return self.lasting.retain(|_, watch| *watch != tag),
            _ => return,
        };
        self.pushed.push_back(next);
    }

    fn serve(&mut self, request: Request) -> Result<Reply, RequestError> {
        if (self.broken)(&request) {
            return Err(RequestError::Refused("broken".into()));
        }
        if let Request::Get { path, .. } | Request::List { path, .. } = &request
            && !self.denied.is_empty()
            && path.starts_with(self.deny_in)
            && path.contains(self.denied)
        {
            return Err(RequestError::NoAuth);
        }
        self.zxid += 1;
        match request {
            Request::Create { path, data, mode } => {
                let sequential = mode == CreateMode::EphemeralSequential;
                let counter = if self.counted_out { i64::from(i32::MAX) } else { self.zxid };
                let path = if sequential { format!("{path}{counter:010}") } else { path };
                let owner = (mode != CreateMode::Persistent).then_some(SESSION);
                self.create(path.clone(), data, owner)?;
                Ok(Reply::Created { path })
            }
            Request::Delete { path, .. } => self.remove(&path).map(|_| Reply::Deleted).ok_or(RequestError::NoNode),
            Request::Set { path, data, version } => self.set(&path, data, version).map(Reply::Written),
            Request::Get { path, .. } => {
                let found = self.tree.get(&path).ok_or(RequestError::NoNode)?;
                Ok(Reply::Data { data: found.data.clone(), stat: found.stat })
            }
            Request::GetAll { paths } => {
                let found = paths.iter().map(|path| self.tree.get(path).map(|found| (found.data.clone(), found.stat)));
                Ok(Reply::Found(found.collect()))
            }
            Request::List { path, .. } => {
                let stat = self.tree.get(&path).ok_or(RequestError::NoNode)?.stat;
                let prefix = format!("{path}/");
                let names = self.tree.keys().filter_map(|path| path.strip_prefix(&prefix));
                let names = names.filter(|name| !name.contains('/')).map(String::from).collect();
                Ok(Reply::Children { names, stat })
            }
            Request::WatchChildren { .. } if self.old => Err(RequestError::Refused("unimplemented".into())),
            Request::WatchChildren { .. } => Ok(Reply::Watching),
            Request::Sync { .. } => Ok(Reply::Synced),
            Request::Multi(ops) => {
                let before = self.tree.clone();
                let mut stats = Vec::new();
                for (index, op) in ops.into_iter().enumerate() {
                    match self.operate(op) {
                        Ok(stat) => stats.push(stat),
                        Err(error) => {
                            self.tree = before;
                            return Err(RequestError::Multi { index, error: Box::new(error) });
                        }
                    }
                }
                Ok(Reply::Multi(stats))
            }
        }
    }

    fn operate(&mut self, op: Op) -> Result<Option<Stat>, RequestError> {
        match op {
            Op::Check { path, version } => {
                let found = self.tree.get(&path).ok_or(RequestError::NoNode)?;
                let other = version.is_some_and(|version| version != found.stat.version);
                if other { Err(RequestError::BadVersion) } else { Ok(None) }
            }
            Op::Create { path, data } => self.create(path, data, None).map(|()| None),
            Op::Set { path, data, version } => self.set(&path, data, version).map(Some),
            Op::Delete { path, .. } => self.remove(&path).map(|_| None).ok_or(RequestError::NoNode),
        }
    }

    fn create(&mut self, path: String, data: Arc<[u8]>, owner: Option<SessionId>) -> Result<(), RequestError> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if !parent.is_empty() && !self.tree.contains_key(parent) {
            return Err(RequestError::NoNode);
        }
        self.insert(path, data, owner)
    }

    /// Whether or not there is a parent.
    fn insert(&mut self, path: String, data: Arc<[u8]>, owner: Option<SessionId>) -> Result<(), RequestError> {
        if self.tree.contains_key(&path) {
            return Err(RequestError::NodeExists);
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            *self.made.entry(parent.to_owned()).or_default() += 1;
        }
        self.see(&path);
        let stat = Stat { czxid: self.zxid, mzxid: self.zxid, owner, ..Stat::default() };
        self.tree.insert(path, Znode { data, stat });
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Option<Znode> {
        let gone = self.tree.remove(path)?;
        self.made.remove(path);
        self.see(path);
        Some(gone)
    }

    /// Something has become of a znode.
    fn see(&mut self, path: &str) {
        self.seen.extend(self.lasting.remove(path).map(|tag| SessionEvent::Fired { tag }));
        if let Some((parent, name)) = path.rsplit_once('/')
            && let Some(&tag) = self.lasting.get(parent)
        {
            self.seen.push(SessionEvent::ChildChanged { tag, name: name.to_owned() });
        }
    }

    fn set(&mut self, path: &str, data: Arc<[u8]>, version: Option<i32>) -> Result<Stat, RequestError> {
        let found = self.tree.get_mut(path).ok_or(RequestError::NoNode)?;
        if version.is_some_and(|version| version != found.stat.version) {
            return Err(RequestError::BadVersion);
        }
        if let Some(tag) = self.watched.remove(path) {
            let event = SessionEvent::Fired { tag };
            self.pushed.push_back(Event::Session { generation: self.generation, event });
        }
        found.data = data;
        found.stat.version += 1;
        found.stat.mzxid = self.zxid;
        Ok(found.stat)
    }
}
