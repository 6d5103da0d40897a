//! The group's state: reads, fenced writes, and the keys that a guest watches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::command::{Answer, Command};
use crate::config::Paths;
use crate::election::leader_of;
use crate::event::Asker;
use crate::id::{GroupName, InstanceId, RequestId, Tag};
use crate::link::{self, Cx, Owner};
use crate::request::{CreateMode, Op, Reply, Request, RequestError, Stat};
use crate::state::{Entry, Expectation, MAX_KEY, MAX_VALUE, StateError, StateOp, StateReply};
use crate::time::Moment;

/// What a request was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody's question.
    Asked { request: RequestId },
    /// Who leads?
    Leader { request: RequestId },
    /// A key that an instance watches.
    Observe { instance: InstanceId, key: String },
    /// The keys there are, for those watched keys that do not exist.
    ObserveList,
}

#[derive(Debug, Clone)]
struct Question {
    asker: Asker,
    op: StateOp,
    step: Step,
    tries: u32,
}

/// How far a question has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The operation itself.
    Direct,
    /// A put that found no such key.
    Create,
    /// The expectation did not hold; what is there is being read.
    Explain,
}

#[derive(Debug, Clone)]
struct Watched {
    tag: Option<Tag>,
    asking: bool,
    /// The transaction of what was told last; the inner `None` for a key that did not exist.
    told: Option<Option<i64>>,
}

#[derive(Debug, Clone, Default)]
struct Observed {
    keys: BTreeMap<(InstanceId, String), Watched>,
    list: Option<Tag>,
    listing: bool,
    /// Something that is watched has no watch, because the server refused the look that leaves it, or because the znode above all keys is
    /// gone: from here on it is looked at again.
    again_at: Option<Moment>,
}

/// How long after a look that left no watch the next one follows, in the mean.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Store {
    group: GroupName,
    paths: Paths,
    questions: BTreeMap<RequestId, Question>,
    /// Questions that came while there was no connection.
    held: VecDeque<RequestId>,
    observed: Observed,
}

/// What the group must do about an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Nothing,
    /// A write found that this node does not lead any more.
    Superseded,
    /// A watched key has changed.
    Changed(InstanceId, String, Option<Entry>),
}

/// Questions that may wait for a connection.
const HELD_MAX: usize = 1024;
/// Keys that one instance may watch.
const WATCHED_MAX: usize = 64;
/// A put and a delete of the same key may chase each other so often.
const TRIES: u32 = 8;

const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The name of a key's znode.
fn encode(key: &str) -> String {
    let name = utf8_percent_encode(key, PLAIN).to_string();
    // "." and ".." are not names to ZooKeeper.
    if name.bytes().all(|byte| byte == b'.') { name.replace('.', "%2E") } else { name }
}

fn decode(name: &str) -> Option<String> {
    percent_decode_str(name).decode_utf8().ok().map(|key| key.into_owned())
}

fn version(stat: &Stat) -> u32 {
    stat.version.unsigned_abs()
}

fn check(op: &StateOp) -> Result<(), StateError> {
    let key = match op {
        StateOp::Get(key)
        | StateOp::Watch(key)
        | StateOp::Unwatch(key)
        | StateOp::Put { key, .. }
        | StateOp::Delete { key, .. } => key,
        StateOp::List(_) => return Ok(()),
    };
    if key.is_empty() {
        return Err(StateError::BadKey("a key cannot be empty".into()));
    }
    if key.len() > MAX_KEY {
        return Err(StateError::BadKey(format!("{} bytes are more than {MAX_KEY}", key.len())));
    }
    match op {
        StateOp::Put { value, .. } if value.len() > MAX_VALUE => Err(StateError::TooLarge(MAX_VALUE as u64)),
        _ => Ok(()),
    }
}

impl Store {
    pub fn new(group: GroupName, paths: Paths) -> Self {
        Self { group, paths, questions: BTreeMap::new(), held: VecDeque::new(), observed: Observed::default() }
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{}", self.paths.state, encode(key))
    }

