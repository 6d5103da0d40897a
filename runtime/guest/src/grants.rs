//! What a guest may reach. Nothing outside of its sandbox unless it is granted here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;
use http::uri::Scheme;
use serde::{Serialize, Serializer};

/// Whether a granted folder may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileMode {
    /// Files can be read.
    Read,
    /// Files can be read, made, changed and deleted.
    Write,
}

/// A folder of the host that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FolderGrant {
    /// The folder on the host.
    pub host: PathBuf,
    /// Where the guest sees it.
    pub guest: String,
    /// What it may do there.
    pub mode: FileMode,
}

/// Who may use the `state` import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateGrant {
    /// Nobody.
    None,
    /// The leader reads, writes and watches.
    #[default]
    Leader,
    /// The leader as before; workers read and watch.
    All,
}

/// Where a guest may send HTTP requests: a scheme, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether it is spoken to by TLS.
    pub secure: bool,
    /// The host in lower case, an IPv6 address in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why a text is no origin. Says what is wrong, not what the text was: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadOrigin(&'static str);

impl Origin {
    /// The origin of an address.
    ///
    /// # Errors
    /// When it is not one of HTTP, or holds a user or a password.
    pub fn of(uri: &Uri) -> Result<Self, BadOrigin> {
        let scheme = uri.scheme().ok_or(BadOrigin("it does not begin with `https://` or `http://`"))?;
        let secure = *scheme == Scheme::HTTPS;
        if !secure && *scheme != Scheme::HTTP {
            return Err(BadOrigin("its scheme is neither `https` nor `http`"));
        }
        let authority = uri.authority().ok_or(BadOrigin("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(BadOrigin("it holds a user or a password"));
        }
        let host = authority.host().to_ascii_lowercase();
        // What stands after the host and is no port makes the library fall silent about it.
        let port = match authority.as_str().get(host.len()..).and_then(|rest| rest.strip_prefix(':')) {
            None => {
                if secure {
                    443
                } else {
                    80
                }
            }
            Some(port) => port.parse().map_err(|_| BadOrigin("its port is not a number up to 65535"))?,
        };
        if host.is_empty() || port == 0 {
            return Err(BadOrigin(if port == 0 { "it has port 0" } else { "it has no host" }));
        }
        Ok(Self { secure, host, port })
    }
}

impl FromStr for Origin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        let uri: Uri = text.parse().map_err(|_| BadOrigin("it is not an address"))?;
        let origin = Self::of(&uri)?;
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") || text.contains('#') {
            return Err(BadOrigin("it has a path; what is granted is all of a server"));
        }
        Ok(origin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secure, host, port } = self;
        let scheme = if *secure { "https" } else { "http" };
        match (secure, port) {
            (true, 443) | (false, 80) => write!(f, "{scheme}://{host}"),
            _ => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything a group's manifest grants to its guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// Folders.
    pub folders: Vec<FolderGrant>,
    /// Environment variables, with the values the guest sees.
    pub env: BTreeMap<String, String>,
    /// Addresses, `host:port`, that the guest may open TCP connections to (names are resolved by the host).
    pub connect: Vec<String>,
    /// Origins that the guest may send HTTP requests to, by `wasi:http`.
    pub http: Vec<Origin>,
    /// The `state` import.
    pub state: StateGrant,
    /// The `workers` import.
    pub workers: bool,
    /// What the guest prints on stdout and stderr, and `wasi:logging`, goes to the node's log.
    pub logging: bool,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            folders: Vec::new(),
            env: BTreeMap::new(),
            connect: Vec::new(),
            http: Vec::new(),
            state: StateGrant::default(),
            workers: true,
            logging: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for (text, shown) in [
            ("https://Hooks.Example", "https://hooks.example"),
            ("https://hooks.example:443/", "https://hooks.example"),
            ("http://hooks.example:443", "http://hooks.example:443"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(text.parse::<Origin>().map(|origin| origin.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for (text, why) in [
            ("hooks.example", "begin with"),
            ("hooks.example:443", "begin with"),
            ("ftp://hooks.example", "neither"),
            ("https://me:hunter2@hooks.example", "a user or a password"),
            ("https://hooks.example/path", "it has a path"),
            ("https://hooks.example?x", "it has a path"),
            ("https://hooks.example:0", "port 0"),
            ("https://hooks.example:70000", "port"),
            ("https://", "not an address"),
        ] {
            let error = text.parse::<Origin>().expect_err(text).to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
