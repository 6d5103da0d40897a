//! The registry: this node's own member, and the view of the others for those who watch.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::candidate::{COUNTER_END, counter_warning, parse_counter};
use crate::command::Notice;
use crate::config::{Paths, Safeguard};
use crate::id::{GroupName, Tag};
use crate::link::{self, Cx, Owner};
use crate::member::Member;
use crate::members::Members;
use crate::request::{CreateMode, Reply, Request, RequestError};
use crate::time::Moment;

mod znodes;

use znodes::Znodes;

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
    /// The lasting watch on the members.
    Watch { round: u64 },
    /// The list of the members, with a watch that fires once where the server has no other.
    List { round: u64, watch: bool },
    /// Members that are not known, or have changed.
    Read { round: u64, names: Vec<String> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Own {
    Absent { retry_at: Moment },
    Registering,
    Present(String),
    Leaving(String),
}

/// What is known of the others. It is what the last list has said, kept up with what the lasting watch has told of since. The watch is set
/// before the list is asked for, so that each change is in the list or is told, or both; and what is told is a name, of which
/// it is looked up what has become of it.
#[derive(Debug, Clone, Default)]
struct View {
    /// The watch, while one is held or asked for.
    watch: Option<Tag>,
    /// The server has no lasting watches, or the session no room for one: each list leaves one that fires once.
    once: bool,
    /// A list is under way.
    listing: bool,
    /// The watch fired, or something was unsure: list again.
    stale: bool,
    retry_at: Moment,
    /// Names that are being read.
    reading: BTreeSet<String>,
    /// Names that the watch has told of and that were not read since.
    changed: BTreeSet<String>,
    znodes: Znodes,
    /// The transaction that made the parent of those: made again, it begins to count from zero, and its children's names mean others.
    parent: Option<i64>,
    /// Whether they are all that there were, once what is being read is there: not so when a list or a read has failed, or may have been
    /// missed.
    whole: bool,
}

impl View {
    /// Something has failed: only another list tells what is.
    fn list_again(&mut self, at: Moment) {
        self.whole = false;
        self.stale = true;
        self.retry_at = at;
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Registry {
    group: GroupName,
    path: String,
    own: Own,
    view: Option<View>,
    /// Tells answers to an abandoned registration from those that count.
    round: u64,
    /// The same for what is asked for the view.
    view_round: u64,
    attempts: u32,
    audit_at: Moment,
    warned_counter: bool,
    /// The counter has come to its end, so that another member has the name that the server would give ours.
    name_taken: bool,
    /// The last whole view. `None` until there is one.
    pub members: Option<Members>,
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
            view_round: 0,
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
            znodes: view.znodes,
            parent: view.parent,
            stale: true,
            ..View::default()
        });
        self.round += 1;
        self.view_round += 1;
    }

    /// Connected (again): what was under way is unsure.
    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        self.round += 1;
        self.view_round += 1;
        if self.own == Own::Registering {
            // Its znode may be there all the same. The next one outranks it, and the leader takes such ghosts away.
            self.own = Own::Absent { retry_at: Moment::default() };
        }
        self.audit_at = cx.now;
        if let Some(view) = &mut self.view
            && cx.link.safeguards.hold(Safeguard::Relist)
        {
            // A lasting watch does not outlive its connection, and another server may have others.
            if let Some(tag) = view.watch.take() {
                cx.forget(tag);
            }
            view.once = false;
            view.listing = false;
            view.changed.append(&mut view.reading);
            view.list_again(cx.now);
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
            self.view_round += 1;
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
        self.look(cx);
    }

    /// Looks at what is not known of the others.
    fn look(&mut self, cx: &mut Cx<'_>) {
        let Some(view) = &mut self.view else { return };
        if view.listing || !view.reading.is_empty() || view.retry_at > cx.now {
            return;
        }
        if view.stale {
            view.stale = false;
            view.listing = true;
            let (once, round) = (view.once, self.view_round);
            if once && let Some(tag) = view.watch.take() {
                cx.forget(tag);
            }
            if !once && view.watch.is_none() {
                let watch = self.ask(cx, Purpose::Watch { round }, Request::WatchChildren { path: self.path.clone() });
                if let Some(view) = &mut self.view {
                    view.watch = watch;
                }
            }
            let list = Request::List { path: self.path.clone(), watch: once };
            self.ask(cx, Purpose::List { round, watch: once }, list);
        } else if !view.changed.is_empty() {
            let names = view.changed.iter().cloned().collect();
            self.read_all(cx, names);
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

    fn read_all(&mut self, cx: &mut Cx<'_>, names: Vec<String>) {
        for names in names.chunks(AT_ONCE) {
            let request = Request::GetAll { paths: names.iter().map(|name| self.at(name)).collect() };
            self.ask(cx, Purpose::Read { round: self.view_round, names: names.to_vec() }, request);
        }
        if let Some(view) = &mut self.view {
            // What is asked for from here on shows what was told so far; of what is told until it is answered, nobody knows.
            for name in &names {
                view.changed.remove(name);
            }
            view.reading.extend(names);
        }
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

    /// The lasting watch tells that something has become of a member.
    pub fn child_changed(&mut self, tag: Tag, name: String) {
        if let Some(view) = &mut self.view
            && view.watch == Some(tag)
            && seq_of(&name).is_some()
            // The list that is due will say whether it is there.
            && !(view.stale && !view.listing && !view.znodes.knows(&name))
        {
            view.changed.insert(name);
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
            Purpose::Tidy => {
                if let (Some(view), true) = (&mut self.view, result.is_err()) {
                    view.znodes.touch_those_of(cx.link.session());
                }
            }
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
            Purpose::Watch { round } if round == self.view_round => self.watched(tag, &result),
            Purpose::List { round, watch } if round == self.view_round => {
                return self.listed(cx, watch.then_some(tag), result);
            }
            Purpose::Watch { .. } | Purpose::List { .. } => cx.forget(tag),
            Purpose::Read { round, names } if round == self.view_round => self.read(cx, names, result),
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

    fn watched(&mut self, tag: Tag, result: &Result<Reply, RequestError>) {
        if let Some(view) = &mut self.view
            && view.watch == Some(tag)
            && result.is_err()
        {
            view.watch = None;
            view.once = true;
            view.stale = true;
        }
    }

    fn listed(&mut self, cx: &mut Cx<'_>, watch: Option<Tag>, result: Result<Reply, RequestError>) -> Outcome {
        let retry_at = if result.is_err() { self.later(cx) } else { cx.now };
        let Some(view) = &mut self.view else {
            watch.into_iter().for_each(|tag| cx.forget(tag));
            return Outcome::Nothing;
        };
        view.listing = false;
        let (mut names, stat) = match result {
            Ok(Reply::Children { names, stat }) => (names, stat),
            result => {
                view.list_again(retry_at);
                if result != Err(RequestError::NoNode) {
                    return Outcome::Nothing;
                }
                view.znodes.retain(|_| false);
                return Outcome::ParentsGone;
            }
        };
        self.attempts = 0;
        view.watch = watch.or(view.watch);
        view.whole = true;
        let anew = view.parent.replace(stat.czxid).is_some_and(|before| before != stat.czxid);
        names.retain(|name| seq_of(name).is_some());
        names.sort_unstable();
        view.znodes.retain(|name| {
            let same = !anew && !is_reused(name) && !view.changed.contains(name);
            same && names.binary_search_by(|listed| listed.as_str().cmp(name)).is_ok()
        });
        view.znodes.touch_those_of(cx.link.session());
        names.retain(|name| !view.znodes.knows(name));
        self.read_all(cx, names);
        self.complete(cx);
        Outcome::Nothing
    }

    fn read(&mut self, cx: &mut Cx<'_>, names: Vec<String>, result: Result<Reply, RequestError>) {
        let Some(view) = &mut self.view else { return };
        match result {
            Ok(Reply::Found(found)) if found.len() == names.len() => {
                for (name, found) in names.into_iter().zip(found) {
                    view.reading.remove(&name);
                    view.znodes.put(name, found.as_ref().map(|(data, stat)| (&**data, stat)));
                }
            }
            _ => {
                for name in names {
                    view.reading.remove(&name);
                    view.changed.insert(name);
                }
                let retry_at = self.later(cx);
                if let Some(view) = &mut self.view {
                    view.list_again(retry_at);
                }
            }
        }
        self.complete(cx);
    }

    /// When everything is read, there is a new view; and what should not be there is taken away.
    fn complete(&mut self, cx: &mut Cx<'_>) {
        let Some(view) = self.view.as_mut().filter(|view| view.whole && !view.listing && view.reading.is_empty())
        else {
            return;
        };
        let own = match &self.own {
            Own::Present(name) | Own::Leaving(name) => Some(name.as_str()),
            Own::Absent { .. } => Some(""),
            Own::Registering => None,
        };
        let (members, ghosts) = view.znodes.settle(cx.link.session(), own);
        self.members = Some(members);
        for ghost in ghosts {
            self.ask(cx, Purpose::Tidy, Request::Delete { path: self.at(&ghost), version: None });
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

#[cfg(test)]
mod tests {
    use super::*;

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
