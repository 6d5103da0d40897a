//! Which ZooKeeper, and as whom.

use std::fmt;

use crate::check::check_path;

/// The port that ZooKeeper listens on unless told otherwise.
const DEFAULT_PORT: u16 = 2181;
const SCHEME: &str = "zookeeper://";

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself. Do not put it into a message.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A user and a password, for ZooKeeper's `digest` scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestAuth {
    /// The user; without a colon.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Which ZooKeeper to connect to, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZookeeperConfig {
    /// The servers of one ensemble, `host:port`; an IPv6 address in brackets.
    pub servers: Vec<String>,
    /// The znode that all paths are below; made when it is missing. None means the root.
    pub chroot: Option<String>,
    /// Who we are. With it, the znodes that we make can be changed by this user alone (and read by everybody); without it,
    /// by everybody.
    pub auth: Option<DigestAuth>,
}

/// Why a [`ZookeeperConfig`] is not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It does not begin as it should.
    #[error(
        "a ZooKeeper address begins with \"zookeeper://\", as in zookeeper://zk1:2181,zk2:2181/path; this one does not"
    )]
    Scheme,
    /// It names no server.
    #[error("the ZooKeeper address names no server; write one or more host:port, separated by commas")]
    NoServers,
    /// It has credentials in it.
    #[error("a ZooKeeper address holds no user or password (it would end up in logs); configure them apart from it")]
    Credentials,
    /// A server's address is not one.
    #[error("{server:?} is not a ZooKeeper server: {why}")]
    Server {
        /// As given.
        server: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The chroot is not a path.
    #[error("the chroot is not fit: {0}")]
    Chroot(String),
    /// The user name is not fit.
    #[error("the ZooKeeper user {0:?} is not fit: it must not be empty or have a colon")]
    User(String),
}

impl ZookeeperConfig {
    /// Takes `zookeeper://host:port,host:port/chroot`. Ports may be left out (2181), so may the chroot.
    ///
    /// # Errors
    /// When it is not of that form; the message never repeats credentials.
    pub fn parse(address: &str) -> Result<Self, ConfigError> {
        let rest = address.trim().strip_prefix(SCHEME).ok_or(ConfigError::Scheme)?;
        let (servers, chroot) = match rest.split_once('/') {
            Some((servers, "")) => (servers, None),
            Some((servers, path)) => (servers, Some(format!("/{path}"))),
            None => (rest, None),
        };
        if servers.contains('@') {
            return Err(ConfigError::Credentials);
        }
        if servers.is_empty() {
            return Err(ConfigError::NoServers);
        }
        let servers = servers.split(',').map(|server| normalise(server.trim())).collect::<Result<_, _>>()?;
        let config = Self { servers, chroot, auth: None };
        config.validated()
    }

    /// Checks everything, and brings addresses and chroot into one form.
    pub(super) fn validated(mut self) -> Result<Self, ConfigError> {
        if self.servers.is_empty() {
            return Err(ConfigError::NoServers);
        }
        self.servers = self.servers.iter().map(|server| normalise(server)).collect::<Result<_, _>>()?;
        self.chroot = self.chroot.filter(|chroot| !chroot.is_empty() && chroot != "/");
        if let Some(chroot) = &self.chroot {
            check_path(chroot, false).map_err(|error| ConfigError::Chroot(error.to_string()))?;
        }
        if let Some(auth) = &self.auth
            && (auth.user.is_empty() || auth.user.contains(':'))
        {
            return Err(ConfigError::User(auth.user.clone()));
        }
        Ok(self)
    }

    /// The servers as the client library takes them. Without the chroot: it may have to be made first.
    pub(super) fn connect_string(&self) -> String {
        self.servers.join(",")
    }

    /// Who we are, for messages.
    pub(super) fn identity(&self) -> String {
        match &self.auth {
            Some(auth) => format!("user {:?}", auth.user),
            None => "nobody in particular (no user is configured)".to_owned(),
        }
    }
}

impl fmt::Display for ZookeeperConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.servers.join(","), self.chroot.as_deref().unwrap_or_default())
    }
}

/// `host:port` with the port written out; brackets stay around an IPv6 address.
fn normalise(server: &str) -> Result<String, ConfigError> {
    let bad = |why| Err(ConfigError::Server { server: server.to_owned(), why });
    let (host, port) = if let Some(rest) = server.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else { return bad("the bracket is not closed") };
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return bad("what stands in brackets must be an IPv6 address");
        }
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => return bad("after the bracket, only :port may follow"),
        };
        (format!("[{host}]"), port)
    } else {
        let (host, port) = match server.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return bad("write an IPv6 address in brackets, as in [::1]:2181"),
            Some((host, port)) => (host, Some(port)),
            None => (server, None),
        };
        if host.is_empty() {
            return bad("the host is missing");
        }
        if !host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_')) {
            return bad("the host has a character that does not belong there");
        }
        (host.to_owned(), port)
    };
    let port = match port.map(str::parse::<u16>) {
        None => DEFAULT_PORT,
        Some(Ok(port)) if port != 0 => port,
        Some(_) => return bad("the port must be a number from 1 to 65535"),
    };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let config = ZookeeperConfig::parse("zookeeper://zk1:2182,10.0.0.1,[::1]:2183,[fe80::2]/prod/bw").unwrap();
        assert_eq!(config.servers, ["zk1:2182", "10.0.0.1:2181", "[::1]:2183", "[fe80::2]:2181"]);
        assert_eq!(config.chroot.as_deref(), Some("/prod/bw"));
        assert_eq!(config.to_string(), "zookeeper://zk1:2182,10.0.0.1:2181,[::1]:2183,[fe80::2]:2181/prod/bw");
        assert_eq!(ZookeeperConfig::parse("zookeeper://zk1/").unwrap().chroot, None);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = |address: &str| ZookeeperConfig::parse(address).unwrap_err().to_string();
        assert!(error("zk1:2181").contains("zookeeper://"));
        assert!(error("zookeeper://").contains("names no server"));
        assert!(error("zookeeper:///path").contains("names no server"));
        assert!(error("zookeeper://zk1,,zk2").contains("host is missing"));
        assert!(error("zookeeper://zk1:99999").contains("1 to 65535"));
        assert!(error("zookeeper://zk1:0").contains("1 to 65535"));
        assert!(error("zookeeper://::1:2181").contains("in brackets"));
        assert!(error("zookeeper://[::1:2181").contains("not closed"));
        assert!(error("zookeeper://[zk1]:2181").contains("IPv6"));
        assert!(error("zookeeper://zk 1").contains("character"));
        assert!(error("zookeeper://zk1/a/").contains("chroot"));
        assert!(error("zookeeper://zk1/a//b").contains("chroot"));
    }

    #[test]
    fn no_secret_is_shown() {
        let error = ZookeeperConfig::parse("zookeeper://joe:hunter2@zk1").unwrap_err();
        assert_eq!(error, ConfigError::Credentials);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let auth = DigestAuth { user: "joe".to_owned(), password: Secret::new("hunter2") };
        let config = ZookeeperConfig { servers: vec!["zk1".to_owned()], chroot: None, auth: Some(auth) };
        assert!(!format!("{config:?} {config}").contains("hunter2"));
    }

    #[test]
    fn users_have_no_colon() {
        let auth = DigestAuth { user: "a:b".to_owned(), password: Secret::new("x") };
        let config = ZookeeperConfig { servers: vec!["zk1".to_owned()], chroot: None, auth: Some(auth) };
        assert_eq!(config.validated().unwrap_err(), ConfigError::User("a:b".to_owned()));
    }
}