    fn ask(&self, cx: &mut Cx<'_>, purpose: Purpose, request: Request) -> Option<Tag> {
        cx.submit(Owner::Group(self.group.clone(), link::Purpose::Store(purpose)), request)
    }

    fn answer(cx: &mut Cx<'_>, request: RequestId, result: Result<StateReply, StateError>) {
        cx.out.push(Command::Answer { request, answer: Answer::State(result) });
    }

    /// Takes a question that the grants allow. `fence` is there while this node leads.
    pub fn put_question(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        asker: Asker,
        op: StateOp,
        fence: Option<[Op; 2]>,
    ) {
        if let Err(error) = check(&op) {
            return Self::answer(cx, request, Err(error));
        }
        match (&op, asker) {
            (StateOp::Watch(key), Asker::Guest(instance)) => {
                let key = key.clone();
                let result = self.watch(cx, instance, key);
                return Self::answer(cx, request, result);
            }
            (StateOp::Unwatch(key), Asker::Guest(instance)) => {
                if let Some(Watched { tag: Some(tag), .. }) = self.observed.keys.remove(&(instance, key.clone())) {
                    cx.forget(tag);
                }
                return Self::answer(cx, request, Ok(StateReply::Done));
            }
            (StateOp::Watch(_) | StateOp::Unwatch(_), _) => {
                let why = "only the instance that hears the callbacks can watch a key".to_owned();
                return Self::answer(cx, request, Err(StateError::NotGranted(why)));
            }
            _ => {}
        }
        if self.questions.len() >= HELD_MAX {
            let why = format!("{HELD_MAX} requests are waiting for the coordinator");
            return Self::answer(cx, request, Err(StateError::Unavailable(why)));
        }
        self.questions.insert(request, Question { asker, op, step: Step::Direct, tries: 0 });
        self.pose(cx, request, fence);
    }

    /// Asks who leads.
    pub fn ask_leader(&mut self, cx: &mut Cx<'_>, request: RequestId) {
        let get = Request::Get { path: self.paths.epoch.clone(), watch: false };
        if self.ask(cx, Purpose::Leader { request }, get).is_none() {
            let why = "there is no connection to the coordinator".to_owned();
            cx.out.push(Command::Answer { request, answer: Answer::Leader(Err(why)) });
        }
    }

    /// Sends what the question needs next.
    fn pose(&mut self, cx: &mut Cx<'_>, request: RequestId, fence: Option<[Op; 2]>) {
        let Some(question) = self.questions.get(&request) else { return };
        if !cx.link.connected() {
            self.held.push_back(request);
            return;
        }
        let (path, write) = match (&question.op, question.step) {
            (StateOp::List(_), _) => {
                let list = Request::List { path: self.paths.state.clone(), watch: false };
                self.ask(cx, Purpose::Asked { request }, list);
                return;
            }
            (StateOp::Put { key, value, expect }, step) => {
                let (path, data) = (self.path(key), value.clone());
                let write = match (step, expect) {
                    (Step::Explain, _) => None,
                    (Step::Create, _) | (Step::Direct, Expectation::Absent) => {
                        Some(Op::Create { path: path.clone(), data })
                    }
                    (Step::Direct, Expectation::Anything) => Some(Op::Set { path: path.clone(), data, version: None }),
                    (Step::Direct, Expectation::Version(wanted)) => {
                        Some(Op::Set { path: path.clone(), data, version: i32::try_from(*wanted).ok() })
                    }
                };
                (path, write)
            }
            (StateOp::Delete { key, expect }, step) => {
                let path = self.path(key);
                let wanted = match expect {
                    Expectation::Version(wanted) => i32::try_from(*wanted).ok(),
                    Expectation::Anything | Expectation::Absent => None,
                };
                let write = step == Step::Direct && *expect != Expectation::Absent;
                (path.clone(), write.then_some(Op::Delete { path, version: wanted }))
            }
            (StateOp::Get(key) | StateOp::Watch(key) | StateOp::Unwatch(key), _) => (self.path(key), None),
        };
        let wire = match (write, fence) {
            (None, _) => Request::Get { path, watch: false },
            (Some(write), Some([own, epoch])) => Request::Multi(vec![own, epoch, write]),
            (Some(_), None) => {
                self.questions.remove(&request);
                return Self::answer(cx, request, Err(StateError::NotLeader));
            }
        };
        self.ask(cx, Purpose::Asked { request }, wire);
    }

