//! One connection through the proxy: two readers, which take the frames in, and two writers, which hold them to the rules.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use super::{Flow, Request, Shared, Stage, What};

/// No frame of ZooKeeper's is larger than this.
const MAX_FRAME: usize = 64 << 20;
/// Frames that may wait between the two ends of one direction.
const QUEUE: usize = 4096;
/// How long a reader that does not read may hold a writer up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Connection {
    client: TcpStream,
    server: TcpStream,
    ended: AtomicBool,
    /// The reply that must not arrive, by the request's number, and the rule that says so.
    doomed: Mutex<Option<(i32, u64)>>,
}

impl Connection {
    /// Ends it: with a reset, or as a program does that closes its socket.
    pub(super) fn end(&self, reset: bool) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        for stream in [&self.client, &self.server] {
            if reset {
                // With a linger of zero, closing sends RST instead of FIN; the socket is closed when its threads have let go.
                let _ = set_socket_linger(stream, Some(Duration::ZERO));
            }
            // It may be gone already. Reading alone is shut down before a reset, since that tells the peer nothing.
            let _ = stream.shutdown(if reset { Shutdown::Read } else { Shutdown::Both });
        }
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

pub(super) fn accept(shared: &Arc<Shared>, client: TcpStream) -> io::Result<()> {
    if shared.turns_away() {
        return Ok(set_socket_linger(&client, Some(Duration::ZERO))?);
    }
    let server = TcpStream::connect_timeout(&shared.target, Duration::from_secs(2)).inspect_err(|_| {
        // Nobody there: the client hears that as it would from the server's machine.
        let _ = set_socket_linger(&client, Some(Duration::ZERO));
    })?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    let connection = Arc::new(Connection { client, server, ended: AtomicBool::new(false), doomed: Mutex::new(None) });
    let id = {
        let mut state = shared.lock();
        state.accepted += 1;
        let id = state.id();
        state.connections.insert(id, connection.clone());
        id
    };
    for up in [true, false] {
        let (sender, receiver) = sync_channel(QUEUE);
        let reading = connection.clone();
        std::thread::spawn(move || read(&reading, up, &sender));
        let (writing, shared) = (connection.clone(), shared.clone());
        std::thread::spawn(move || {
            Direction { shared: &shared, connection: &writing, up, first: true, gap: false }.run(&receiver);
            shared.lock().connections.remove(&id);
            // The other direction may be waiting for the link to change.
            shared.changed.notify_all();
        });
    }
    Ok(())
}

/// A frame with the time at which it came; none for the end of the stream.
type Item = (Instant, Option<Vec<u8>>);

/// Reads frames until there are no more.
fn read(connection: &Connection, up: bool, sender: &SyncSender<Item>) {
    let mut stream = if up { &connection.client } else { &connection.server };
    loop {
        let frame = frame(&mut stream).ok();
        let last = frame.is_none();
        if sender.send((Instant::now(), frame)).is_err() || last {
            return;
        }
    }
}

fn frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::other("this is not ZooKeeper's protocol"));
    }
    frame.resize(4 + length, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}

/// One direction of one connection.
struct Direction<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    up: bool,
    /// The first frame opens the session, and has no operation code.
    first: bool,
    /// Whether bytes were swallowed.
    gap: bool,
}

impl Direction<'_> {
    fn run(mut self, items: &Receiver<Item>) {
        let mut stream = if self.up { &self.connection.server } else { &self.connection.client };
        while let Ok((at, item)) = items.recv() {
            if !self.passes(at) {
                if self.connection.ended() {
                    return;
                }
                continue;
            }
            let Some(mut frame) = item else { return self.connection.end(false) };
            let first = std::mem::replace(&mut self.first, false);
            if first && self.up {
                self.reopened(&mut frame);
            } else if !first && self.intercepted(&frame) {
                return self.connection.end(true);
            }
            if !first && self.up {
                self.disguise(&mut frame);
            }
            if stream.write_all(&frame).is_err() {
                return self.connection.end(true);
            }
        }
    }

    /// Waits until an item that came at `at` may pass. It does not if it is swallowed, or if the connection has ended.
    fn passes(&mut self, at: Instant) -> bool {
        let mut state = self.shared.lock();
        loop {
            if self.connection.ended() {
                return false;
            }
            let flow = if self.up { state.link.up } else { state.link.down };
            if flow == Flow::Swallow {
                self.gap = true;
                // Stays here until the flow changes, so that the reset comes when bytes could pass, not with the next ones.
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if self.gap && flow != Flow::Stall {
                drop(state);
                self.connection.end(true);
                return false;
            }
            let left = match flow {
                Flow::Delay(delay) => (at + delay).saturating_duration_since(Instant::now()),
                Flow::Stall => Duration::MAX,
                Flow::Pass | Flow::Swallow => Duration::ZERO,
            };
            if left.is_zero() {
                return true;
            }
            let changed = &self.shared.changed;
            state = if left == Duration::MAX {
                changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// Applies the rules to a frame; true if the connection must end instead of it passing.
    fn intercepted(&self, frame: &[u8]) -> bool {
        if self.up { self.asked(frame) } else { self.answered(frame) }
    }

    /// Makes a request for an old session one for a new session, or one with a wrong password, if that is wanted.
    fn reopened(&self, frame: &mut [u8]) {
        // After the frame's length: version, last transaction, timeout; then the session and its password with a length.
        let Some(session) = frame.get_mut(20..28).filter(|session| session.iter().any(|byte| *byte != 0)) else {
            return;
        };
        let mut state = self.shared.lock();
        let id = <[u8; 8]>::try_from(&*session).map_or(0, i64::from_be_bytes);
        if state.expiring.as_ref().is_some_and(|which| which(id)) {
            if let Some(password) = frame.get_mut(32..48) {
                password.fill(0xff);
            }
            return;
        }
        if std::mem::take(&mut state.forgetting) {
            session.fill(0);
            if let Some(password) = frame.get_mut(32..48) {
                password.fill(0);
            }
            self.shared.changed.notify_all();
        }
    }

    /// Asks for an operation that no server knows in the place of one that this server shall not know.
    fn disguise(&self, frame: &mut [u8]) {
        let Some(op) = frame.get_mut(8..12) else { return };
        let known = <[u8; 4]>::try_from(&*op).map_or(0, i32::from_be_bytes);
        if self.shared.lock().unknown.contains(&known) {
            op.copy_from_slice(&10_000_i32.to_be_bytes());
        }
    }

    fn asked(&self, frame: &[u8]) -> bool {
        let Some(request) = Request::parse(frame) else { return false };
        let mut state = self.shared.lock();
        *state.requests.entry(request.op).or_default() += 1;
        let Some((id, what)) = state.take_rule(&request) else { return false };
        self.shared.changed.notify_all();
        if what == What::LoseReply {
            *self.connection.doomed.lock().unwrap_or_else(PoisonError::into_inner) = Some((request.xid, id));
            return false;
        }
        while state.stages.get(&id) != Some(&Stage::Done) {
            if self.connection.ended() {
                return true;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        false
    }

    fn answered(&self, frame: &[u8]) -> bool {
        let doomed = *self.connection.doomed.lock().unwrap_or_else(PoisonError::into_inner);
        let xid = frame.get(4..8).and_then(|xid| xid.try_into().ok()).map(i32::from_be_bytes);
        match doomed {
            Some((request, id)) if xid == Some(request) => {
                self.shared.lock().stages.insert(id, Stage::Done);
                self.shared.changed.notify_all();
                true
            }
            _ => false,
        }
    }
}
