//! The registry: this node's own member, and the view of the others for those who watch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::candidate::{COUNTER_END, counter_warning, parse_counter};
use crate::command::Notice;
use crate::config::{Paths, Safeguard};
use crate::id::{GroupName, NodeId, SessionId, Tag};
use crate::link::{self, Cx, Owner};
use crate::member::{Member, MembershipChange};
use crate::request::{CreateMode, Reply, Request, RequestError, Stat};
use crate::time::Moment;

mod parent;

use parent::Parent;

/// What a request of the registry was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Our member is made.
    Register { round: u64 },
    /// Our member is taken away.
    Deregister { name: String },
    /// Our member is looked at.
    Audit { name: String },
    /// A ghost is taken away.
    Tidy,
    /// The list of the members, with a watch.
    List { round: u64 },
    /// Whoever should have joined, by its name, and then their parent.
    Guess { round: u64, name: String },
    /// Members that were not known.
    Read { round: u64, names: Vec<String> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Own {
    Absent { retry_at: Moment },
    Registering,
    Present(String),
    Leaving(String),
}

/// A member as a znode has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    pub member: Arc<Member>,
    /// The transaction that made it: later ones count.
    made: i64,
    owner: Option<SessionId>,
}

impl Registration {
    pub fn id(&self) -> NodeId {
        self.member.id.clone()
    }
}

#[derive(Debug, Clone, Default)]
struct View {
    /// The watch on the list, while one is held.
    watch: Option<Tag>,
    /// A list is under way.
    listing: bool,
    /// The watch fired, or something was unsure: list again.
    stale: bool,
    retry_at: Moment,
    /// The name that was guessed, until it is read or the list is there.
    guessed: Option<String>,
    /// Names that are being read.
    reading: BTreeSet<String>,
    /// Every znode of the last list that holds a member.
    known: BTreeMap<String, Registration>,
    /// Names whose znodes hold no member; not read again.
    foreign: BTreeSet<String>,
    /// The parent of those names as it was when it had them.
    parent: Option<Parent>,
    /// Whether they are all that it had, once what is being read is there: not so when a list or a read has failed, or may have been
    /// missed.
    whole: bool,
}

impl View {
    /// The names that were read mean nothing any more.
    fn forget_names(&mut self) {
        self.known.clear();
        self.foreign.clear();
        self.parent = None;
        self.whole = false;
    }

    /// The name that the next member will have, if that can be told.
    fn next_name(&self) -> Option<String> {
        let next = self.parent.filter(|_| self.whole)?.counter().map(name_of)?;
        (!self.known.contains_key(&next) && !self.foreign.contains(&next)).then_some(next)
    }

    fn keep(&mut self, name: String, data: &[u8], stat: &Stat) {
        match serde_json::from_slice::<Member>(data) {
            Ok(member) => {
                let (member, made) = (Arc::new(member), stat.czxid);
                self.known.insert(name, Registration { member, made, owner: stat.owner });
            }
            Err(_) => {
                self.foreign.insert(name);
            }
        }
    }
}

/// In the order of their ids, the registration of each that counts: the latest.
pub(crate) type Members = Vec<Registration>;

#[derive(Debug, Clone)]
pub(crate) struct Registry {
    group: GroupName,
    path: String,
    own: Own,
    view: Option<View>,
    round: u64,
    attempts: u32,
    audit_at: Moment,
    warned_counter: bool,
    /// The counter has come to its end, so that another member has the name that the server would give ours.
    name_taken: bool,
    /// The last whole view. `None` until there is one.
    pub members: Option<Arc<Members>>,
}

const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
const PREFIX: &str = "m_";
/// So many members are read with one request.
const AT_ONCE: usize = 256;

impl Registry {
    pub fn new(group: GroupName, paths: &Paths) -> Self {
        Self {
            group,
            path: paths.registry.clone(),
            own: Own::Absent { retry_at: Moment::default() },
            view: None,
            round: 0,
            attempts: 0,
            audit_at: Moment::default(),
            warned_counter: false,
            name_taken: false,
            members: None,
        }
    }

    /// The name of our member, if it has one; `None` while that is not settled.
    pub fn own(&self) -> Option<Option<&str>> {
        match &self.own {
            Own::Absent { .. } => Some(None),
            Own::Present(name) => Some(Some(name)),
            Own::Registering | Own::Leaving(_) => None,
        }
    }

    /// Whether [`Self::drive`] would make our member now.
    pub fn about_to_register(&self, now: Moment, register: Register) -> bool {
        register == Register::Yes && matches!(self.own, Own::Absent { retry_at } if retry_at <= now)
    }