    /// Connected (again): what was held goes out, and what is watched is looked at.
    pub fn connected(&mut self, cx: &mut Cx<'_>, fence: Option<[Op; 2]>) {
        for request in std::mem::take(&mut self.held) {
            self.pose(cx, request, fence.clone());
        }
        if let Some(tag) = self.observed.list.take() {
            cx.forget(tag);
        }
        self.observed.listing = false;
        let all: Vec<(InstanceId, String)> = self.observed.keys.keys().cloned().collect();
        for which in all {
            if let Some(watched) = self.observed.keys.get_mut(&which) {
                watched.asking = false;
                if let Some(tag) = watched.tag.take() {
                    cx.forget(tag);
                }
            }
            self.look(cx, which.0, &which.1);
        }
    }

    /// The session is gone, and with it every watch and every answer that was on its way.
    pub fn session_lost(&mut self, cx: &mut Cx<'_>) {
        self.fail(cx, |_| true, || StateError::Unavailable("the session has ended".into()));
        self.observed.list = None;
        self.observed.listing = false;
        for watched in self.observed.keys.values_mut() {
            watched.tag = None;
            watched.asking = false;
        }
    }

    /// Leadership has ended: whoever needs it must not wait for an answer.
    pub fn not_leading(&mut self, cx: &mut Cx<'_>, workers_read: bool) {
        let stays = |question: &Question| {
            matches!(question.asker, Asker::Worker | Asker::Operator)
                || workers_read && matches!(question.op, StateOp::Get(_) | StateOp::List(_))
        };
        self.fail(cx, |question| !stays(question), || StateError::NotLeader);
        if !workers_read {
            self.unobserve(cx);
        }
    }

    fn fail(&mut self, cx: &mut Cx<'_>, which: impl Fn(&Question) -> bool, error: impl Fn() -> StateError) {
        let failed: Vec<RequestId> =
            self.questions.iter().filter(|(_, question)| which(question)).map(|(request, _)| *request).collect();
        for request in failed {
            self.questions.remove(&request);
            self.held.retain(|held| *held != request);
            Self::answer(cx, request, Err(error()));
        }
    }

    /// Nobody watches any more.
    fn unobserve(&mut self, cx: &mut Cx<'_>) {
        self.observe_only(cx, &[]);
    }

    /// Drops what other instances than these watch.
    pub fn observe_only(&mut self, cx: &mut Cx<'_>, instances: &[InstanceId]) {
        self.observed.keys.retain(|(instance, _), watched| {
            let stays = instances.contains(instance);
            if let (false, Some(tag)) = (stays, watched.tag) {
                cx.forget(tag);
            }
            stays
        });
        if self.observed.keys.is_empty()
            && let Some(tag) = self.observed.list.take()
        {
            cx.forget(tag);
        }
    }

    fn watch(&mut self, cx: &mut Cx<'_>, instance: InstanceId, key: String) -> Result<StateReply, StateError> {
        let which = (instance, key);
        if !self.observed.keys.contains_key(&which) {
            if self.observed.keys.keys().filter(|(other, _)| *other == instance).count() >= WATCHED_MAX {
                return Err(StateError::Other(format!("an instance can watch {WATCHED_MAX} keys at most")));
            }
            self.observed.keys.insert(which.clone(), Watched { tag: None, asking: false, told: None });
            self.look(cx, instance, &which.1);
        }
        Ok(StateReply::Done)
    }

    fn look(&mut self, cx: &mut Cx<'_>, instance: InstanceId, key: &str) {
        let path = self.path(key);
        let which = (instance, key.to_owned());
        if self.observed.keys.get(&which).is_some_and(|watched| !watched.asking) {
            let purpose = Purpose::Observe { instance, key: key.to_owned() };
            let asking = self.ask(cx, purpose, Request::Get { path, watch: true }).is_some();
            if let Some(watched) = self.observed.keys.get_mut(&which) {
                watched.asking = asking;
            }
        }
    }

