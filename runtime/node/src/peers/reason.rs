//! Why a connection failed, for a person.

use std::error::Error;
use std::io;

use tokio_rustls::rustls::{CertificateError, Error as Rustls, InvalidMessage};

/// What went wrong, from the innermost error that says it best.
pub(super) fn reason(error: &(dyn Error + 'static)) -> String {
    let mut next = Some(error);
    let mut innermost = error;
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<Rustls>() {
            return of_tls(tls);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return of_io(io);
        }
        // HTTP/2's error hides the one of the socket from `source`.
        if let Some(io) = error.downcast_ref::<h2::Error>().and_then(h2::Error::get_io) {
            return of_io(io);
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout) {
            return "the peer has fallen silent: it answers no probe".to_owned();
        }
        innermost = error;
        next = error.source();
    }
    innermost.to_string()
}

/// Why the peer ended this one request, if that is what happened; its connection goes on.
pub(super) fn of_request(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<h2::Error>() {
            return (http.is_reset() && http.is_remote())
                .then_some("the peer dropped the request without an answer; see its log");
        }
        next = error.source();
    }
    None
}

/// The reason that an error of a socket (or of TLS inside of one) stands for.
pub(super) fn of_io(error: &io::Error) -> String {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Rustls>()) {
        return of_tls(tls);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            "connection closed".to_owned()
        }
        io::ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "the network is unreachable".to_owned(),
        _ => {
            let text = error.to_string();
            // On its way through HTTP/2 an error of TLS is reduced to its text.
            if text.contains("received fatal alert") { refused_by_peer(&text) } else { text }
        }
    }
}

fn of_tls(error: &Rustls) -> String {
    match error {
        Rustls::InvalidCertificate(why) => of_certificate(why),
        Rustls::AlertReceived(_) => refused_by_peer(&error.to_string()),
        Rustls::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "TLS: the peer does not speak TLS; has it no `tls` in its manifest?".to_owned()
        }
        _ => format!("TLS: {error}"),
    }
}

fn of_certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => {
            "TLS: the peer's certificate is not signed by any authority in this node's `tls.ca`".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "TLS: the peer's certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "TLS: the peer's certificate is not valid yet; compare the clocks".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "TLS: the peer's certificate does not name the host it was reached at; add it to the certificate's \
             subject alternative names"
                .to_owned()
        }
        _ => format!("TLS: the peer's certificate is not accepted: {why}"),
    }
}

fn refused_by_peer(text: &str) -> String {
    let alert = text.rsplit(':').next().unwrap_or(text).trim();
    match alert {
        "UnknownCA" => {
            "TLS: the peer refused this node's certificate: it is not signed by any authority that the peer \
                        knows (UnknownCA)"
                .to_owned()
        }
        "CertificateRequired" => "TLS: the peer wants a certificate and got none (CertificateRequired)".to_owned(),
        _ => format!("TLS: the peer refused the connection ({alert})"),
    }
}
