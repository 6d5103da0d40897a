//! One peer's address and the connection to it: made when it is needed, shared by all requests, made again when it broke.
//!
//! tonic's own `Channel` queues requests behind one another's failing attempts to connect, so that a hundred of them would wait
//! a hundred times the time-out for a peer that is gone. Here all that wait share one attempt and its outcome.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, Uri};

use super::limits::{CONNECTION_WINDOW, FRAME, PeerLimits, STREAM_WINDOW};
use super::reason::{of_io, reason};

/// How long a request that failed waits to hear why its connection ended.
const EPILOGUE: Duration = Duration::from_millis(100);

/// A connection that ends this soon, and without an answer, was never wanted.
const SOON: Duration = Duration::from_secs(1);

/// A failure that all who waited for the same attempt share.
pub(super) type Reason = Arc<str>;

/// One peer's address.
pub(super) struct Link {
    /// Where requests go to, as HTTP wants it.
    pub(super) origin: Uri,
    /// Bounds the requests under way.
    pub(super) slots: Semaphore,
    target: Arc<Target>,
    attempt: Mutex<Option<Attempt>>,
}

/// An attempt to connect, under way or over.
type Attempt = Shared<BoxFuture<'static, Result<Connection, Reason>>>;

struct Target {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    limits: PeerLimits,
}

impl Link {
    pub(super) fn new(address: &str, tls: Option<Arc<ClientConfig>>, limits: &PeerLimits) -> Result<Self, Reason> {
        let bad = || Reason::from("its address is not of the form host:port");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin: Uri = format!("{scheme}://{address}").parse().map_err(|_| bad())?;
        let authority =
            origin.authority().filter(|it| it.as_str() == address && !address.contains('@')).ok_or_else(bad)?;
        let port = authority.port_u16().filter(|port| *port != 0).ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad());
        }
        let target = Target { host, port, tls, limits: limits.clone() };
        Ok(Self {
            origin,
            slots: Semaphore::new(limits.per_peer.min(Semaphore::MAX_PERMITS)),
            target: Arc::new(target),
            attempt: Mutex::new(None),
        })
    }

    /// Whether a request is under way.
    pub(super) fn busy(&self) -> bool {
        self.slots.available_permits() < self.target.limits.per_peer.min(Semaphore::MAX_PERMITS)
    }

    /// The connection that is there, or a new one, which lives on `runtime`.
    pub(super) async fn connection(&self, runtime: &Handle) -> Result<Connection, Reason> {
        let attempt = {
            let mut attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
            // Asked and not only looked at: who began an attempt may have given up on it, and nobody has asked since.
            let usable = attempt.as_ref().is_some_and(|attempt| match attempt.clone().now_or_never() {
                None => true,
                Some(Ok(connection)) => !connection.sender.is_closed(),
                Some(Err(_)) => false,
            });
            if !usable {
                *attempt = None;
            }
            attempt.get_or_insert_with(|| Self::attempt(self.target.clone(), runtime)).clone()
        };
        attempt.await
    }

    /// Begins to connect, in a task of its own: whoever asked first may give up while others still wait.
    fn attempt(target: Arc<Target>, runtime: &Handle) -> Attempt {
        let connecting = runtime.spawn(async move {
            let connecting = target.connect();
            match timeout(target.limits.connect, connecting).await {
                Ok(outcome) => outcome.map_err(Reason::from),
                Err(_) => Err(format!("no connection within {:?}", target.limits.connect).into()),
            }
        });
        connecting.map(|ended| ended.unwrap_or_else(|_| Err("this node is stopping".into()))).boxed().shared()
    }
}

