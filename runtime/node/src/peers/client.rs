//! The side that sends work.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwether_core::id::{Epoch, GroupName, NodeId};
use bellwether_core::member::Member;
use bellwether_core::work::WorkError;
use bytes::Bytes;
use prost::Message;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::ClientConfig;
use tonic::{Code, Status};

use super::PeerError;
use super::limits::PeerLimits;
use super::link::{Connection, Link, Reason, Unanswered};
use super::reason::{of_request, reason};
use super::tls::{Tls, TlsFiles};
use super::wire::{
    BYTES_HEADER, HandleRequest, LIMIT_HEADER, TIMEOUT_HEADER, WorkersClient, outcome, shorten, timeout_text,
};

/// Sends work to peers. Cheap to clone; all copies share their connections.
#[derive(Clone)]
pub struct Peers {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) this: NodeId,
    tls: Option<Arc<ClientConfig>>,
    pub(super) limits: PeerLimits,
    links: Mutex<Links>,
    /// Where connections live: not where guests compute.
    pub(super) runtime: Handle,
}

/// The links by address.
#[derive(Default)]
struct Links {
    by_address: HashMap<String, Used>,
    /// Counts the uses, so that the least recent one can be told.
    uses: u64,
}

struct Used {
    link: Arc<Link>,
    at: u64,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("this", &self.inner.this).field("links", &self.links()).finish_non_exhaustive()
    }
}

/// Why one attempt to have work done failed.
pub(super) enum Failure {
    /// What the sender is told.
    Final(WorkError),
    /// The connection turned out to be gone before the peer saw anything: another one may be better.
    Untouched(String),
}

impl Peers {
    /// For work that the node `this` sends. With `tls`, peers are spoken to over TLS only. Must be called within a tokio runtime:
    /// that one carries the connections, whichever runtime [`Peers::send`] is called on later.
    ///
    /// # Errors
    /// When the TLS files are not fit.
    pub fn new(this: NodeId, tls: Option<&TlsFiles>, limits: PeerLimits) -> Result<Self, PeerError> {
        let tls = match tls {
            None => None,
            Some(files) => Some(Tls::load(files)?.client()?),
        };
        Ok(Self { inner: Arc::new(Inner { this, tls, limits, links: Mutex::default(), runtime: Handle::current() }) })
    }

    /// Has `to` do a piece of work, and waits for the answer for at most `timeout`. Must be called within a tokio runtime.
    /// Dropping the future cancels the work.
    ///
    /// # Errors
    /// What kept the work from being done. `Unreachable` names the peer, its address and the reason; after it, after
    /// `TimedOut` and after `Failed` the peer may have done something. A request that the peer certainly did not see is sent
    /// once more, over a new connection, before it is given up.
    pub async fn send(
        &self,
        to: &Member,
        group: &GroupName,
        epoch: Option<Epoch>,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, WorkError> {
        let limits = &self.inner.limits;
        if !limits.admits(payload.len()) {
            return Err(WorkError::TooLarge(limits.message_bytes));
        }
        if timeout.is_zero() {
            return Err(WorkError::TimedOut);
        }
        let deadline = limits.deadline_in(timeout);
        let link = match self.inner.link(&to.address) {
            Ok(Some(link)) => link,
            Ok(None) => return Err(WorkError::Overloaded),
            Err(why) => return Err(unreachable(to, &why)),
        };
        let _slot = link.slots.try_acquire().map_err(|_| WorkError::Overloaded)?;
        let request = HandleRequest {
            group: group.to_string(),
            sender: self.inner.this.to_string(),
            recipient: to.id.to_string(),
            epoch: epoch.map(|epoch| epoch.0),
            payload,
        };
        let attempts = async {
            match self.inner.attempt(&link, to, request.clone(), deadline).await {
                // Once is enough: a second new connection that breaks at once is no accident.
                Err(Failure::Untouched(_)) => self.inner.attempt(&link, to, request, deadline).await,
                outcome => outcome,
            }
        };
        match timeout_at(deadline, attempts).await {
            Err(_) => Err(WorkError::TimedOut),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure::Final(error))) => Err(error),
            Ok(Err(Failure::Untouched(why))) => Err(unreachable(to, &why)),
        }
    }

    /// Lets go of the connections to every address that is not among `present`. Requests under way are not cut off.
    pub fn retain<'a>(&self, present: impl IntoIterator<Item = &'a str>) {
        let present: HashSet<&str> = present.into_iter().collect();
        self.inner.lock().by_address.retain(|address, _| present.contains(address.as_str()));
    }

    /// The number of peers that this keeps a connection to, or the means of making one.
    #[must_use]
    pub fn links(&self) -> usize {
        self.inner.lock().by_address.len()
    }
}

