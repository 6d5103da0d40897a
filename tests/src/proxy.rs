//! A TCP proxy between a ZooKeeper client and its server, for faults that a network namespace cannot stage: it knows the frames of
//! ZooKeeper's protocol, so that it can lose the reply to one certain request, or hold one certain request back.
//!
//! TCP has no gaps: whatever is swallowed dooms its connection, which is reset when bytes could flow again. A cut whose bytes
//! arrive late, as after retransmissions, is [`Flow::Stall`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

mod connection;
#[cfg(test)]
mod tests;

use connection::{Connection, accept};

/// ZooKeeper's operation codes, as far as tests name them.
pub mod op {
    /// `create`
    pub const CREATE: i32 = 1;
    /// `delete`
    pub const DELETE: i32 = 2;
    /// `getData`
    pub const GET_DATA: i32 = 4;
    /// `setData`
    pub const SET_DATA: i32 = 5;
    /// `sync`
    pub const SYNC: i32 = 9;
    /// `ping`
    pub const PING: i32 = 11;
    /// `multi`
    pub const MULTI: i32 = 14;
    /// `create2`, which answers with a stat
    pub const CREATE2: i32 = 15;
    /// `multiRead`, since ZooKeeper 3.6
    pub const MULTI_READ: i32 = 22;
    /// `addWatch`, since ZooKeeper 3.6
    pub const ADD_WATCH: i32 = 106;
    /// `closeSession`
    pub const CLOSE: i32 = -11;
}

/// What becomes of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They wait until the flow changes, then they pass.
    Stall,
    /// They are lost. The connection is reset when the flow changes.
    Swallow,
    /// They pass so much later.
    Delay(Duration),
}

/// Both directions, for all connections, present and future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// From client to server.
    pub up: Flow,
    /// From server to client.
    pub down: Flow,
}

/// A request on its way to the server.
#[derive(Debug)]
pub struct Request<'a> {
    /// What is asked for, see [`op`].
    pub op: i32,
    xid: i32,
    body: &'a [u8],
}

impl Request<'_> {
    fn parse(frame: &[u8]) -> Option<Request<'_>> {
        let xid = i32::from_be_bytes(frame.get(4..8)?.try_into().ok()?);
        let op = i32::from_be_bytes(frame.get(8..12)?.try_into().ok()?);
        Some(Request { op, xid, body: &frame[12..] })
    }

    /// Whether this text stands in it, in a path or in data.
    #[must_use]
    pub fn mentions(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|part| part == text.as_bytes())
    }

    /// Whether it is a create of this kind of znode.
    #[must_use]
    pub fn creates(&self, text: &str) -> bool {
        matches!(self.op, op::CREATE | op::CREATE2) && self.mentions(text)
    }
}

/// Which request a rule is about.
type Which = Box<dyn Fn(&Request<'_>) -> bool + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    LoseReply,
    Hold,
}

struct Rule {
    id: u64,
    what: What,
    which: Which,
}

/// How far a rule has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Armed,
    /// The request came by.
    Seen,
    /// Its reply was lost, or it was let go.
    Done,
}

#[derive(Default)]
struct State {
    link: Link,
    rules: Vec<Rule>,
    stages: BTreeMap<u64, Stage>,
    connections: BTreeMap<u64, Arc<Connection>>,
    next: u64,
    accepted: u64,
    requests: BTreeMap<i32, u64>,
    refusing: bool,
    refused: u64,
    forgetting: bool,
    expiring: Option<Box<dyn Fn(i64) -> bool + Send>>,
    unknown: Vec<i32>,
    over: bool,
}

impl State {
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes the first rule that is about `request`.
    fn take_rule(&mut self, request: &Request<'_>) -> Option<(u64, What)> {
        let at = self.rules.iter().position(|rule| (rule.which)(request))?;
        let rule = self.rules.remove(at);
        self.stages.insert(rule.id, Stage::Seen);
        Some((rule.id, rule.what))
    }
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a new connection is refused; counts it then.
    fn turns_away(&self) -> bool {
        let mut state = self.lock();
        state.refused += u64::from(state.refusing);
        state.refusing
    }
}

/// A request that a rule is about: what has become of it?
pub struct Watched {
    shared: Arc<Shared>,
    id: u64,
}

