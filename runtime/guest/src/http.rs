//! `wasi:http/outgoing-handler`: requests to the origins that the manifest grants, and to no others.
//!
//! A request leaves once the guest has finished it, and the guest gets its answer whole. So both have a bound, and whether the
//! instance may act is asked when the request leaves, not when the guest began to write it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use crate::context::allowance;
use crate::grants::Origin;
use crate::host::{Host, HttpError, HttpRequest, LogLevel};
use crate::output::Output;

/// Requests of one instance that are under way, or whose answers it still holds.
const AT_ONCE: usize = 16;
/// The longest body of a request or an answer, where `message` under `[group.limits]` allows it.
const MOST: u64 = 4 << 20;

/// How long a server may take to answer, and be silent, where the guest does not say.
const PATIENCE: Duration = Duration::from_secs(600);

/// What one instance may send.
pub(crate) struct Outgoing {
    host: Arc<dyn Host>,
    granted: Arc<[Origin]>,
    output: Output,
    most: u64,
    at_once: Arc<Semaphore>,
    /// When the present call must have ended; a request ends with the call that it was made in.
    pub(crate) deadline: Instant,
}

type Work = Box<dyn Future<Output = Result<()>> + Send>;

impl Outgoing {
    pub(crate) fn new(host: Arc<dyn Host>, granted: &[Origin], output: Output, message_bytes: u64) -> Self {
        Self {
            host,
            granted: granted.into(),
            output,
            most: message_bytes.min(MOST),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            deadline: Instant::now(),
        }
    }

    /// Whether such a request may be made at all.
    fn admit(&self, request: &Request<WasiBody>) -> Result<OwnedSemaphorePermit> {
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
        Arc::clone(&self.at_once).try_acquire_owned().map_err(|_| Error::ConnectionLimitReached)
    }
}

impl WasiHttpHooks for Outgoing {
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
            let permit = admitted?;
            let exchange = exchange(host, request, options.unwrap_or_default(), until, most);
            let answer = tokio::time::timeout_at(until, exchange).await.map_err(|_| Error::HttpResponseTimeout)??;
            // The permit is given back when the guest has let go of the answer.
            let held = |body| {
                let never = move |never: Infallible| {
                    let _ = &permit;
                    match never {}
                };
                Full::new(body).map_err(never).boxed_unsync()
            };
            let nothing_more: Work = Box::new(std::future::ready(Ok(())));
            Ok((answer.map(held), nothing_more))
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
    Ok(host.http(HttpRequest { request, first_byte, between_bytes, most }).await?)
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
