//! What every request passes before it is read: the bounds and the deadline. tonic reads the whole message before it calls
//! the service, so the bounds must hold before that.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bellwether_core::id::{Epoch, GroupName, NodeId};
use bellwether_core::work::WorkError;
use bellwether_guest::host::Task;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::{Code, Status};

use super::Tasks;
use super::limits::PeerLimits;
use super::wire::{
    BYTES_HEADER, FetchRequest, FetchResponse, HandleRequest, HandleResponse, LIMIT_HEADER, PREFIX, TIMEOUT_HEADER,
    Workers, WorkersServer, fetch_response, parse_timeout, response, shorten,
};

/// The unit in which bytes are counted: a semaphore's permits are asked for as a `u32`.
const UNIT: usize = 1 << 10;

/// The longest part of a component.
const PART: usize = 1 << 20;

/// Parts that are read at once, of all components together.
const PARTS_AT_ONCE: usize = 16;

/// How far the server has come in stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It serves.
    Serving,
    /// It takes no new request; those under way go on.
    Draining,
    /// Requests under way are given up.
    GivingUp,
}

/// Waits until the server has come as far as `phase`, or is gone.
pub(super) async fn reached(watched: &mut watch::Receiver<Phase>, phase: Phase) {
    let _ = watched.wait_for(|now| *now >= phase).await;
}

/// The service of one connection; cheap to clone.
#[derive(Clone)]
pub(super) struct Gate {
    inner: WorkersServer<Handler>,
    shared: Arc<Shared>,
    proven: Proven,
}

/// Whether the peer has proved that it belongs to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proven(pub bool);

struct Shared {
    limits: PeerLimits,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
}

/// When the sender gives up.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Gate {
    pub(super) fn new(tasks: Arc<dyn Tasks>, limits: &PeerLimits, phase: watch::Receiver<Phase>) -> Self {
        let largest = limits.encoded();
        let bytes = usize::try_from(limits.in_flight_bytes).unwrap_or(usize::MAX).max(largest.saturating_add(PREFIX));
        let inner = WorkersServer::new(Handler { tasks, limits: limits.clone(), parts: Semaphore::new(PARTS_AT_ONCE) })
            .max_decoding_message_size(largest)
            .max_encoding_message_size(largest);
        let shared = Shared {
            requests: Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS))),
            limits: limits.clone(),
            phase,
        };
        Self { inner, shared: Arc::new(shared), proven: Proven(false) }
    }

    /// For one connection.
    pub(super) fn of(&self, proven: Proven) -> Self {
        Self { proven, ..self.clone() }
    }
}

impl Shared {
    /// Takes what a request needs, and says how long its body may be and when it must be done.
    fn admit(&self, headers: &HeaderMap) -> Result<(Permits, usize, Deadline), Status> {
        let largest = self.limits.encoded();
        let length = match headers.get(BYTES_HEADER) {
            None => largest,
            Some(value) => value
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| Status::invalid_argument(format!("`{BYTES_HEADER}` is not a number")))?,
        };
        if length > largest {
            return Err(Status::out_of_range(format!(
                "the request is larger than {} bytes",
                self.limits.message_bytes
            )));
        }
        let timeout = match headers.get(TIMEOUT_HEADER) {
            None => self.limits.deadline,
            Some(value) => value
                .to_str()
                .ok()
                .and_then(parse_timeout)
                .ok_or_else(|| Status::invalid_argument(format!("`{TIMEOUT_HEADER}` is not a deadline")))?,
        };
        let full = |_| Status::resource_exhausted("too many requests at once");
        let request = self.requests.clone().try_acquire_owned().map_err(full)?;
        let body = length.saturating_add(PREFIX);
        let units = u32::try_from(body.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let bytes = self.bytes.clone().try_acquire_many_owned(units).map_err(full)?;
        let deadline = Deadline(self.limits.deadline_in(timeout));
        Ok((Permits { _request: request, _bytes: bytes }, body, deadline))
    }
}

