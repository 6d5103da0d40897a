//! A ZooKeeper service as a pure value: no clock, no I/O, no randomness.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellwether_core::event::SessionEvent;
use bellwether_core::id::{SessionId, Tag};
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError, Stat};
use bellwether_core::time::Moment;

use super::tree::{Transaction, Tree};
use super::watches::{Kind, Watches};
use crate::check::check;

/// The id of the first session; ids only go up.
const FIRST_SESSION: i64 = 0x0100_0000_0000_0001;
/// The transaction id of a fresh service: the counter of ZooKeeper's first epoch.
const FIRST_ZXID: i64 = 1 << 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    timeout: Duration,
    deadline: Moment,
}

/// A model of a ZooKeeper service: what it holds, its sessions and their watches. Deterministic: the same calls give the same
/// answers and leave the same value. A clone is a snapshot, as a follower that lags behind would show it
/// ([`Server::read`]).
///
/// The order that clients rely on is the caller's to keep: after each call, hand on what [`Server::take_told`] gives
/// before the reply, so that a session sees a watch's event before it sees the new data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    tree: Tree,
    watches: Watches,
    sessions: BTreeMap<i64, Session>,
    next_session: i64,
    zxid: i64,
    denied: Vec<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A service that holds nothing but the root znode.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tree: Tree::new(),
            watches: Watches::default(),
            sessions: BTreeMap::new(),
            next_session: FIRST_SESSION,
            zxid: FIRST_ZXID,
            denied: Vec::new(),
        }
    }

    /// Opens a session that ends `timeout` after `now` unless it is touched.
    pub fn open(&mut self, now: Moment, timeout: Duration) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.zxid += 1;
        self.sessions.insert(session.0, Session { timeout, deadline: now + timeout });
        session
    }

    /// Notes that the service heard of a session; false when the session is over.
    pub fn touch(&mut self, session: SessionId, now: Moment) -> bool {
        match self.sessions.get_mut(&session.0) {
            Some(found) => {
                found.deadline = found.deadline.max(now + found.timeout);
                true
            }
            None => false,
        }
    }

    /// Carries out a request of a session. A watch that it leaves is known by `tag`.
    ///
    /// # Errors
    /// As ZooKeeper, and [`RequestError::SessionEnded`] when the session is over. Nothing was done then.
    pub fn apply(&mut self, session: SessionId, tag: Tag, request: Request) -> Result<Reply, RequestError> {
        if !self.sessions.contains_key(&session.0) {
            return Err(RequestError::SessionEnded);
        }
        check(&request, 0)?;
        let watch = match &request {
            Request::Get { path, watch: true } => Some((path.clone(), Kind::Data)),
            Request::List { path, watch: true } => Some((path.clone(), Kind::Children)),
            Request::WatchChildren { path } => Some((path.clone(), Kind::Lasting)),
            _ => None,
        };
        let reply = self.execute(Some(session), request)?;
        if let Some((path, kind)) = watch {
            self.watches.add(session, tag, &path, kind);
        }
        Ok(reply)
    }

    /// Carries out a request as an operator would from outside: of no session here, bound by no [`Server::deny`], without
    /// watches or ephemeral znodes.
    ///
    /// # Errors
    /// As [`Server::apply`].
    pub fn operate(&mut self, request: Request) -> Result<Reply, RequestError> {
        check(&request, 0)?;
        let denied = std::mem::take(&mut self.denied);
        let result = self.execute(None, request);
        self.denied = denied;
        result
    }

    /// Answers a read; leaves no watch. For looking at a clone that may be out of date.
    ///
    /// # Errors
    /// As [`Server::apply`]; a write is refused.
    pub fn read(&self, request: &Request) -> Result<Reply, RequestError> {
        check(request, 0)?;
        match request {
            Request::Get { path, .. } => {
                allow(&self.denied, path)?;
                let node = self.tree.get(path)?;
                Ok(Reply::Data { data: node.data.clone(), stat: node.stat() })
            }
            Request::GetAll { paths } => {
                let found = paths.iter().map(|path| {
                    allow(&self.denied, path)?;
                    match self.tree.get(path) {
                        Ok(node) => Ok(Some((node.data.clone(), node.stat()))),
                        Err(RequestError::NoNode) => Ok(None),
                        Err(error) => Err(error),
                    }
                });
                Ok(Reply::Found(found.collect::<Result<_, _>>()?))
            }
            Request::List { path, .. } => {
                allow(&self.denied, path)?;
                let node = self.tree.get(path)?;
                let names = node.children.iter().map(|name| name.to_string()).collect();
                Ok(Reply::Children { names, stat: node.stat() })
            }
            Request::WatchChildren { .. } => Ok(Reply::Watching),
            Request::Sync { .. } => Ok(Reply::Synced),
            _ => Err(RequestError::Refused("this is a snapshot: it cannot be written to".to_owned())),
        }
    }

    /// What watches have told since this was asked last, in order.
    #[must_use]
    pub fn take_told(&mut self) -> Vec<(SessionId, SessionEvent)> {
        self.watches.take_told()
    }

    /// A session has lost its connection: its lasting watches go.
    pub fn disconnect(&mut self, session: SessionId) {
        self.watches.forget_lasting(session);
    }

    /// Takes a watch away, also one that has fired and was not taken yet.
    pub fn forget(&mut self, session: SessionId, tag: Tag) {
        self.watches.forget(session, tag);
    }

    /// Ends a session: its watches and its ephemeral znodes go. False when it was over already.
    pub fn close(&mut self, session: SessionId) -> bool {
        if self.sessions.remove(&session.0).is_none() {
            return false;
        }
        self.watches.forget_session(session);
        self.zxid += 1;
        let mut transaction = Transaction::new(self.zxid);
        for path in self.tree.owned_by(session) {
            // Ephemeral znodes have no children, so this cannot fail.
            let _ = self.tree.delete(&mut transaction, &path, None);
        }
        self.watches.fire(&transaction.changes);
        true
    }

    /// Ends every session that was not heard of in time, and says which.
    pub fn expire(&mut self, now: Moment) -> Vec<SessionId> {
        let late: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| session.deadline <= now).map(|(id, _)| SessionId(*id)).collect();
        for session in &late {
            self.close(*session);
        }
        late
    }

    /// When the next session ends if none is touched.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Moment> {
        self.sessions.values().map(|session| session.deadline).min()
    }

    /// When a session ends unless it is touched; none when it is over.
    #[must_use]
    pub fn deadline(&self, session: SessionId) -> Option<Moment> {
        self.sessions.get(&session.0).map(|session| session.deadline)
    }

    /// The sessions that live, oldest first.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().map(|id| SessionId(*id)).collect()
    }

    /// How many watches are set.
    #[must_use]
    pub fn watch_count(&self) -> usize {
        self.watches.count()
    }

    /// The id of the last transaction.
    #[must_use]
    pub fn zxid(&self) -> i64 {
        self.zxid
    }

    /// From now on, requests on the znode `prefix` and everything below it are answered with `NoAuth` (`sync` excepted, as in
    /// ZooKeeper).
    pub fn deny(&mut self, prefix: &str) {
        self.denied.push(prefix.trim_end_matches('/').to_owned());
    }

    /// Sets the counter of `path` that names its next sequential child; it goes on from there, and
    /// stays at `i32::MAX` as a real server's does.
    ///
    /// # Errors
    /// [`RequestError::NoNode`].
    pub fn set_counter(&mut self, path: &str, counter: i32) -> Result<(), RequestError> {
        self.tree.set_counter(path, counter)
    }

    /// What a znode holds; none when it does not exist. Bound by no [`Server::deny`].
    #[must_use]
    pub fn data(&self, path: &str) -> Option<(Arc<[u8]>, Stat)> {
        let node = self.tree.get(path).ok()?;
        Some((node.data.clone(), node.stat()))
    }

    /// The names of a znode's children, sorted; none when it does not exist. Bound by no [`Server::deny`].
    #[must_use]
    pub fn children(&self, path: &str) -> Option<Vec<String>> {
        Some(self.tree.get(path).ok()?.children.iter().map(|name| name.to_string()).collect())
    }

    fn execute(&mut self, session: Option<SessionId>, request: Request) -> Result<Reply, RequestError> {
        match request {
            Request::Create { path, data, mode } => {
                allow(&self.denied, &path)?;
                let owner = match mode {
                    CreateMode::Persistent => None,
                    CreateMode::Ephemeral | CreateMode::EphemeralSequential => Some(
                        session
                            .ok_or_else(|| RequestError::Refused("an ephemeral znode needs a session".to_owned()))?,
                    ),
                };
                let sequential = mode == CreateMode::EphemeralSequential;
                let path =
                    self.transact(|tree, transaction| tree.create(transaction, &path, data, owner, sequential))?;
                Ok(Reply::Created { path: path.to_string() })
            }
            Request::Delete { path, version } => {
                allow(&self.denied, &path)?;
                self.transact(|tree, transaction| tree.delete(transaction, &path, version))?;
                Ok(Reply::Deleted)
            }
            Request::Set { path, data, version } => {
                allow(&self.denied, &path)?;
                self.transact(|tree, transaction| tree.set(transaction, &path, data, version)).map(Reply::Written)
            }
            Request::Multi(ops) => self.multi(ops).map(Reply::Multi),
            read @ (Request::Get { .. }
            | Request::GetAll { .. }
            | Request::List { .. }
            | Request::WatchChildren { .. }
            | Request::Sync { .. }) => self.read(&read),
        }
    }

    fn multi(&mut self, ops: Vec<Op>) -> Result<Vec<Option<Stat>>, RequestError> {
        let failed = |index| move |error| RequestError::Multi { index, error: Box::new(error) };
        let denied = self.denied.clone();
        self.transact(|tree, transaction| {
            let mut stats = Vec::with_capacity(ops.len());
            for (index, op) in ops.into_iter().enumerate() {
                let (Op::Check { path, .. } | Op::Create { path, .. } | Op::Set { path, .. } | Op::Delete { path, .. }) = &op;
                allow(&denied, path).map_err(failed(index))?;
                let stat = match op {
                    Op::Check { path, version } => tree.check(&path, version).map(|()| None),
                    Op::Create { path, data } => tree.create(transaction, &path, data, None, false).map(|_| None),
                    Op::Set { path, data, version } => tree.set(transaction, &path, data, version).map(Some),
                    Op::Delete { path, version } => tree.delete(transaction, &path, version).map(|()| None),
                };
                stats.push(stat.map_err(failed(index))?);
            }
            Ok(stats)
        })
    }

    /// Runs a write: all of it, and then the watches, or nothing.
    fn transact<T>(
        &mut self,
        write: impl FnOnce(&mut Tree, &mut Transaction) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let mut transaction = Transaction::new(self.zxid + 1);
        match write(&mut self.tree, &mut transaction) {
            Ok(done) => {
                self.zxid += 1;
                self.watches.fire(&transaction.changes);
                Ok(done)
            }
            Err(error) => {
                self.tree.roll_back(transaction);
                Err(error)
            }
        }
    }
}

fn allow(denied: &[String], path: &str) -> Result<(), RequestError> {
    let below = |prefix: &String| {
        path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if denied.iter().any(below) { Err(RequestError::NoAuth) } else { Ok(()) }
}