pub(super) fn unreachable(to: &Member, why: &str) -> WorkError {
    WorkError::Unreachable(shorten(format!("{} at {}: {why}", to.id, to.address)))
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to an address; none if there are as many as may be, and all of them are busy.
    pub(super) fn link(&self, address: &str) -> Result<Option<Arc<Link>>, Reason> {
        let mut links = self.lock();
        links.uses += 1;
        let at = links.uses;
        if let Some(used) = links.by_address.get_mut(address) {
            used.at = at;
            return Ok(Some(used.link.clone()));
        }
        let link = Arc::new(Link::new(address, self.tls.clone(), &self.limits)?);
        if links.by_address.len() >= self.limits.peers {
            let idle = links.by_address.iter().filter(|(_, used)| !used.link.busy());
            let Some(oldest) = idle.min_by_key(|(_, used)| used.at).map(|(address, _)| address.clone()) else {
                return Ok(None);
            };
            links.by_address.remove(&oldest);
        }
        links.by_address.insert(address.to_owned(), Used { link: link.clone(), at });
        Ok(Some(link))
    }

    async fn attempt(
        &self,
        link: &Link,
        to: &Member,
        request: HandleRequest,
        deadline: Instant,
    ) -> Result<Bytes, Failure> {
        let connection = link.connection(&self.runtime).await.map_err(|why| Failure::Final(unreachable(to, &why)))?;
        let length = request.encoded_len();
        let mut request = tonic::Request::new(request);
        let left = timeout_text(deadline.saturating_duration_since(Instant::now()));
        if let Ok(left) = left.parse() {
            request.metadata_mut().insert(TIMEOUT_HEADER, left);
        }
        request.metadata_mut().insert(BYTES_HEADER, length.into());
        let largest = self.limits.encoded();
        let mut client = WorkersClient::with_origin(connection.clone(), link.origin.clone())
            .max_encoding_message_size(largest)
            .max_decoding_message_size(largest);
        match client.handle(request).await {
            Ok(response) => outcome(response.into_inner()).map_err(Failure::Final),
            Err(status) => Err(self.failure(to, &connection, &status).await),
        }
    }

    /// What an attempt came to that ended with a status.
    pub(super) async fn failure(&self, to: &Member, connection: &Connection, status: &Status) -> Failure {
        // A status with a source was made here, of an error of transport; one without came from the peer.
        let Some(failure) = status.source() else { return Failure::Final(self.refusal(to, status)) };
        let untouched = failure.downcast_ref::<Unanswered>().is_some_and(|unanswered| unanswered.untouched);
        let why = match of_request(failure) {
            Some(why) => why.to_owned(),
            None => {
                let failure = reason(failure);
                connection.why(failure).await
            }
        };
        if untouched { Failure::Untouched(why) } else { Failure::Final(unreachable(to, &why)) }
    }

    /// What a status means that the peer sent, or that tonic made of a message.
    fn refusal(&self, to: &Member, status: &Status) -> WorkError {
        let by_peer = |what: &str| {
            WorkError::Other(shorten(format!("{} at {}: {what} ({})", to.id, to.address, status.message())))
        };
        match status.code() {
            Code::ResourceExhausted => WorkError::Overloaded,
            Code::DeadlineExceeded => WorkError::TimedOut,
            Code::OutOfRange => {
                let limit = status.metadata().get(LIMIT_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
                WorkError::TooLarge(limit.unwrap_or(self.limits.message_bytes))
            }
            Code::Unavailable => unreachable(to, status.message()),
            Code::InvalidArgument => by_peer("the peer does not understand the request"),
            Code::Unimplemented => by_peer("the peer takes no work; is it a bellwether node of this version?"),
            code => by_peer(&format!("the peer answered with the status {code:?}")),
        }
    }
}