impl Target {
    async fn connect(&self) -> Result<Connection, String> {
        let stream = self.dial().await?;
        stream.set_nodelay(true).map_err(|error| of_io(&error))?;
        let Some(tls) = &self.tls else { return self.shake_hands(stream).await };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| format!("TLS: {:?} is neither a host name nor an IP address", self.host))?;
        let stream =
            TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(|error| match of_io(&error) {
                tls if tls.starts_with("TLS: ") => tls,
                why => format!("TLS: {why} during the handshake; has the peer no `tls` in its manifest?"),
            })?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("TLS: the peer does not speak HTTP/2; is it a bellwether node?".to_owned());
        }
        self.shake_hands(stream).await
    }

    /// Opens a TCP connection to the first address of the host that answers. The addresses share the time there is, so that one
    /// that is dead does not hide the next.
    async fn dial(&self) -> Result<TcpStream, String> {
        let started = Instant::now();
        let addresses: Vec<_> = lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| format!("cannot resolve {:?}: {error}", self.host))?
            .collect();
        let mut failure = format!("{:?} has no address", self.host);
        for (tried, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = self.limits.connect.saturating_sub(started.elapsed()) / left;
            failure = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => of_io(&error),
                Err(_) => format!("no connection within {:?}", self.limits.connect),
            };
        }
        Err(failure)
    }

    async fn shake_hands<S>(&self, stream: S) -> Result<Connection, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .keep_alive_interval(self.limits.keepalive)
            .keep_alive_timeout(self.limits.keepalive)
            // So that a peer which vanished is known before there is work for it.
            .keep_alive_while_idle(true)
            // Cancelled requests are usual here. Their late frames are no reason to give the connection up.
            .max_concurrent_reset_streams(self.limits.per_peer)
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| reason(&error))?;
        let (told, ended) = watch::channel(None);
        let made = Instant::now();
        tokio::spawn(async move {
            let ended = connection.await;
            // A probe that stays unanswered says nothing about what the peer expected.
            let soon = made.elapsed() < SOON && !ended.as_ref().is_err_and(hyper::Error::is_timeout);
            let why = match ended {
                Ok(()) => "the peer closed the connection".into(),
                Err(error) => reason(&error).into(),
            };
            told.send_replace(Some(Ended { why, soon }));
        });
        Ok(Connection { sender, ended, answered: Arc::new(AtomicBool::new(false)), plain: self.tls.is_none() })
    }
}

/// A connection, shared by the requests that go over it. It closes when the last copy is gone.
#[derive(Clone)]
pub(super) struct Connection {
    sender: http2::SendRequest<Body>,
    /// Why it ended, once it has.
    ended: watch::Receiver<Option<Ended>>,
    /// Whether the peer ever answered.
    answered: Arc<AtomicBool>,
    plain: bool,
}

impl Connection {
    /// Why a request failed that was sent over this connection and got no answer: what ended the connection, or else `failure`.
    pub(super) async fn why(&self, failure: String) -> String {
        let mut ended = self.ended.clone();
        let ended = match timeout(EPILOGUE, ended.wait_for(Option::is_some)).await {
            Ok(Ok(ended)) => ended.clone(),
            _ => None,
        };
        match ended {
            None => failure,
            Some(Ended { why, soon: true }) if self.plain && !self.answered.load(Ordering::Relaxed) => {
                format!("{why}, before any answer; does the peer expect TLS, or has it too many connections?")
            }
            Some(Ended { why, .. }) => why.to_string(),
        }
    }
}

/// How a connection ended.
#[derive(Clone)]
struct Ended {
    why: Reason,
    /// Whether that was right after it had been made.
    soon: bool,
}

/// A request that got no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// Whether the peer certainly did not begin with it.
    pub(super) untouched: bool,
    source: hyper::Error,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer")
    }
}

impl Error for Unanswered {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Whether HTTP/2 itself says that the peer did not look at the request: it refused it, or went away before.
fn refused(error: &hyper::Error) -> bool {
    error.source().and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let went = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (refused || went)
    })
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = Unanswered;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Unanswered>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        // The slots of the link bound what is under way.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answered = self.answered.clone();
        let sending = self.sender.try_send_request(request);
        Box::pin(async move {
            match sending.await {
                Ok(response) => {
                    answered.store(true, Ordering::Relaxed);
                    Ok(response)
                }
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    let source = error.into_error();
                    Err(Unanswered { untouched: unsent || refused(&source), source })
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        let limits = PeerLimits::default();
        for good in ["10.0.0.3:7000", "node-3.cluster.local:7000", "[::1]:7000"] {
            assert!(Link::new(good, None, &limits).is_ok(), "{good}");
        }
        for bad in
            ["", "node-3", "node-3:", ":7000", "node-3:0", "node-3:70000", "a b:1", "node-3:1/x", "u@node-3:1", "::1:1"]
        {
            assert!(Link::new(bad, None, &limits).is_err(), "{bad}");
        }
        assert_eq!(Link::new("[::1]:7000", None, &limits).expect("a link").target.host, "::1");
    }

    #[tokio::test]
    async fn an_attempt_that_failed_unheard_is_not_held_against_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address").to_string();
        let link = Link::new(&address, None, &PeerLimits::default()).expect("a link");
        let old = futures::future::ready(Err(Reason::from("of long ago"))).boxed().shared();
        *link.attempt.lock().expect("no panic") = Some(old);
        assert!(link.connection(&Handle::current()).await.is_ok());
    }
}
