//! The coordinator: one truth, and for each node a follower that may lag behind it or be cut off from it.

use std::collections::BTreeSet;
use std::time::Duration;

use bellwether_coordination::memory::Server;
use bellwether_core::event::SessionEvent;
use bellwether_core::id::{Epoch, Generation, SessionId, Tag};
use bellwether_core::request::{Op, Reply, Request, RequestError};
use bellwether_core::time::Moment;

use crate::history::Write;
use crate::node::{ROOT, group_name};
use crate::wire::Parcel;
use crate::world::World;

/// The whole ensemble.
#[derive(Debug, Clone, Default)]
pub struct Ensemble {
    /// What is committed.
    pub server: Server,
    /// Whether there is a quorum. Without one every server lets go of its clients, and no session ends.
    pub quorum: bool,
}

/// The server that a node is connected to, where it differs from the truth.
#[derive(Debug, Clone, Default)]
pub struct Follower {
    /// What it still answers reads from.
    view: Option<Box<Server>>,
    /// It has lost its leader: it answers reads and pings, and nothing that it is told reaches anyone.
    cut: bool,
    /// A request of this session waits for the leader, and the session's reads wait behind it.
    blocked: bool,
    /// What watches have told in truth, but not here yet.
    held: Vec<SessionEvent>,
    /// It has heard of the session since it told its leader last.
    touched: bool,
}

impl Follower {
    /// Another one, which is up to date.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.view.is_some()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    pub(crate) fn answers_pings(&self) -> bool {
        !self.blocked
    }

    /// Keeps a watch's event until it has caught up; false if it has.
    pub(crate) fn hold(&mut self, event: &SessionEvent) -> bool {
        if self.view.is_some() {
            self.held.push(event.clone());
        }
        self.view.is_some()
    }

    /// The children of a znode that are not as they are in truth; none if it is another one there.
    fn changed_below(&self, path: &str, truth: &Server) -> Option<BTreeSet<String>> {
        let Some(view) = &self.view else { return Some(BTreeSet::new()) };
        let made = |server: &Server| server.data(path).map(|(_, stat)| stat.czxid);
        if made(view) != made(truth) {
            return None;
        }
        let names = [&**view, truth].into_iter().filter_map(|server| server.children(path)).flatten();
        let differs = |name: &String| {
            let child = format!("{path}/{name}");
            view.data(&child) != truth.data(&child)
        };
        Some(names.filter(differs).collect())
    }

    pub(crate) fn forget(&mut self, tag: Tag) {
        self.held.retain(|held| held.watch() != Some(tag));
    }
}

/// A state write that is being tried: its group, and the epoch of the guest that asked for it.
pub(crate) type Noted = Option<(usize, Epoch)>;

impl World {
    /// A node's server falls behind, for some time; or loses its leader, until it notices.
    pub(crate) fn fall_behind(&mut self, index: usize, cut: bool) {
        let node = &self.nodes[index];
        let connected = node.client.as_ref().filter(|client| client.connected && !client.doomed);
        let Some((generation, connection)) = connected.map(|client| (client.generation, client.connection)) else {
            return;
        };
        let blocks = self.rng.bool();
        let view = Box::new(self.ensemble.server.clone());
        let follower = &mut self.nodes[index].follower;
        if follower.view.is_none() {
            follower.view = Some(view);
        }
        follower.cut |= cut;
        if cut {
            // Whether reads wait behind a write of the same session depends on the server.
            follower.blocked = false;
            follower.touched = false;
            let notices = Duration::from_millis(self.rng.u64(500..10_000));
            self.nodes[index].blocks = blocks;
            self.lose_connection(index, notices);
        } else {
            let lag = Duration::from_millis(self.rng.u64(10..3000));
            self.post(lag, index, Parcel::CatchUp(generation, connection));
        }
    }

    /// What a server that is behind answers; none if it passes the request on to its leader, and has caught up for that.
    pub(crate) fn follow(
        &mut self,
        index: usize,
        session: SessionId,
        tag: Tag,
        request: &Request,
    ) -> Option<Result<Reply, RequestError>> {
        let cut = self.nodes[index].follower.cut;
        let reads = matches!(
            request,
            Request::Get { .. } | Request::GetAll { .. } | Request::List { .. } | Request::WatchChildren { .. }
        );
        if !reads {
            if cut {
                self.nodes[index].follower.blocked = self.nodes[index].blocks;
            } else {
                self.catch_up(index);
            }
            return None;
        }
        if self.nodes[index].follower.blocked {
            return None;
        }
        if !cut {
            self.heard_of(index, session);
        }
        let then = self.nodes[index].follower.view.as_ref()?.read(request);
        let watches = matches!(request, Request::Get { watch: true, .. } | Request::List { watch: true, .. });
        if watches && then.is_ok() {
            // The watch is set on the old state: what has changed since is found when the server catches up.
            let now = self.ensemble.server.apply(session, tag, request.clone());
            if then != now {
                self.ensemble.server.forget(session, tag);
                self.owe(index, tag);
            }
        }
        if let Request::WatchChildren { path } = request {
            // The same; made anew, it tells of nothing more.
            match self.nodes[index].follower.changed_below(path, &self.ensemble.server) {
                Some(names) => {
                    let told = names.into_iter().map(|name| SessionEvent::ChildChanged { tag, name });
                    self.nodes[index].follower.held.extend(told);
                    drop(self.ensemble.server.apply(session, tag, request.clone()));
                }
                None => self.owe(index, tag),
            }
        }
        Some(then)
    }

