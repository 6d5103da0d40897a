//! The client for requests of guests to the outside. Whether a request may be made is decided before it comes here: by the
//! origins that are granted (`bellwether_guest`), and by the gate (`host.rs`).

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bellwether_guest::grants::Origin;
use bellwether_guest::host::{HttpError, HttpRequest};
use bellwether_source::{BadAuthorities, tls_client};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response, retry};
use tokio::sync::Semaphore;
use tokio_rustls::rustls;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Names that are looked up at the same time, for all groups together. Each takes a thread, of those that the guests' files need
/// too.
const LOOKUPS: usize = 16;
/// A body is handed to the client in pieces of at most this.
const PIECE: usize = 16 << 10;

/// Whether the one that a request is made for may still act.
pub(crate) type MayAct = Arc<dyn Fn() -> bool + Send + Sync>;

/// A client that sends each request once, to where it says and nowhere else. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// By way of the proxies that the environment names.
    far: Client,
    /// For this machine: no proxy knows what its loopback addresses are here.
    near: Client,
}

impl Outgoing {
    /// Trusts what this machine trusts.
    pub fn new() -> Result<Self, BadAuthorities> {
        let tls = tls_client(None)?;
        let client = |builder: reqwest::ClientBuilder| {
            let made = builder
                .tls_backend_preconfigured(tls.clone())
                .connect_timeout(CONNECT)
                // Where a server would rather have the request is another origin, and the guest's to ask for.
                .redirect(Policy::none())
                .referer(false)
                // A request may have effects: whether it is made again is the guest's to decide, and a connection that
                // lay idle may be closed just as it is used.
                .retry(retry::never())
                .pool_max_idle_per_host(0)
                .build();
            made.map_err(|error| BadAuthorities::Client(error.to_string()))
        };
        let names = Names { room: Arc::new(Semaphore::new(LOOKUPS)), look_up };
        Ok(Self {
            far: client(Client::builder().dns_resolver(Arc::new(names)))?,
            // The names of this machine are never long in coming.
            near: client(Client::builder().no_proxy())?,
        })
    }

    /// Sends a request; what is not yet written of it when the future is dropped, or `may_act` says no, is not written.
    pub async fn send(&self, asked: HttpRequest, may_act: MayAct) -> Result<http::Response<Bytes>, HttpError> {
        let HttpRequest { request, first_byte, between_bytes, most } = asked;
        let origin = Origin::of(request.uri());
        // Lives as long as this future.
        let wanted = Arc::new(());
        let request = request.map(|whole| {
            if whole.is_empty() {
                return reqwest::Body::default();
            }
            reqwest::Body::wrap(Gated { rest: whole, may_act, wanted: Arc::downgrade(&wanted) })
        });
        let request = Request::try_from(request).map_err(|error| HttpError::Other(error.to_string()))?;
        // Two libraries have read this address, one to judge it and one to follow it: they must have read the same.
        let read = request.url().origin().ascii_serialization().parse::<Origin>();
        if origin.is_err() || origin != read {
            return Err(HttpError::Other("its address can be read in two ways".into()));
        }
        let host = request.url().host_str().unwrap_or_default().trim_matches(['[', ']']);
        let near = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let sending = if near { &self.near } else { &self.far }.execute(request);
        let response = tokio::time::timeout(first_byte, sending).await.map_err(|_| HttpError::TimedOut)?;
        let mut response = response.map_err(|error| reason(&error))?;
        let body = body(&mut response, between_bytes, most).await?;
        let mut whole = http::Response::new(body);
        *whole.status_mut() = response.status();
        *whole.headers_mut() = std::mem::take(response.headers_mut());
        Ok(whole)
    }
}

/// The body of a request. The client writes it in a task of its own, with the header before the first piece: so it asks for
/// itself, before each piece, whether it may go on. If not, the connection ends in the middle of the request.
struct Gated {
    rest: Bytes,
    may_act: MayAct,
    wanted: Weak<()>,
}

impl Body for Gated {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        if self.wanted.strong_count() == 0 || !(self.may_act)() {
            return Poll::Ready(Some(Err(HttpError::NotLeader)));
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Looks names up as the system does, a few at a time.
struct Names {
    room: Arc<Semaphore>,
    look_up: fn(&str) -> io::Result<Vec<SocketAddr>>,
}

fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((name, 0).to_socket_addrs()?.collect())
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let (room, look_up) = (Arc::clone(&self.room), self.look_up);
        Box::pin(async move {
            let permit = room.acquire_owned().await?;
            // Nothing stops a look-up: its thread has the permit until it is done, whoever still waits for it.
            let found = tokio::task::spawn_blocking(move || {
                let found = look_up(name.as_str());
                drop(permit);
                found
            });
            Ok(Box::new(found.await??.into_iter()) as Addrs)
        })
    }
}