    /// Whether our member stands.
    pub fn registered(&self) -> bool {
        matches!(self.own, Own::Present(_))
    }

    /// The claim took our member away, or found it gone.
    pub fn taken_away(&mut self) {
        self.own = Own::Absent { retry_at: Moment::default() };
    }

    pub fn session_lost(&mut self) {
        self.own = Own::Absent { retry_at: Moment::default() };
        self.view = self.view.take().map(|view| View {
            known: view.known,
            parent: view.parent,
            stale: true,
            ..View::default()
        });
        self.round += 1;
    }

    /// Connected (again): what was under way is unsure.
    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        self.round += 1;
        if self.own == Own::Registering {
            // Its znode may be there all the same. The next one outranks it, and the leader takes such ghosts away.
            self.own = Own::Absent { retry_at: Moment::default() };
        }
        self.audit_at = cx.now;
        if let Some(view) = &mut self.view {
            if let Some(tag) = view.watch.take() {
                cx.forget(tag);
            }
            view.listing = false;
            view.guessed = None;
            view.reading.clear();
            view.stale = true;
            view.whole = false;
        }
    }

    fn ask(&self, cx: &mut Cx<'_>, purpose: Purpose, request: Request) -> Option<Tag> {
        cx.submit(Owner::Group(self.group.clone(), link::Purpose::Registry(purpose)), request)
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// Does what is due. `register`: whether our member shall stand; `watch`: whether this node watches the others.
    pub fn drive(&mut self, cx: &mut Cx<'_>, member: &Member, register: Register, watch: bool) {
        if !watch && let Some(view) = self.view.take() {
            self.round += 1;
            self.members = None;
            if let Some(tag) = view.watch {
                cx.forget(tag);
            }
        }
        if watch && self.view.is_none() {
            self.view = Some(View { stale: true, ..View::default() });
        }
        if !cx.link.ready() {
            return;
        }
        match (&self.own, register) {
            (Own::Absent { retry_at }, Register::Yes) if *retry_at <= cx.now => self.register(cx, member),
            (Own::Present(name), Register::No) => {
                let name = name.clone();
                self.own = Own::Leaving(name.clone());
                let request = Request::Delete { path: self.at(&name), version: None };
                self.ask(cx, Purpose::Deregister { name }, request);
            }
            (Own::Present(name), _) if self.audit_at <= cx.now => {
                let name = name.clone();
                self.audit_at = cx.now + cx.rng.around(cx.node.audit);
                let request = Request::Get { path: self.at(&name), watch: false };
                self.ask(cx, Purpose::Audit { name }, request);
            }
            _ => {}
        }
        if let Some(view) = &mut self.view
            && view.stale
            && !view.listing
            && view.reading.is_empty()
            && view.retry_at <= cx.now
        {
            view.stale = false;
            view.listing = true;
            if let Some(tag) = view.watch.take() {
                cx.forget(tag);
            }
            // Most often somebody has joined, and the counter tells the name: long before a long list is there, this may say all that it
            // would. The member before the parent, for servers read one after the other: what happens in between, the parent counts.
            view.guessed = view.next_name();
            if let Some(name) = view.guessed.clone() {
                let request = Request::GetAll { paths: vec![self.at(&name), self.path.clone()] };
                self.ask(cx, Purpose::Guess { round: self.round, name }, request);
            }
            let request = Request::List { path: self.path.clone(), watch: true };
            self.ask(cx, Purpose::List { round: self.round }, request);
        }
    }

    pub fn deadline(&self, link: &link::Link, register: Register) -> Option<Moment> {
        if !link.ready() {
            return None;
        }
        let own = match (&self.own, register) {
            (Own::Absent { retry_at }, Register::Yes) => Some(*retry_at),
            (Own::Present(_), _) => Some(self.audit_at),
            _ => None,
        };
        let view = self
            .view
            .as_ref()
            .filter(|view| view.stale && !view.listing && view.reading.is_empty())
            .map(|view| view.retry_at);
        own.into_iter().chain(view).min()
    }

    /// Reads members.
    fn ask_for(&self, cx: &mut Cx<'_>, names: Vec<String>) {
        let request = Request::GetAll { paths: names.iter().map(|name| self.at(name)).collect() };
        self.ask(cx, Purpose::Read { round: self.round, names }, request);
    }

    fn register(&mut self, cx: &mut Cx<'_>, member: &Member) {
        let Ok(data) = serde_json::to_vec(member) else { return };
        let mut path = self.at(PREFIX);
        if self.name_taken {
            // Never the same twice, so that a name stands for one member for ever.
            path += &format!("{:016x}_", cx.rng.next());
        }
        let request = Request::Create { path, data: data.into(), mode: CreateMode::EphemeralSequential };
        self.own = Own::Registering;
        self.ask(cx, Purpose::Register { round: self.round }, request);
    }

    fn later(&mut self, cx: &mut Cx<'_>) -> Moment {
        self.attempts += 1;
        cx.now + cx.rng.backoff(RETRY, RETRY_MAX, self.attempts)
    }

    pub fn fired(&mut self, tag: Tag) {
        if let Some(view) = &mut self.view
            && view.watch == Some(tag)
        {
            view.watch = None;
            view.stale = true;
        }
    }

    /// Takes an answer; says whether the group's znodes are missing.
    pub fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: Purpose,
        tag: Tag,
        result: Result<Reply, RequestError>,
    ) -> Outcome {
        if let Err(RequestError::NoAuth) = &result {
            return Outcome::Denied(format!("{} denies this node's identity what it needs (NoAuth)", self.path));
        }
        match purpose {
            Purpose::Tidy => {}
            Purpose::Register { round } => return self.registration(cx, round, result),
            Purpose::Deregister { name } => {
                if self.own == Own::Leaving(name.clone()) {
                    self.own = match result {
                        Ok(_) | Err(RequestError::NoNode) => Own::Absent { retry_at: cx.now },
                        Err(_) => Own::Present(name),
                    };
                }
            }
            Purpose::Audit { name } => {
                let gone = match &result {
                    Ok(Reply::Data { stat, .. }) => stat.owner != cx.link.session(),
                    Err(RequestError::NoNode) => true,
                    _ => false,
                };
                if gone && self.own == Own::Present(name) {
                    self.own = Own::Absent { retry_at: cx.now };
                }
            }
            Purpose::Guess { round, name } if round == self.round => self.guessed(cx, name, result),
            Purpose::Guess { .. } => {}
            Purpose::List { round } if round == self.round => return self.listed(cx, tag, result),
            Purpose::List { .. } => cx.forget(tag),
            Purpose::Read { round, names } if round == self.round => self.read(cx, names, result),
            Purpose::Read { .. } => {}
        }
        Outcome::Nothing
    }

    fn registration(&mut self, cx: &mut Cx<'_>, round: u64, result: Result<Reply, RequestError>) -> Outcome {
        match result {
            Ok(Reply::Created { path }) => {
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                if self.own == Own::Registering && round == self.round {
                    self.attempts = 0;
                    self.audit_at = cx.now + cx.rng.around(cx.node.audit);
                    if !self.warned_counter
                        && let Some(text) = seq_of(&name).and_then(|seq| counter_warning(&self.path, seq))
                    {
                        self.warned_counter = true;
                        cx.notice(Notice::warning(&self.group, "counter-high", text));
                    }
                    self.own = Own::Present(name);
                    return Outcome::Registered;
                }
                self.ask(cx, Purpose::Tidy, Request::Delete { path: self.at(&name), version: None });
            }
            Err(error) if self.own == Own::Registering && round == self.round => {
                match error {
                    RequestError::NodeExists => self.name_taken = true,
                    // What is made anew counts anew.
                    RequestError::NoNode => self.name_taken = false,
                    _ => {}
                }
                let retry_at = self.later(cx);
                self.own = Own::Absent { retry_at };
                if error == RequestError::NoNode {
                    return Outcome::ParentsGone;
                }
            }
            _ => {}
        }
        Outcome::Nothing
    }

    fn listed(&mut self, cx: &mut Cx<'_>, tag: Tag, result: Result<Reply, RequestError>) -> Outcome {
        let retry_at = if result.is_err() { self.later(cx) } else { cx.now };
        let Some(view) = &mut self.view else {
            cx.forget(tag);
            return Outcome::Nothing;
        };
        view.listing = false;
        view.guessed = None;
        let (mut names, stat) = match result {
            Ok(Reply::Children { names, stat }) => (names, stat),
            result => {
                view.whole = false;
                view.stale = true;
                view.retry_at = retry_at;
                if result != Err(RequestError::NoNode) {
                    return Outcome::Nothing;
                }
                view.forget_names();
                return Outcome::ParentsGone;
            }
        };
        self.attempts = 0;
        view.watch = Some(tag);
        let parent = Parent::of(&stat);
        let still = view.whole && view.parent.is_some_and(|then| parent.is_still(then));
        if view.parent.is_some_and(|then| then.czxid != parent.czxid) {
            view.forget_names();
        }
        view.parent = Some(parent);
        view.whole = true;
        if still {
            self.complete(cx);
            return Outcome::Nothing;
        }
        names.retain(|name| seq_of(name).is_some());
        names.sort_unstable();
        let present = |name: &String| names.binary_search(name).is_ok();
        view.known.retain(|name, _| present(name) && !is_reused(name));
        view.foreign.retain(|name| present(name) && !is_reused(name));
        names.retain(|name| !view.known.contains_key(name) && !view.foreign.contains(name));
        view.reading.extend(names.iter().cloned());
        for names in names.chunks(AT_ONCE) {
            self.ask_for(cx, names.to_vec());
        }
        self.complete(cx);
        Outcome::Nothing
    }

    fn read(&mut self, cx: &mut Cx<'_>, names: Vec<String>, result: Result<Reply, RequestError>) {
        let Some(view) = &mut self.view else { return };
        let asked = names.len();
        let wanted: Vec<(usize, String)> =
            names.into_iter().enumerate().filter(|(_, name)| view.reading.remove(name)).collect();
        if wanted.is_empty() {
            return;
        }
        match result {
            Ok(Reply::Found(mut found)) if found.len() == asked => {
                for (at, name) in wanted {
                    // None: it came and went in between.
                    if let Some((data, stat)) = found[at].take() {
                        view.keep(name, &data, &stat);
                    }
                }
            }
            _ => {
                view.whole = false;
                view.stale = true;
                self.attempts += 1;
                view.retry_at = cx.now + cx.rng.backoff(RETRY, RETRY_MAX, self.attempts);
            }
        }
        self.complete(cx);
    }

    /// Takes what was found under the name that was guessed. If nothing has happened to the parent since the last view but that this member
    /// has joined, then that view and this member are what is; in every other case the list says more.
    fn guessed(&mut self, cx: &mut Cx<'_>, name: String, result: Result<Reply, RequestError>) {
        let Some(view) = &mut self.view else { return };
        if view.guessed.take_if(|guessed| *guessed == name).is_none() {
            return;
        }
        let Ok(Reply::Found(found)) = result else { return };
        let Ok([Some((data, stat)), Some((_, parent))]) = <[_; 2]>::try_from(found) else { return };
        let (Some(then), now) = (view.parent, Parent::of(&parent)) else { return };
        if now.czxid != then.czxid {
            return;
        }
        view.keep(name.clone(), &data, &stat);
        if now.is_one_more_than(then) || !cx.link.safeguards.hold(Safeguard::OneJoin) {
            view.parent = Some(now);
            self.joined(cx, &name);
        }
    }

    /// One has joined, and nothing else has happened.
    fn joined(&mut self, cx: &mut Cx<'_>, name: &str) {
        let Some(new) = self.view.as_ref().and_then(|view| view.known.get(name)) else { return };
        // Put where it belongs: sorting all anew would take as long as a list. Whoever stood before, or is a ghost, takes the long way.
        if let Some(members) = &mut self.members
            && new.owner != cx.link.session()
            && let Err(place) = members.binary_search_by(|member| member.member.id.cmp(&new.member.id))
        {
            Arc::make_mut(members).insert(place, new.clone());
        } else {
            self.tell(cx);
        }
    }

    /// When everything is read, there is a new view; and what should not be there is taken away.
    fn complete(&mut self, cx: &mut Cx<'_>) {
        if self.view.as_ref().is_some_and(|view| view.whole && !view.listing && view.reading.is_empty()) {
            self.tell(cx);
        }
    }

    /// What is known is the view.
    fn tell(&mut self, cx: &mut Cx<'_>) {
        let Some(view) = &self.view else { return };
        let mut ghosts = Vec::new();
        let mine = cx.link.session();
        let own = match &self.own {
            Own::Present(name) | Own::Leaving(name) => Some(name.as_str()),
            Own::Absent { .. } => Some(""),
            Own::Registering => None,
        };
        // By id, and of each the latest last: a handful of comparisons a member, and nothing is copied if nothing has changed.
        let mut sorted: Vec<(&String, &Registration)> = view.known.iter().collect();
        // A registration of this session that is not its latest: the reply to it was lost.
        sorted.retain(|(name, registration)| {
            let ghost = registration.owner == mine && own.is_some_and(|own| own != *name);
            if ghost {
                ghosts.push((*name).clone());
            }
            !ghost
        });
        sorted.sort_unstable_by(|(_, one), (_, other)| (&one.member.id, one.made).cmp(&(&other.member.id, other.made)));
        sorted.dedup_by(|later, kept| {
            let same = later.1.member.id == kept.1.member.id;
            if same {
                // Two of one session: the older one is a ghost as well.
                if later.1.owner == kept.1.owner {
                    ghosts.push(kept.0.clone());
                }
                *kept = *later;
            }
            same
        });
        let changed =
            self.members.as_deref().is_none_or(|members| !members.iter().eq(sorted.iter().map(|(_, it)| *it)));
        let members = changed.then(|| sorted.into_iter().map(|(_, registration)| registration.clone()).collect());
        for ghost in ghosts {
            self.ask(cx, Purpose::Tidy, Request::Delete { path: self.at(&ghost), version: None });
        }
        if let Some(members) = members {
            self.members = Some(Arc::new(members));
        }
    }
}

