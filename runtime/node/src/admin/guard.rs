//! Keeps web pages out. A browser on this machine can reach a loopback port on behalf of any page that it shows: by a name
//! that the page's owner points at 127.0.0.1 (DNS rebinding), or by a plain form post. Browsers name the host that they
//! mean in `Host` and themselves in `Origin` and `Sec-Fetch-Site`; tools such as curl send neither of the latter.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{ErrorBody, ErrorKind, Problem};

/// Whether the API is served on TCP; on a Unix socket, which no browser can reach, every host name is fine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    pub(super) tcp: bool,
}

impl Guard {
    fn check(self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        if !self.tcp {
            return Ok(());
        }
        if headers.contains_key(header::ORIGIN) {
            return Err("the admin API does not serve web pages: a request with an Origin header is refused".to_owned());
        }
        if headers.get("sec-fetch-site").is_some_and(|site| site != "none" && site != "same-origin") {
            return Err("the admin API does not serve web pages: a request from another site is refused".to_owned());
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err("a request needs exactly one Host header".to_owned());
        };
        let host = host.to_str().unwrap_or_default();
        if !is_loopback(host) {
            return Err(format!("the host {host:?} is not this machine's loopback: use localhost, 127.0.0.1 or [::1]"));
        }
        // The absolute form of a request's target outranks its Host header.
        match uri.authority() {
            Some(authority) if !is_loopback(authority.as_str()) => {
                Err(format!("the host {:?} is not this machine's loopback", authority.as_str()))
            }
            _ => Ok(()),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The middleware.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(why) => Problem::new(StatusCode::FORBIDDEN, ErrorBody::new(ErrorKind::Forbidden, why)).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_pass() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:7070", "127.1.2.3:1", "[::1]", "[::1]:7070"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0:7070",
            "[::]:7070",
            "user@localhost",
            "localhost evil",
            "::1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