async fn body(response: &mut Response, between_bytes: Duration, most: u64) -> Result<Bytes, HttpError> {
    if response.content_length().is_some_and(|length| length > most) {
        return Err(HttpError::TooLarge(most));
    }
    let mut body = BytesMut::new();
    loop {
        let chunk = tokio::time::timeout(between_bytes, response.chunk()).await.map_err(|_| HttpError::TimedOut)?;
        let Some(chunk) = chunk.map_err(|error| reason(&error))? else { return Ok(body.freeze()) };
        if (body.len() + chunk.len()) as u64 > most {
            return Err(HttpError::TooLarge(most));
        }
        body.extend_from_slice(&chunk);
    }
}

/// What went wrong, by the innermost error that tells; without the address, which may hold a secret.
fn reason(error: &reqwest::Error) -> HttpError {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    let mut innermost = None;
    while let Some(error) = next {
        if error.downcast_ref() == Some(&HttpError::NotLeader) {
            return HttpError::NotLeader;
        }
        let mut held = error.downcast_ref::<io::Error>();
        while let Some(io) = held {
            if io.kind() == io::ErrorKind::ConnectionRefused {
                return HttpError::Refused;
            }
            let inner = io.get_ref();
            if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return HttpError::Tls(tls.to_string());
            }
            held = inner.and_then(|inner| inner.downcast_ref());
        }
        if error.to_string() == "dns error" {
            return HttpError::UnknownHost(error.source().map_or_else(String::new, ToString::to_string));
        }
        innermost = Some(error);
        next = error.source();
    }
    if error.is_timeout() {
        return HttpError::TimedOut;
    }
    HttpError::Other(innermost.map_or_else(|| "the request failed".to_owned(), ToString::to_string))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn an_address_that_can_be_read_in_two_ways_goes_nowhere() -> Result<(), Box<dyn Error>> {
        let outgoing = Outgoing::new()?;
        for authority in ["0x7f.1:9", "2130706433:9"] {
            let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query("/").build()?;
            let request = http::Request::builder().uri(uri).body(Bytes::new())?;
            let patience = Duration::from_secs(5);
            let asked = HttpRequest { request, first_byte: patience, between_bytes: patience, most: 1 };
            let answer = outgoing.send(asked, Arc::new(|| true)).await;
            assert!(matches!(answer, Err(HttpError::Other(ref why)) if why.contains("two ways")), "{answer:?}");
        }
        Ok(())
    }

    #[test]
    fn a_body_ends_where_its_guest_may_not_go_on() {
        let (may, wanted) = (Arc::new(AtomicBool::new(true)), Arc::new(()));
        let asked = Arc::clone(&may);
        let body = |wanted| Gated {
            rest: vec![0; 3 * PIECE].into(),
            may_act: Arc::new({
                let asked = Arc::clone(&asked);
                move || asked.load(Ordering::Relaxed)
            }),
            wanted,
        };
        let next =
            |body: &mut Gated| match Pin::new(body).poll_frame(&mut Context::from_waker(std::task::Waker::noop())) {
                Poll::Ready(Some(Ok(frame))) => Ok(frame.into_data().map_or(0, |piece| piece.len())),
                Poll::Ready(None) => Ok(0),
                Poll::Ready(Some(Err(error))) => Err(error),
                Poll::Pending => Err(HttpError::TimedOut),
            };
        let mut first = body(Arc::downgrade(&wanted));
        assert_eq!(next(&mut first), Ok(PIECE));
        may.store(false, Ordering::Relaxed);
        assert_eq!(next(&mut first), Err(HttpError::NotLeader));
        may.store(true, Ordering::Relaxed);
        let mut second = body(Arc::downgrade(&wanted));
        assert_eq!([next(&mut second), next(&mut second), next(&mut second)], [Ok(PIECE), Ok(PIECE), Ok(PIECE)]);
        assert!(second.is_end_stream());
        let mut third = body(Arc::downgrade(&wanted));
        drop(wanted);
        assert_eq!(next(&mut third), Err(HttpError::NotLeader));
    }

    #[tokio::test]
    async fn look_ups_that_nobody_waits_for_any_more_still_count() -> Result<(), Box<dyn Error>> {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        static ENDING: AtomicBool = AtomicBool::new(false);
        fn slow(_: &str) -> io::Result<Vec<SocketAddr>> {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            while !ENDING.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))])
        }
        let names = Names { room: Arc::new(Semaphore::new(LOOKUPS)), look_up: slow };
        let begun = async {
            while BEGUN.load(Ordering::SeqCst) < LOOKUPS {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let given_up: Vec<_> = (0..2 * LOOKUPS)
            .map(|_| Ok(names.resolve("slow.example".parse()?)))
            .collect::<Result<_, Box<dyn Error>>>()?;
        tokio::select! {
            _ = futures::future::join_all(given_up) => panic!("nothing was found yet"),
            () = begun => {}
        }
        let mut waits = names.resolve("late.example".parse()?);
        let waiting = poll!(&mut waits).is_pending();
        let (begun, room) = (BEGUN.load(Ordering::SeqCst), names.room.available_permits());
        // Before anything can fail: the test's end waits for these threads.
        ENDING.store(true, Ordering::SeqCst);
        assert!(waiting);
        assert_eq!((begun, room), (LOOKUPS, 0));
        let found: Vec<_> = waits.await.map_err(|error| error.to_string())?.collect();
        assert_eq!(found.len(), 1);
        Ok(())
    }
}