/// What a request holds until its answer has been handed to the connection.
struct Permits {
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl hyper::service::Service<Request<Incoming>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { mut inner, shared, proven } = self.clone();
        Box::pin(async move {
            let (permits, length, deadline) = match shared.admit(request.headers()) {
                Ok(admitted) => admitted,
                Err(status) => return Ok(refuse(status, &shared.limits)),
            };
            let mut request = request.map(|body| Limited::new(body, length));
            request.extensions_mut().insert(deadline);
            request.extensions_mut().insert(proven);
            let mut phase = shared.phase.clone();
            // What comes first below might be done at once.
            if *phase.borrow() >= Phase::GivingUp {
                return Ok(refuse(Status::unavailable("the node is stopping"), &shared.limits));
            }
            if deadline.0 <= Instant::now() {
                return Ok(refuse(Status::deadline_exceeded("the deadline has passed"), &shared.limits));
            }
            let status = tokio::select! {
                // Most requests end when they are looked at first: no timer is set for those.
                biased;
                response = inner.call(request) => match response {
                    Ok(response) if refused(&response) == Some(Code::OutOfRange) => return Ok(limited(response, &shared.limits)),
                    Ok(response) => return Ok(hold(response, permits)),
                    Err(never) => match never {},
                },
                () = tokio::time::sleep_until(deadline.0) => Status::deadline_exceeded("the deadline has passed"),
                () = reached(&mut phase, Phase::GivingUp) => Status::unavailable("the node is stopping"),
            };
            Ok(refuse(status, &shared.limits))
        })
    }
}

fn refuse(status: Status, limits: &PeerLimits) -> Response<Body> {
    let response = status.into_http::<Body>();
    if refused(&response) == Some(Code::OutOfRange) { limited(response, limits) } else { response }
}

fn refused(response: &Response<Body>) -> Option<Code> {
    Some(Code::from_bytes(response.headers().get(Status::GRPC_STATUS)?.as_bytes()))
}

fn limited(mut response: Response<Body>, limits: &PeerLimits) -> Response<Body> {
    response.headers_mut().insert(LIMIT_HEADER, HeaderValue::from(limits.message_bytes));
    response
}

/// Keeps the permits until the last frame of the answer has been taken, as until then its bytes are here. They are let go with
/// that frame and not with the body, so that they are free before the sender can know that its request is done.
fn hold(response: Response<Body>, permits: Permits) -> Response<Body> {
    let mut permits = Some(permits);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if frame.is_trailers() {
                permits.take();
            }
            frame
        }))
    })
}

/// Turns a request into a task for the node.
struct Handler {
    tasks: Arc<dyn Tasks>,
    limits: PeerLimits,
    /// Parts of components that are read at once.
    parts: Semaphore,
}

#[tonic::async_trait]
impl Workers for Handler {
    async fn handle(&self, request: tonic::Request<HandleRequest>) -> Result<tonic::Response<HandleResponse>, Status> {
        let deadline = request
            .extensions()
            .get::<Deadline>()
            .map_or_else(|| self.limits.deadline_in(self.limits.deadline), |at| at.0);
        let HandleRequest { group, sender, recipient, epoch, payload } = request.into_inner();
        if !self.limits.admits(payload.len()) {
            return Ok(tonic::Response::new(response(Err(WorkError::TooLarge(self.limits.message_bytes)))));
        }
        let bad = |error: bellwether_core::id::BadName| Status::invalid_argument(shorten(error.to_string()));
        let group = GroupName::new(group).map_err(bad)?;
        let recipient = NodeId::new(recipient).map_err(bad)?;
        let sender = NodeId::new(sender).map_err(bad)?;
        let task = Task { sender, epoch: epoch.map(Epoch), payload };
        let remaining = deadline.saturating_duration_since(Instant::now());
        let outcome = match self.tasks.handle(group, recipient, task, remaining).await {
            Ok(answer) if !self.limits.admits(answer.len()) => Err(WorkError::TooLarge(self.limits.message_bytes)),
            outcome => outcome,
        };
        Ok(tonic::Response::new(response(outcome)))
    }

    async fn fetch(&self, request: tonic::Request<FetchRequest>) -> Result<tonic::Response<FetchResponse>, Status> {
        if request.extensions().get() != Some(&Proven(true)) {
            return Err(Status::permission_denied(
                "components are given only to peers that show a certificate, and to those on the same machine; set `node.tls`",
            ));
        }
        let bad = |error: bellwether_core::id::BadName| Status::invalid_argument(shorten(error.to_string()));
        let FetchRequest { group, recipient, digest, offset, .. } = request.into_inner();
        let (group, recipient) = (GroupName::new(group).map_err(bad)?, NodeId::new(recipient).map_err(bad)?);
        let digest = <[u8; 32]>::try_from(digest.as_ref())
            .map_err(|_| Status::invalid_argument("the digest is not of 32 bytes"))?;
        let Ok(_turn) = self.parts.try_acquire() else {
            return Err(Status::resource_exhausted("too many parts at once"));
        };
        let most = usize::try_from(self.limits.message_bytes).unwrap_or(usize::MAX).min(PART);
        let part = self.tasks.part(group, recipient, digest.into(), offset, most).await;
        Ok(tonic::Response::new(fetch_response(part)))
    }
}