impl Watched {
    fn wait(&self, patience: Duration, stage: Stage) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            let now = state.stages.get(&self.id).copied().unwrap_or(Stage::Armed);
            if now == stage || now == Stage::Done {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the request has come by.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn seen(&self, patience: Duration) -> Result<()> {
        ensure!(self.wait(patience, Stage::Seen), "the request that was waited for did not come within {patience:?}");
        Ok(())
    }

    /// Waits until the reply was lost, or the request let go.
    ///
    /// # Errors
    /// When it was not in time.
    pub fn done(&self, patience: Duration) -> Result<()> {
        ensure!(self.wait(patience, Stage::Done), "the reply that was to be lost did not come within {patience:?}");
        Ok(())
    }

    /// Lets a request go that was held back, and all that waits behind it.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.rules.retain(|rule| rule.id != self.id);
        state.stages.insert(self.id, Stage::Done);
        self.shared.changed.notify_all();
    }
}

/// A session that is to be replaced: has it been?
pub struct Forgotten(Arc<Shared>);

impl Forgotten {
    /// Waits until it has.
    ///
    /// # Errors
    /// When it has not in time.
    pub fn done(&self, patience: Duration) -> Result<()> {
        let waiting = self.0.changed.wait_timeout_while(self.0.lock(), patience, |state| state.forgetting);
        let state = waiting.unwrap_or_else(PoisonError::into_inner).0;
        ensure!(!state.forgetting, "nobody came back to a session within {patience:?}");
        Ok(())
    }
}

/// The proxy. Dropping it closes all connections.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of this machine, for `target`.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { target, state: Mutex::default(), changed: Condvar::new() });
        let to_listen = shared.clone();
        let listener = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if to_listen.lock().over {
                    return;
                }
                // What goes wrong with one connection ends that one: the client tries again.
                let _ = stream.and_then(|client| accept(&to_listen, client));
            }
        });
        Ok(Self { shared, address, listener: Some(listener) })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says what becomes of the bytes from now on.
    pub fn set(&self, link: Link) {
        self.shared.lock().link = link;
        self.shared.changed.notify_all();
    }

    /// Nothing passes in either direction, and nobody is told.
    pub fn cut(&self) {
        self.set(Link { up: Flow::Stall, down: Flow::Stall });
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.shared.lock().refusing = false;
        self.set(Link::default());
    }

    /// New connections are reset at once (or not any more).
    pub fn refuse(&self, refusing: bool) {
        self.shared.lock().refusing = refusing;
    }

    /// Resets every connection there is.
    pub fn reset(&self) {
        self.end(true);
    }

    /// Closes every connection there is.
    pub fn close(&self) {
        self.end(false);
    }

    fn end(&self, reset: bool) {
        let connections = std::mem::take(&mut self.shared.lock().connections);
        for connection in connections.values() {
            connection.end(reset);
        }
        self.shared.changed.notify_all();
    }

    /// The reply to the next such request is lost, once the server has sent it: the connection is reset instead.
    pub fn lose_reply(&self, which: impl Fn(&Request<'_>) -> bool + Send + 'static) -> Watched {
        self.rule(What::LoseReply, Box::new(which))
    }

    /// The next such request, and all behind it on its connection, waits until it is let go.
    pub fn hold(&self, which: impl Fn(&Request<'_>) -> bool + Send + 'static) -> Watched {
        self.rule(What::Hold, Box::new(which))
    }

    fn rule(&self, what: What, which: Which) -> Watched {
        let mut state = self.shared.lock();
        let id = state.id();
        state.rules.push(Rule { id, what, which });
        state.stages.insert(id, Stage::Armed);
        Watched { shared: self.shared.clone(), id }
    }

    /// The next client that comes back to its session is given a new one instead, as some servers do without a word: the server is
    /// shown a client that never had one.
    pub fn forget_session(&self) -> Forgotten {
        self.shared.lock().forgetting = true;
        Forgotten(self.shared.clone())
    }

    /// Clients that come back to such a session, by its id, are told that it has expired: the server is shown a wrong password, and
    /// answers as it does when it knows the session no more.
    pub fn expire(&self, which: impl Fn(i64) -> bool + Send + 'static) {
        self.shared.lock().expiring = Some(Box::new(which));
    }

    /// From now on the server does not know these operations, as an older one would not: it is asked for one that nobody knows.
    pub fn unknown(&self, operations: &[i32]) {
        self.shared.lock().unknown = operations.to_vec();
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How many connections were turned away so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.lock().refused
    }

    /// How many requests of this kind have passed.
    #[must_use]
    pub fn requests(&self, op: i32) -> u64 {
        self.shared.lock().requests.get(&op).copied().unwrap_or(0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.close();
        // Wakes the listener, which then ends.
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            // Its panic would have been printed already.
            let _ = listener.join();
        }
    }
}
