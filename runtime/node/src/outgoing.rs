//! The client for requests of guests to the outside. Whether a request may be made is decided before it comes here: by the
//! origins that are granted (`bellwether_guest`), and by the gate (`host.rs`).

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use bellwether_guest::grants::Origin;
use bellwether_guest::host::{HttpError, HttpRequest};
use bellwether_source::{BadAuthorities, tls_client};
use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response, retry};
use tokio_rustls::rustls;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

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
        Ok(Self { far: client(Client::builder())?, near: client(Client::builder().no_proxy())? })
    }

    pub async fn send(&self, asked: HttpRequest) -> Result<http::Response<Bytes>, HttpError> {
        let HttpRequest { request, first_byte, between_bytes, most } = asked;
        let origin = Origin::of(request.uri());
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
        let mut held = error.downcast_ref::<std::io::Error>();
        while let Some(io) = held {
            if io.kind() == std::io::ErrorKind::ConnectionRefused {
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
    use super::*;

    #[tokio::test]
    async fn an_address_that_can_be_read_in_two_ways_goes_nowhere() -> Result<(), Box<dyn Error>> {
        let outgoing = Outgoing::new()?;
        let uri = http::Uri::builder().scheme("http").authority("hooks.example").path_and_query(".evil.example/");
        // A library that takes no such path does as well.
        let Ok(uri) = uri.build() else { return Ok(()) };
        let request = http::Request::builder().uri(uri).body(Bytes::new())?;
        let patience = Duration::from_secs(5);
        let asked = HttpRequest { request, first_byte: patience, between_bytes: patience, most: 1 };
        let answer = outgoing.send(asked).await;
        assert!(matches!(answer, Err(HttpError::Other(ref why)) if why.contains("two ways")), "{answer:?}");
        Ok(())
    }
}