/// What becomes of our member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    /// It shall stand.
    Yes,
    /// It stays as it is.
    Keep,
    /// It shall go.
    No,
}

/// What the group must know of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Nothing,
    Registered,
    ParentsGone,
    Denied(String),
}

/// The name that goes with a counter, as servers make it.
fn name_of(counter: i64) -> String {
    format!("{PREFIX}{counter:010}")
}

fn seq_of(name: &str) -> Option<i64> {
    let rest = name.strip_prefix(PREFIX)?;
    // What stands between is only there to make a name that nobody else has.
    parse_counter(rest.rsplit_once('_').map_or(rest, |(_, counter)| counter))
}

/// Whether servers give the name again when its znode is gone: what was read under it may be of another member.
fn is_reused(name: &str) -> bool {
    let counter = name.strip_prefix(PREFIX).and_then(parse_counter);
    counter.is_some_and(|counter| counter >= COUNTER_END)
}

/// What leads from what an instance was told to what is.
pub(crate) fn difference(told: &Members, now: &Members, version: u64) -> Option<MembershipChange> {
    let mut change = MembershipChange { version, ..MembershipChange::default() };
    let mut told = told.iter().peekable();
    for registration in now {
        // Of many, most are the same, and then nothing of them need be looked at.
        if told.next_if(|before| Arc::ptr_eq(&before.member, &registration.member)).is_some() {
            continue;
        }
        let id = &registration.member.id;
        change.left.extend(std::iter::from_fn(|| told.next_if(|before| before.member.id < *id)).map(Registration::id));
        match told.next_if(|before| before.member.id == *id) {
            None => change.joined.push(registration.member.clone()),
            Some(before) if before.made != registration.made => change.changed.push(registration.member.clone()),
            Some(_) => {}
        }
    }
    change.left.extend(told.map(Registration::id));
    let nothing = change.joined.is_empty() && change.changed.is_empty() && change.left.is_empty();
    (!nothing).then_some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(of: &[(&str, i64)]) -> Members {
        of.iter()
            .map(|(id, made)| {
                let id = NodeId::new(id).unwrap();
                let member = Member { id, address: "h:1".into(), labels: BTreeMap::new() };
                Registration { member: Arc::new(member), made: *made, owner: None }
            })
            .collect()
    }

    #[test]
    fn the_difference_names_who_came_who_changed_and_who_left() {
        let (told, now) =
            (members(&[("a", 1), ("b", 2), ("c", 3), ("e", 4)]), members(&[("b", 2), ("c", 7), ("d", 8)]));
        let change = difference(&told, &now, 4).unwrap();
        let ids = |of: &[Arc<Member>]| of.iter().map(|member| member.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&change.joined), ["d"]);
        assert_eq!(ids(&change.changed), ["c"]);
        assert_eq!(change.left, [NodeId::new("a").unwrap(), NodeId::new("e").unwrap()]);
        assert_eq!(change.version, 4);
        assert_eq!(difference(&now, &now, 5), None);
    }

    #[test]
    fn only_members_are_taken_for_members() {
        assert_eq!(seq_of("m_0000000012"), Some(12));
        assert_eq!(seq_of("m_-000000001"), Some(4_294_967_295));
        assert_eq!(seq_of("m_0123456789abcdef_2147483647"), Some(2_147_483_647));
        assert_eq!(seq_of("n_0000000012"), None);
        assert_eq!(seq_of("m_12"), None);
        assert_eq!(seq_of("m_00000000zz"), None);
        assert_eq!(seq_of("m_0000000012_"), None);
        assert!(is_reused("m_2147483647") && is_reused("m_-2147483648"));
        assert!(!is_reused("m_2147483646") && !is_reused("m_0123456789abcdef_2147483647"));
    }
}
