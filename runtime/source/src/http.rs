//! The client of addresses and registries: TLS, bounds, and reasons that a person can use.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, Error as Rustls, RootCertStore};
use url::Url;

use crate::MAX_COMPONENT;
use crate::reference::{is_loopback, shown};

/// How much obtaining a component may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest component.
    pub bytes: u64,
    /// How long making a connection may take.
    pub connect: Duration,
    /// How long a server may be silent.
    pub idle: Duration,
    /// How long one component may take in all.
    pub total: Duration,
    /// How often a server may send elsewhere.
    pub redirects: usize,
    /// Components that are fetched at once.
    pub at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: MAX_COMPONENT,
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(20),
            total: Duration::from_secs(300),
            redirects: 5,
            at_once: 4,
        }
    }
}

/// Why the authorities that servers are checked against cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadAuthorities {
    /// The file cannot be read.
    #[error("the authorities in `{}` cannot be read: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The client cannot be made.
    #[error("the client for releases cannot be made: {0}")]
    Client(String),
}

/// TLS for clients that trust what this machine trusts, and the authorities in the file `ca`.
///
/// # Errors
/// When that file cannot be used.
pub fn tls_client(ca: Option<&PathBuf>) -> Result<ClientConfig, BadAuthorities> {
    let mut roots = RootCertStore::empty();
    // A certificate of the machine's that cannot be read is the machine's matter: others may do.
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca {
        let failed = |reason: String| BadAuthorities::File { path: path.clone(), reason };
        let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(failed("there is no `-----BEGIN CERTIFICATE-----` in it".into()));
        }
    }
    // Named, as several providers may be compiled in by others.
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| BadAuthorities::Client(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(tls)
}

/// A client with bounds. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    /// By way of the proxies that the environment names.
    far: Client,
    /// For this machine: no proxy knows what its loopback addresses are here.
    near: Client,
    pub limits: Limits,
}

impl Http {
    /// Trusts what this machine trusts, and the authorities in the file `ca`.
    pub fn new(ca: Option<&PathBuf>, limits: Limits) -> Result<Self, BadAuthorities> {
        let tls = tls_client(ca)?;
        let made = |error: &dyn Error| BadAuthorities::Client(error.to_string());
        let most = limits.redirects;
        let builder = || {
            let redirects = Policy::custom(move |attempt| {
                if attempt.previous().len() > most {
                    return attempt.error(format!("it was sent elsewhere more than {most} times"));
                }
                let url = attempt.url();
                let downgrade = url.scheme() != "https"
                    && !(is_loopback(url) && attempt.previous().first().is_some_and(is_loopback));
                if downgrade {
                    let why = format!("it was sent on to {}, which is not encrypted", shown(url));
                    return attempt.error(why);
                }
                attempt.follow()
            });
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(concat!("bellwether/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(limits.connect)
                .read_timeout(limits.idle)
                .redirect(redirects)
                // The address may hold a secret, which is no other server's business.
                .referer(false)
        };
        let far = builder().build().map_err(|error| made(&error))?;
        let near = builder().no_proxy().build().map_err(|error| made(&error))?;
        Ok(Self { far, near, limits })
    }

    fn client(&self, url: &Url) -> &Client {
        if is_loopback(url) { &self.near } else { &self.far }
    }

    /// Asks for what is at an address. The answer may be a refusal.
    pub async fn get(
        &self,
        url: &Url,
        accept: Option<&'static str>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, String> {
        let mut request = self.client(url).get(url.clone());
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        request.send().await.map_err(|error| reason(&error))
    }

    /// Sends a form.
    pub async fn post_form(&self, url: &Url, form: String) -> Result<Response, String> {
        let request = self.client(url).post(url.clone());
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        request.send().await.map_err(|error| reason(&error))
    }

    /// What is at an address, of at most `most` bytes; none if nothing is there.
    pub async fn optional(&self, url: &Url, most: u64) -> Result<Option<Bytes>, String> {
        let response = self.get(url, None, None).await?;
        if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        body(good(response)?, most).await.map(Some)
    }

    /// What is at an address, of at most `most` bytes.
    pub async fn take(&self, url: &Url, most: u64) -> Result<Bytes, String> {
        body(good(self.get(url, None, None).await?)?, most).await
    }
}

/// The response, if it is what was asked for.
pub(crate) fn good(response: Response) -> Result<Response, String> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let what = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => "nothing is there; correct the reference, or publish the component",
        StatusCode::UNAUTHORIZED => "it wants credentials, or other ones",
        StatusCode::FORBIDDEN => "it does not allow this",
        StatusCode::TOO_MANY_REQUESTS => "it wants fewer requests; try again later",
        _ if status.is_server_error() => "the server has a problem of its own; try again later",
        _ => "an unexpected answer",
    };
    Err(format!("{what} (status {})", status.as_u16()))
}

/// The body of a response, of at most `most` bytes.
pub(crate) async fn body(mut response: Response, most: u64) -> Result<Bytes, String> {
    let too_large = || format!("it is larger than {most} bytes");
    let announced = response.content_length();
    if announced.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    // What is announced is a claim of the server's: room is made as it comes true.
    let room = announced.unwrap_or_default().min(1 << 20);
    let mut body = BytesMut::with_capacity(usize::try_from(room).unwrap_or_default());
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        if (body.len() + chunk.len()) as u64 > most {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// What went wrong, from the innermost error that says it best; without the address, which may hold a secret.
fn reason(error: &reqwest::Error) -> String {
    if error.is_redirect() {
        return error.source().map_or_else(|| "it was sent elsewhere".to_owned(), ToString::to_string);
    }
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    let mut innermost = None;
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<Rustls>() {
            return of_tls(tls);
        }
        // An error of a socket hides what it holds from `source`, and may hold another of its kind.
        let mut held = error.downcast_ref::<std::io::Error>();
        while let Some(io) = held {
            if io.kind() == std::io::ErrorKind::ConnectionRefused {
                return "connection refused".to_owned();
            }
            let inner = io.get_ref();
            if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<Rustls>()) {
                return of_tls(tls);
            }
            held = inner.and_then(|inner| inner.downcast_ref());
        }
        innermost = Some(error);
        next = error.source();
    }
    if error.is_timeout() {
        return if error.is_connect() { "no connection in time" } else { "the server has fallen silent" }.to_owned();
    }
    let what = if error.is_connect() {
        "no connection"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "the request failed"
    };
    innermost.map_or_else(|| what.to_owned(), |innermost| format!("{what}: {innermost}"))
}

fn of_tls(error: &Rustls) -> String {
    match error {
        Rustls::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "TLS: its certificate is not signed by any authority that this machine trusts; name another with `[sources] ca`".to_owned()
        }
        Rustls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "TLS: its certificate has expired".to_owned()
        }
        Rustls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "TLS: its certificate does not name the host".to_owned(),
        other => format!("TLS: {other}"),
    }
}