    /// When something must be looked at again.
    pub fn deadline(&self, link: &link::Link) -> Option<Moment> {
        self.observed.again_at.filter(|_| link.connected())
    }

    /// Looks again at what has no watch, when that is due.
    pub fn drive(&mut self, cx: &mut Cx<'_>) {
        if !cx.link.connected() || self.observed.again_at.is_none_or(|at| at > cx.now) {
            return;
        }
        self.observed.again_at = None;
        // One that is absent has no watch of its own: the list has.
        let unseen = self
            .observed
            .keys
            .iter()
            .filter(|(_, watched)| watched.tag.is_none() && !watched.asking && watched.told != Some(None));
        for (instance, key) in unseen.map(|(which, _)| which.clone()).collect::<Vec<_>>() {
            self.look(cx, instance, &key);
        }
        self.list_for_absent(cx);
    }

    /// A look has left no watch. If the connection is gone, the next one looks at everything.
    fn look_again(&mut self, cx: &mut Cx<'_>, error: &RequestError) {
        if !matches!(error, RequestError::Unknown(_) | RequestError::SessionEnded) {
            self.observed.again_at = Some(cx.now + cx.rng.around(LOOK_AGAIN));
        }
    }

    /// A watch of the store has fired.
    pub fn fired(&mut self, cx: &mut Cx<'_>, purpose: &Purpose, tag: Tag) {
        match purpose {
            Purpose::Observe { instance, key } => {
                let watched = self.observed.keys.get_mut(&(*instance, key.clone()));
                if let Some(watched) = watched.filter(|watched| watched.tag == Some(tag)) {
                    watched.tag = None;
                    self.look(cx, *instance, key);
                }
            }
            Purpose::ObserveList if self.observed.list == Some(tag) => {
                self.observed.list = None;
                self.list_for_absent(cx);
            }
            _ => {}
        }
    }

    /// The znode above all keys is made anew. Who watches for keys to come has lost its watch with the old one.
    fn make_parent(&mut self, cx: &mut Cx<'_>) {
        let path = self.paths.state.clone();
        let make = Request::Create { path, data: Vec::new().into(), mode: CreateMode::Persistent };
        cx.submit(Owner::Group(self.group.clone(), link::Purpose::Parent), make);
        self.list_for_absent(cx);
    }

    /// ZooKeeper leaves no watch on what does not exist when it is read: the list of all keys is watched for it.
    fn list_for_absent(&mut self, cx: &mut Cx<'_>) {
        let absent = self.observed.keys.values().any(|watched| watched.told == Some(None));
        if absent && self.observed.list.is_none() && !self.observed.listing {
            let list = Request::List { path: self.paths.state.clone(), watch: true };
            self.observed.listing = self.ask(cx, Purpose::ObserveList, list).is_some();
        }
    }