    /// A watch fires when the server has caught up.
    fn owe(&mut self, index: usize, tag: Tag) {
        let node = &mut self.nodes[index];
        node.follower.held.push(SessionEvent::Fired { tag });
        if let Some(client) = &mut node.client {
            client.fired.insert(tag);
        }
    }

    /// A server that lagged behind does not any more.
    pub(crate) fn catch_up(&mut self, index: usize) {
        let follower = &mut self.nodes[index].follower;
        if follower.cut || follower.view.take().is_none() {
            return;
        }
        for event in std::mem::take(&mut follower.held) {
            self.down(index, event);
        }
    }

    /// A server has heard of a session; false if it knows that it has ended.
    pub(crate) fn heard_of(&mut self, index: usize, session: SessionId) -> bool {
        let follower = &mut self.nodes[index].follower;
        if follower.cut {
            return true;
        }
        if self.profile.reports {
            follower.touched = true;
            return self.ensemble.server.deadline(session).is_some();
        }
        self.ensemble.server.touch(session, self.now)
    }

    /// A follower tells its leader of which sessions it has heard.
    pub(crate) fn report(&mut self, index: usize, generation: Generation, connection: u64) {
        let node = &mut self.nodes[index];
        let Some(client) = node.client.as_ref().filter(|c| c.generation == generation && c.connection == connection)
        else {
            return;
        };
        if let Some(session) = client.session
            && self.ensemble.quorum
            && !node.follower.cut
            && std::mem::take(&mut node.follower.touched)
        {
            self.ensemble.server.touch(session, self.now);
        }
        self.post(self.options.tick_time / 2, index, Parcel::Report(generation, connection));
    }

    /// When the next session ends.
    pub(crate) fn next_expiry(&self) -> Option<Moment> {
        let due = self.ensemble.server.next_expiry().filter(|_| self.ensemble.quorum)?;
        if !self.profile.rounded {
            return Some(due);
        }
        let (tick, due) = (self.options.tick_time.as_nanos().max(1), due.since_boot().as_nanos());
        let rounded = u64::try_from(due.div_ceil(tick) * tick).unwrap_or(u64::MAX);
        Some(Moment::from_boot(Duration::from_nanos(rounded)))
    }

    /// Sessions that were not heard of in time end.
    pub(crate) fn expire(&mut self) {
        let ended = self.ensemble.server.expire(self.now);
        self.say(format_args!("server: sessions {ended:?} have expired"));
        self.fire();
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let held = node.client.as_ref().and_then(|client| client.session);
            // A follower that is cut off does not know.
            if held.is_some_and(|session| ended.contains(&session)) && !node.follower.cut {
                self.doom(index);
            }
        }
    }

    /// The ensemble loses its quorum, or has one again: every session that it knew is then given a fresh timeout.
    pub(crate) fn set_quorum(&mut self, quorum: bool) {
        if !self.ensemble.quorum && quorum {
            for session in self.ensemble.server.sessions() {
                self.ensemble.server.touch(session, self.now);
            }
        }
        self.ensemble.quorum = quorum;
        if !quorum {
            for index in 0..self.nodes.len() {
                // Servers let go of their clients at once, or when the next request comes.
                if self.rng.bool() {
                    self.doom(index);
                }
            }
        }
    }

    /// A request is about to be carried out: is it a write to a group's state, and whose?
    pub(crate) fn note(&mut self, request: &Request) -> Noted {
        let Request::Multi(operations) = request else { return None };
        (0..self.profile.groups).find_map(|group| {
            let state = format!("{ROOT}/{}/state/", group_name(group));
            let writer = operations.iter().find_map(|op| match op {
                Op::Set { path, data, .. } | Op::Create { path, data } if path.starts_with(&state) => {
                    std::str::from_utf8(data).ok()?.parse().ok()
                }
                _ => None,
            })?;
            Some((group, Epoch(writer)))
        })
    }

    /// It was carried out, or refused.
    pub(crate) fn noted(&mut self, noted: Noted, result: &Result<Reply, RequestError>) {
        let Some((group, writer)) = noted else { return };
        match result {
            Ok(_) => {
                let epoch = format!("{ROOT}/{}/epoch", group_name(group));
                let held = self.ensemble.server.data(&epoch).map_or(0, |(_, stat)| stat.mzxid.unsigned_abs());
                self.history.writes += 1;
                self.history.write = Some(Write { writer, held: Epoch(held) });
            }
            Err(RequestError::Multi { index: 0 | 1, .. }) => self.history.fenced += 1,
            Err(_) => {}
        }
    }
}
