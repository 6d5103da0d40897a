//! A TCP relay that has bytes of one direction arrive late, whatever they are: what a follower hears of its leader, for one.
//!
//! ([`crate::proxy`] knows the frames that clients exchange with servers; what servers exchange with each other has others.)

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Chunks that may be under way in one direction.
const UNDER_WAY: usize = 4096;
/// How long the target may take to accept.
const PATIENCE: Duration = Duration::from_secs(2);

struct Shared {
    target: SocketAddr,
    late_by_ms: AtomicU64,
    over: AtomicBool,
    accepted: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

/// The relay. Dropping it ends its connections.
pub struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens on a free port of `host`, for `target`.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub fn start(host: IpAddr, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((host, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            late_by_ms: AtomicU64::new(0),
            over: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            streams: Mutex::default(),
        });
        let to_listen = shared.clone();
        let listener = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if to_listen.over.load(Ordering::Acquire) {
                    return;
                }
                // What goes wrong with one connection ends that one: whoever made it tries again.
                let _ = stream.and_then(|stream| to_listen.accept(stream));
            }
        });
        Ok(Self { shared, address, listener: Some(listener) })
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the target says arrives so much later from now on.
    pub fn delay(&self, late_by: Duration) {
        self.shared.late_by_ms.store(late_by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Release);
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, client: TcpStream) -> std::io::Result<()> {
        let server = TcpStream::connect_timeout(&self.target, PATIENCE)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(stream.try_clone()?);
        }
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || pass(from, to, || Duration::ZERO));
        let shared = self.clone();
        std::thread::spawn(move || {
            pass(server, client, || Duration::from_millis(shared.late_by_ms.load(Ordering::Acquire)));
        });
        self.accepted.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// Passes bytes on, each so much later as `late_by` said when it came, until one side ends; then so does the other.
fn pass(mut from: TcpStream, mut to: TcpStream, late_by: impl Fn() -> Duration) {
    let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let ends = (from.try_clone(), to.try_clone());
    let writer = std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if sender.send((Instant::now() + late_by(), bytes[..read].to_vec())).is_err() {
            break;
        }
    }
    drop(sender);
    // Its panic would have been printed already.
    let _ = writer.join();
    for end in [ends.0, ends.1].into_iter().flatten() {
        // It may be gone already.
        let _ = end.shutdown(Shutdown::Both);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        for stream in self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // It may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which then ends.
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_direction_is_late_and_the_other_is_not() -> Result<()> {
        const LATE: Duration = Duration::from_millis(300);
        let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let relay = Relay::start(Ipv4Addr::LOCALHOST.into(), target.local_addr()?)?;
        let mut client = TcpStream::connect(relay.address())?;
        let (mut server, _) = target.accept()?;
        let mut byte = [0];
        relay.delay(LATE);
        let sent = Instant::now();
        server.write_all(b"x")?;
        client.write_all(b"y")?;
        server.read_exact(&mut byte)?;
        assert_eq!(byte, *b"y");
        client.read_exact(&mut byte)?;
        assert_eq!(byte, *b"x");
        assert!(sent.elapsed() >= LATE, "{:?}", sent.elapsed());
        assert_eq!(relay.accepted(), 1);
        drop(server);
        assert_eq!(client.read(&mut byte)?, 0, "the end is passed on too");
        Ok(())
    }
}
