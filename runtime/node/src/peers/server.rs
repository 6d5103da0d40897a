//! The side that takes work.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::gate::{Gate, Phase, Proven, reached};
use super::limits::{CONNECTION_WINDOW, FRAME, PeerLimits, STREAM_WINDOW};
use super::reason::{of_io, reason};
use super::tls::{Tls, TlsFiles};
use super::{PeerError, Tasks};

/// How long a new connection may take to say something, or to finish its TLS handshake.
const GREETING: Duration = Duration::from_secs(5);

/// How long a refused peer has to hear why.
const PARTING: Duration = Duration::from_secs(1);

/// How long connections have to carry off their last words once their requests have been given up.
const FLUSH: Duration = Duration::from_millis(250);

/// How long after one complaint about connections the next may be logged.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(5);

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What every TLS connection begins with.
const TLS_HANDSHAKE: u8 = 0x16;

/// How long to wait before accepting again when that failed (mostly: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes work from peers until it is shut down or dropped. See the module for what to know about security.
#[derive(Debug)]
pub struct PeerServer {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    accepting: JoinHandle<()>,
}

impl PeerServer {
    /// Listens on `listen` from now on (port 0: any that is free) and gives what comes to `tasks`. Must be called within a tokio
    /// runtime, which then serves.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the TLS files are not fit.
    pub fn bind(
        listen: SocketAddr,
        tls: Option<&TlsFiles>,
        limits: PeerLimits,
        tasks: Arc<dyn Tasks>,
    ) -> Result<Self, PeerError> {
        let acceptor = match tls {
            None => None,
            Some(files) => Some(TlsAcceptor::from(Tls::load(files)?.server()?)),
        };
        let listener = listen_on(listen).map_err(|source| listen_error(listen, source))?;
        let address = listener.local_addr().map_err(|source| listen_error(listen, source))?;
        if acceptor.is_none() && !address.ip().is_loopback() {
            warn!(
                %address,
                "peers are served without TLS beyond loopback: whoever reaches this address can hand work to this node; \
                 set `tls` unless the network is trusted"
            );
        }
        let (phase, watched) = watch::channel(Phase::Serving);
        let server = Server {
            slots: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            gate: Gate::new(tasks, &limits, watched.clone()),
            http: http(&limits),
            acceptor,
            phase: watched,
            complaints: Arc::default(),
        };
        let accepting = tokio::spawn(server.run(listener));
        Ok(Self { address, phase, accepting })
    }

    /// Where this listens, with the port that was chosen.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening at once, lets requests under way go on for at most `grace`, gives up on the rest (their senders are told
    /// that the node is stopping), and closes all connections.
    pub async fn shutdown(mut self, grace: Duration) {
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(grace, &mut self.accepting).await.is_ok() {
            return;
        }
        self.phase.send_replace(Phase::GivingUp);
        // Whatever is still open after this is aborted by `drop`.
        let _ = tokio::time::timeout(FLUSH, &mut self.accepting).await;
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        // The connections' tasks live in a set that this task owns, so they end with it; their requests see the phase's
        // sender go.
        self.accepting.abort();
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A node that restarts must not wait for its old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

fn listen_error(address: SocketAddr, source: io::Error) -> PeerError {
    match source.kind() {
        io::ErrorKind::AddrInUse => PeerError::AddressInUse { address },
        io::ErrorKind::AddrNotAvailable => PeerError::NotLocal { address },
        _ => PeerError::Listen { address, source },
    }
}

fn http(limits: &PeerLimits) -> http2::Builder<TokioExecutor> {
    // More streams than requests, so that what is too much is refused aloud instead of waiting in the sender's HTTP/2.
    let streams = u32::try_from(limits.in_flight).unwrap_or(u32::MAX).saturating_mul(2).max(128);
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(streams)
        // A leader that is demoted cancels everything it has under way: that is no attack.
        .max_pending_accept_reset_streams(usize::try_from(streams).ok())
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.keepalive);
    http
}

struct Server {
    slots: Arc<Semaphore>,
    gate: Gate,
    http: http2::Builder<TokioExecutor>,
    acceptor: Option<TlsAcceptor>,
    phase: watch::Receiver<Phase>,
    complaints: Arc<Complaints>,
}

/// Keeps what strangers and misconfigured peers bring about from flooding the log.
#[derive(Default)]
struct Complaints {
    last: Mutex<Option<Instant>>,
}

impl Complaints {
    /// Complains, unless that was done a moment ago.
    fn make(&self, complain: impl FnOnce()) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
            *last = Some(Instant::now());
            complain();
        }
    }
}