    /// Takes an answer.
    pub fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: Purpose,
        tag: Tag,
        result: Result<Reply, RequestError>,
        fence: Option<[Op; 2]>,
    ) -> Outcome {
        match purpose {
            Purpose::Leader { request } => {
                let leader = match result {
                    Ok(Reply::Data { data, stat }) => Ok(leader_of(&data, stat.mzxid)),
                    Err(RequestError::NoNode) => Ok(None),
                    Ok(_) => Err("an answer of the wrong kind".to_owned()),
                    Err(error) => Err(error.to_string()),
                };
                cx.out.push(Command::Answer { request, answer: Answer::Leader(leader) });
                Outcome::Nothing
            }
            Purpose::Asked { request } => self.question_answered(cx, request, result, fence),
            Purpose::Observe { instance, key } => self.observed_key(cx, instance, key, tag, result),
            Purpose::ObserveList => {
                self.observed.listing = false;
                if let Err(error) = &result {
                    self.look_again(cx, error);
                } else if let Ok(Reply::Children { names, .. }) = result {
                    self.observed.list = Some(tag);
                    let there: BTreeSet<String> = names.iter().filter_map(|name| decode(name)).collect();
                    let came: Vec<(InstanceId, String)> = self
                        .observed
                        .keys
                        .iter()
                        .filter(|((_, key), watched)| watched.told == Some(None) && there.contains(key))
                        .map(|(which, _)| which.clone())
                        .collect();
                    for (instance, key) in came {
                        self.look(cx, instance, &key);
                    }
                }
                Outcome::Nothing
            }
        }
    }

    fn observed_key(
        &mut self,
        cx: &mut Cx<'_>,
        instance: InstanceId,
        key: String,
        tag: Tag,
        result: Result<Reply, RequestError>,
    ) -> Outcome {
        let Some(watched) = self.observed.keys.get_mut(&(instance, key.clone())) else {
            cx.forget(tag);
            return Outcome::Nothing;
        };
        watched.asking = false;
        let (now, entry) = match result {
            Ok(Reply::Data { data, stat }) => {
                watched.tag = Some(tag);
                (Some(stat.mzxid), Some(Entry { value: data, version: version(&stat) }))
            }
            Err(RequestError::NoNode) => (None, None),
            result => {
                if let Err(error) = &result {
                    self.look_again(cx, error);
                }
                return Outcome::Nothing;
            }
        };
        let changed = watched.told.replace(now) != Some(now);
        if now.is_none() {
            self.list_for_absent(cx);
        }
        if changed { Outcome::Changed(instance, key, entry) } else { Outcome::Nothing }
    }

    fn question_answered(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        result: Result<Reply, RequestError>,
        fence: Option<[Op; 2]>,
    ) -> Outcome {
        let Some(question) = self.questions.get_mut(&request) else { return Outcome::Nothing };
        let is_read =
            !matches!(question.op, StateOp::Put { .. } | StateOp::Delete { .. }) || question.step == Step::Explain;
        question.tries += 1;
        // A read can be asked again; but not for ever, should a connection that breaks its answers stay up.
        if let Err(RequestError::Unknown(_)) = &result
            && is_read
            && question.tries < TRIES
        {
            self.pose(cx, request, fence);
            return Outcome::Nothing;
        }
        let next = next(question, result);
        match next {
            Next::Answer(result) => {
                self.questions.remove(&request);
                let superseded = result == Err(StateError::NotLeader);
                Self::answer(cx, request, result);
                if superseded { Outcome::Superseded } else { Outcome::Nothing }
            }
            Next::Step(step) => {
                question.step = step;
                self.pose(cx, request, fence);
                Outcome::Nothing
            }
            Next::Parent => {
                self.make_parent(cx);
                self.pose(cx, request, fence);
                Outcome::Nothing
            }
        }
    }
}

enum Next {
    Answer(Result<StateReply, StateError>),
    Step(Step),
    /// The same again, once the znode above all keys is back.
    Parent,
}

