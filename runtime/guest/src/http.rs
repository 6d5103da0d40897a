//! `wasi:http/outgoing-handler`: requests to the origins that the manifest grants, and to no others.
//!
//! A request leaves once the guest has finished it, and the guest gets its answer whole. So both have a bound, and whether the
//! instance may act is asked when the request leaves, not when the guest began to write it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use crate::context::allowance;
use crate::grants::Origin;
use crate::host::{Host, HttpError, HttpRequest, LogLevel};
use crate::ongoing::{Ongoing, Place};
use crate::output::Output;
use crate::unsent;

/// The longest body of a request or an answer, where `message` under `[group.limits]` allows it.
const MOST: u64 = 4 << 20;

/// The longest header of an answer, with what it takes to keep its fields.
const HEADER: usize = 64 << 10;
/// What a field takes beyond its text.
const FIELD: usize = 64;

/// How long a server may take to answer, and be silent, where the guest does not say.
const PATIENCE: Duration = Duration::from_secs(600);

/// What one instance may send.
pub(crate) struct Outgoing {
    host: Arc<dyn Host>,
    granted: Arc<[Origin]>,
    output: Output,
    most: u64,
    ongoing: Ongoing,
    bodies: Arc<Semaphore>,
    /// When the present call must have ended; a request ends with the call that it was made in.
    deadline: Instant,
}

type Work = Box<dyn Future<Output = Result<()>> + Send>;

impl Outgoing {
    pub(crate) fn new(host: Arc<dyn Host>, granted: &[Origin], output: Output, message_bytes: u64) -> Self {
        Self {
            host,
            granted: granted.into(),
            output,
            most: message_bytes.min(MOST),
            ongoing: Ongoing::new(),
            bodies: Arc::new(Semaphore::new(unsent::BODIES)),
            deadline: Instant::now(),
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// A call has ended, and with it what it asked for.
    pub(crate) fn end(&mut self) {
        self.ongoing = Ongoing::new();
    }

    /// Room for one more request with a body, if there is.
    pub(crate) fn room_for_a_body(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.bodies).try_acquire_owned().ok()
    }

    /// Whether such a request may be made at all.
    fn admit(&self, request: &Request<WasiBody>) -> Result<Place> {
        let origin = Origin::of(request.uri()).map_err(|_| Error::HttpRequestUriInvalid)?;
        if !self.granted.contains(&origin) {
            let granted: Vec<String> = self.granted.iter().map(ToString::to_string).collect();
            let message = format!(
                "a request to {origin} was refused: `http` under [group.grants] has {}; add \"{origin}\" if the guest may send \
                 requests there",
                granted.join(", ")
            );
            self.output.message(LogLevel::Warn, "runtime", &message);
            return Err(Error::HttpRequestDenied);
        }
        // A tunnel could lead anywhere.
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        self.ongoing.place()
    }
}

impl WasiHttpHooks for Outgoing {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        unsent::CHUNK
    }

    /// The client writes it, from the origin that was looked at.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Work,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Work)>> + Send> {
        let admitted = self.admit(&request);
        let (host, most) = (Arc::clone(&self.host), self.most);
        let until = Instant::now() + allowance(PATIENCE, self.deadline);
        Box::new(async move {
            let mut place = admitted?;
            let exchange = exchange(host, request, options.unwrap_or_default(), until, most);
            let exchange =
                async { tokio::time::timeout_at(until, exchange).await.map_err(|_| Error::HttpResponseTimeout)? };
            let (parts, body) = place.unless_ended(exchange).await?.into_parts();
            let answer = Response::from_parts(parts, place.answer(body)?.boxed_unsync());
            let nothing_more: Work = Box::new(std::future::ready(Ok(())));
            Ok((answer, nothing_more))
        })
    }
}

async fn exchange(
    host: Arc<dyn Host>,
    request: Request<WasiBody>,
    options: RequestOptions,
    until: Instant,
    most: u64,
) -> Result<Response<Bytes>> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts, whole(body, most).await?);
    let left = until.saturating_duration_since(Instant::now());
    let first_byte = options.first_byte_timeout.unwrap_or(PATIENCE).min(left);
    let between_bytes = options.between_bytes_timeout.unwrap_or(PATIENCE).min(left);
    let answer = host.http(HttpRequest { request, first_byte, between_bytes, most }).await?;
    let header: usize = answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum();
    if header > HEADER {
        return Err(Error::HttpResponseHeaderSectionSize(u32::try_from(header).ok()));
    }
    Ok(answer)
}

/// All that the guest writes, until it has finished it.
async fn whole(mut body: WasiBody, most: u64) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are not sent, and are not lost in silence either.
        let data = frame?.into_data().map_err(|_| Error::HttpRequestTrailerSectionSize(Some(0)))?;
        if (bytes.len() + data.len()) as u64 > most {
            return Err(Error::HttpRequestBodySize(Some(most)));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

impl From<HttpError> for Error {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::UnknownHost(why) => Self::DnsError { rcode: Some(why), info_code: None },
            HttpError::Refused => Self::ConnectionRefused,
            HttpError::Tls(_) => Self::TlsCertificateError,
            HttpError::TimedOut => Self::HttpResponseTimeout,
            HttpError::TooLarge(most) => Self::HttpResponseBodySize(Some(most)),
            HttpError::NotLeader | HttpError::Other(_) => Self::InternalError(Some(error.to_string())),
        }
    }
}