impl Server {
    async fn run(mut self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = reached(&mut self.phase, Phase::Draining) => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => match self.slots.clone().try_acquire_owned() {
                    Ok(slot) => {
                        connections.spawn(self.connection(stream, peer, slot));
                    }
                    Err(_) => self.complaints.make(|| warn!(%peer, "too many connections from peers: refused one")),
                },
                Err(error) => {
                    self.complaints.make(|| warn!(%error, "cannot accept a connection from a peer; trying again"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (acceptor, gate, http) = (self.acceptor.clone(), self.gate.clone(), self.http.clone());
        let (mut phase, complaints) = (self.phase.clone(), self.complaints.clone());
        async move {
            let _slot = slot;
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%peer, %error, "cannot switch off the delaying of small packets");
            }
            let greeting = tokio::time::timeout(GREETING, greet(stream, acceptor));
            let greeted = tokio::select! {
                greeted = greeting => greeted,
                () = reached(&mut phase, Phase::Draining) => return,
            };
            match greeted {
                Err(_) => debug!(%peer, "a peer connected and said nothing"),
                Ok(Err((error, stream))) => {
                    // A probe that connects and closes again is no reason to complain.
                    if error.kind() != io::ErrorKind::UnexpectedEof {
                        let reason = of_io(&error);
                        complaints.make(|| warn!(%peer, reason, "refused a connection from a peer"));
                    }
                    tokio::select! {
                        () = part(stream) => {}
                        () = reached(&mut phase, Phase::Draining) => {}
                    }
                }
                // Whoever is on this machine could read this node's files as well as this.
                Ok(Ok(Stream::Plain(stream))) => {
                    serve(stream, peer, gate.of(Proven(peer.ip().is_loopback())), &http, phase).await;
                }
                Ok(Ok(Stream::Tls(stream))) => serve(stream, peer, gate.of(Proven(true)), &http, phase).await,
            }
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Makes sure that the peer speaks what this node speaks; gives the connection back if it does not.
async fn greet(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> Result<Stream, (io::Error, TcpStream)> {
    match acceptor {
        Some(acceptor) => acceptor.accept(stream).into_fallible().await.map(|tls| Stream::Tls(Box::new(tls))),
        // Who connects and says nothing must not hold a slot for ever; TLS has its handshake for that.
        None => match hear_preface(&stream).await {
            Ok(()) => Ok(Stream::Plain(stream)),
            Err(error) => Err((error, stream)),
        },
    }
}

/// Closes a refused connection such that the peer hears why: to close it with anything unread would reset it, and a reset
/// overtakes the alert that says what is wrong with the peer's certificate.
async fn part(mut stream: TcpStream) {
    let mut unread = [0; 4 << 10];
    let reading = async {
        if stream.shutdown().await.is_ok() {
            while stream.read(&mut unread).await.is_ok_and(|length| length > 0) {}
        }
    };
    let _ = tokio::time::timeout(PARTING, reading).await;
}

/// Waits until a peer has said that it speaks HTTP/2, without taking the words away.
async fn hear_preface(stream: &TcpStream) -> io::Result<()> {
    let mut heard = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut heard).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if heard[0] == TLS_HANDSHAKE {
            return Err(io::Error::other("it speaks TLS, and this node has no `tls` in its manifest"));
        }
        if heard[..length] != PREFACE[..length] {
            return Err(io::Error::other("it does not speak HTTP/2"));
        }
        if length == PREFACE.len() {
            return Ok(());
        }
        // The rest is in another packet. What has come stays readable, so there is nothing to wait for but time.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve<S>(
    stream: S,
    peer: SocketAddr,
    gate: Gate,
    http: &http2::Builder<TokioExecutor>,
    mut phase: watch::Receiver<Phase>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), gate));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = reached(&mut phase, Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, reason = reason(&error), "the connection from a peer broke");
    }
}