/// What an answer means for a question.
fn next(question: &Question, result: Result<Reply, RequestError>) -> Next {
    let answer = match (&question.op, question.step, result) {
        (StateOp::List(prefix), _, Ok(Reply::Children { names, .. })) => {
            let mut keys: Vec<String> =
                names.iter().filter_map(|name| decode(name)).filter(|key| key.starts_with(prefix.as_str())).collect();
            keys.sort_unstable();
            Ok(StateReply::Keys(keys))
        }
        (StateOp::List(_), _, Err(RequestError::NoNode)) => Ok(StateReply::Keys(Vec::new())),
        (StateOp::Get(_), _, Ok(Reply::Data { data, stat })) => {
            Ok(StateReply::Entry(Some(Entry { value: data, version: version(&stat) })))
        }
        (StateOp::Get(_), _, Err(RequestError::NoNode)) => Ok(StateReply::Entry(None)),
        (StateOp::Delete { expect: Expectation::Absent, .. }, _, Err(RequestError::NoNode)) => Ok(StateReply::Done),
        (StateOp::Put { .. } | StateOp::Delete { .. }, _, Ok(Reply::Data { stat, .. })) => {
            Err(StateError::Conflict(Some(version(&stat))))
        }
        (StateOp::Put { .. } | StateOp::Delete { .. }, Step::Explain, Err(RequestError::NoNode)) => {
            Err(StateError::Conflict(None))
        }
        (StateOp::Put { .. }, _, Ok(Reply::Multi(stats))) => {
            Ok(StateReply::Version(stats.get(2).copied().flatten().as_ref().map_or(0, version)))
        }
        (StateOp::Delete { .. }, _, Ok(Reply::Multi(_))) => Ok(StateReply::Done),
        (op, step, Err(RequestError::Multi { index: 2, error })) => return refused(question, op, step, *error),
        (_, _, Err(RequestError::Multi { error, .. })) if *error == RequestError::NoAuth => Err(denied()),
        // The checks of our own znode and of the epoch.
        (_, _, Err(RequestError::Multi { .. })) => Err(StateError::NotLeader),
        (_, _, Err(RequestError::Unknown(why))) => Err(StateError::Unavailable(format!(
            "the connection broke, so the write may or may not have happened: {why}"
        ))),
        (_, _, Err(RequestError::SessionEnded)) => Err(StateError::Unavailable("the session has ended".into())),
        (_, _, Err(RequestError::NoAuth)) => Err(denied()),
        (_, _, Err(error)) => Err(StateError::Other(error.to_string())),
        (_, _, Ok(_)) => Err(StateError::Other("an answer of the wrong kind".into())),
    };
    Next::Answer(answer)
}

fn denied() -> StateError {
    StateError::Other("the coordinator denies this node's identity access to the group's state (NoAuth)".into())
}

/// The operation itself was refused, not the checks before it.
fn refused(question: &Question, op: &StateOp, step: Step, error: RequestError) -> Next {
    let many = question.tries >= TRIES;
    match (op, error) {
        (StateOp::Put { expect: Expectation::Anything, .. }, RequestError::NoNode) if step == Step::Direct && !many => {
            Next::Step(Step::Create)
        }
        (StateOp::Put { expect: Expectation::Anything, .. }, RequestError::NodeExists) if !many => {
            Next::Step(Step::Direct)
        }
        (
            StateOp::Put { expect: Expectation::Version(_), .. }
            | StateOp::Delete { expect: Expectation::Version(_), .. },
            RequestError::NoNode,
        ) => Next::Answer(Err(StateError::Conflict(None))),
        (StateOp::Delete { .. }, RequestError::NoNode) => Next::Answer(Ok(StateReply::Done)),
        // A create that finds no parent: somebody has deleted the whole state under a leader that leads on.
        (StateOp::Put { .. }, RequestError::NoNode) if !many => Next::Parent,
        (_, RequestError::BadVersion | RequestError::NodeExists) => Next::Step(Step::Explain),
        (_, RequestError::NoAuth) => Next::Answer(Err(denied())),
        (_, error) => Next::Answer(Err(StateError::Other(error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_way_to_a_name_and_back() {
        for key in ["a", "result/1/02", ".", "..", "...", "a.b", "ünïcode ☃", "%2F", "/", "a b\u{0}c", "zookeeper"]
        {
            let name = encode(key);
            assert!(!name.contains('/') && name != "." && name != "..", "{name}");
            assert!(name.is_ascii(), "{name}");
            assert_eq!(decode(&name).as_deref(), Some(key));
        }
    }

    #[test]
    fn bad_keys_and_values_are_refused_before_anything_is_sent() {
        let put = |key: &str, size: usize| {
            check(&StateOp::Put { key: key.into(), value: vec![0; size].into(), expect: Expectation::Anything })
        };
        assert!(matches!(put("", 1), Err(StateError::BadKey(_))));
        assert!(matches!(put(&"k".repeat(MAX_KEY + 1), 1), Err(StateError::BadKey(_))));
        assert_eq!(put("k", MAX_VALUE + 1), Err(StateError::TooLarge(MAX_VALUE as u64)));
        assert_eq!(put(&"k".repeat(MAX_KEY), MAX_VALUE), Ok(()));
    }
}
