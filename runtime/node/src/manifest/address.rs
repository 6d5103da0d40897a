//! Addresses as people write them: `host:port`, and the coordinator's.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The port that a ZooKeeper server listens on where none is given.
const ZOOKEEPER_PORT: u16 = 2181;

/// A host, by name or by number, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The name or number; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Whether the host is a number, and that number stands for every address of the machine.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is no address. Says what is wrong, not what the text was: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAddress(String);

fn bad<T>(why: impl Into<String>) -> Result<T, BadAddress> {
    Err(BadAddress(why.into()))
}

impl FromStr for HostPort {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        match split(text)? {
            (host, Some(port)) => Ok(Self { host, port }),
            (_, None) => bad("the port is missing"),
        }
    }
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split(text: &str) -> Result<(String, Option<u16>), BadAddress> {
    if text.contains('@') {
        return bad("it holds a user or a password");
    }
    if text.contains("://") {
        return bad("it is a URL");
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((inside, after)) = rest.split_once(']') else { return bad("the bracket is not closed") };
        if inside.parse::<Ipv6Addr>().is_err() {
            return bad(format!("{inside:?} is not an IPv6 address"));
        }
        let port = match after.strip_prefix(':') {
            None if after.is_empty() => None,
            None => return bad(format!("{after:?} after the bracket is not a port")),
            Some(port) => Some(port),
        };
        (inside, port)
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return bad("it has several colons: an IPv6 address needs brackets, as in [::1]:7400");
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    check_host(host)?;
    let port = match port {
        None => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => match port.parse() {
            Ok(port) => Some(port),
            Err(_) => return bad(format!("port {port} is beyond 65535")),
        },
        Some("") => return bad("the port is missing after the colon"),
        Some(port) => return bad(format!("{port:?} is not a port")),
    };
    Ok((host.to_owned(), port))
}

fn check_host(host: &str) -> Result<(), BadAddress> {
    if host.is_empty() {
        return bad("the host is missing");
    }
    if host.len() > 253 {
        return bad("the host is longer than 253 characters");
    }
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if let Some(c) = host.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))) {
        return bad(format!("{c:?} cannot be part of a host"));
    }
    if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return bad(format!("{host:?} is not an IPv4 address"));
    }
    Ok(())
}

/// Where the coordinator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connect {
    /// A ZooKeeper ensemble.
    ZooKeeper {
        /// Its servers; never empty.
        servers: Vec<HostPort>,
        /// The znode that all paths begin at, absolute; none for the root.
        chroot: Option<String>,
    },
    /// The coordinator in this process.
    Memory,
}

impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::ZooKeeper { servers, chroot } => {
                f.write_str("zookeeper://")?;
                for (n, server) in servers.iter().enumerate() {
                    write!(f, "{}{server}", if n == 0 { "" } else { "," })?;
                }
                f.write_str(chroot.as_deref().unwrap_or_default())
            }
        }
    }
}

impl FromStr for Connect {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if matches!(text, "memory:" | "memory://") {
            return Ok(Self::Memory);
        }
        let Some(rest) = text.strip_prefix("zookeeper://") else {
            return bad("it begins neither with `zookeeper://` nor with `memory:`");
        };
        if rest.contains('@') {
            return bad("it holds a user or a password; these belong in [coordination.auth]");
        }
        let (servers, chroot) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let mut list = Vec::new();
        for server in servers.split(',') {
            if server.is_empty() {
                return bad("a server is missing");
            }
            let (host, port) =
                split(server).map_err(|BadAddress(why)| BadAddress(format!("server {server:?}: {why}")))?;
            let server = HostPort { host, port: port.unwrap_or(ZOOKEEPER_PORT) };
            if server.port == 0 {
                return bad(format!("server {server}: port 0 cannot be connected to"));
            }
            if list.contains(&server) {
                return bad(format!("server {server} is listed twice"));
            }
            list.push(server);
        }
        let chroot = match chroot {
            "" | "/" => None,
            chroot => {
                check_znode(chroot).map_err(|why| BadAddress(format!("the chroot {chroot:?} {why}")))?;
                Some(chroot.to_owned())
            }
        };
        Ok(Self::ZooKeeper { servers: list, chroot })
    }
}

/// The greatest length of a root or chroot: short paths keep the re-registration of watches small.
const MAX_ZNODE: usize = 200;

/// Checks that a text is the absolute path of a znode other than the root of all.
pub(super) fn check_znode(path: &str) -> Result<(), String> {
    let Some(rest) = path.strip_prefix('/') else { return Err("does not begin with `/`".to_owned()) };
    if path.len() > MAX_ZNODE {
        return Err(format!("is longer than {MAX_ZNODE} bytes"));
    }
    if rest.is_empty() {
        return Err("names no znode".to_owned());
    }
    if rest.ends_with('/') {
        return Err("ends with `/`".to_owned());
    }
    for part in rest.split('/') {
        match part {
            "" => return Err("has an empty part".to_owned()),
            "." | ".." => return Err(format!("has the part {part:?}")),
            _ => {}
        }
        // The ranges that ZooKeeper itself refuses, less the few that no text of TOML can hold.
        if let Some(c) = part.chars().find(|&c| {
            c.is_control() || ('\u{f000}'..='\u{f8ff}').contains(&c) || ('\u{fff0}'..='\u{ffff}').contains(&c)
        }) {
            return Err(format!("has the character {c:?}"));
        }
    }
    if rest == "zookeeper" || rest.starts_with("zookeeper/") {
        return Err("is below `/zookeeper`, which ZooKeeper keeps for itself".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["localhost:7400", "10.0.0.1:0", "[::1]:7400", "node_1.svc:65535"] {
            assert_eq!(text.parse::<HostPort>().expect(text).to_string(), text);
        }
        for text in
            ["", ":", "host", "host:", "host:x", "host:65536", "host:+1", ":80", "::1:80", "[::1", "[::1]80", "[x]:1"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
        for text in ["a b:1", "1.2.3:1", "256.0.0.1:1", "http://x:1", "u@h:1", "u:p@h"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn coordinators_are_read_and_written_alike() {
        for (text, shown) in [
            ("memory:", "memory:"),
            ("zookeeper://a", "zookeeper://a:2181"),
            ("zookeeper://a:1,[::1]:2/x/y", "zookeeper://a:1,[::1]:2/x/y"),
            ("zookeeper://a:1/", "zookeeper://a:1"),
        ] {
            assert_eq!(text.parse::<Connect>().expect(text).to_string(), shown);
        }
        for text in
            ["", "memory", "zookeeper:", "zookeeper://", "zookeeper://a,", "zookeeper://a:0", "zookeeper://a,a:2181"]
        {
            assert!(text.parse::<Connect>().is_err(), "{text}");
        }
        let secret = "zookeeper://me:hunter2@a".parse::<Connect>().expect_err("a password");
        assert!(!secret.to_string().contains("hunter2"), "{secret}");
    }

    #[test]
    fn znode_paths() {
        assert_eq!(check_znode("/a/b.c/ü"), Ok(()));
        for path in
            ["", "a", "/", "/a/", "/a//b", "/a/./b", "/../a", "/zookeeper", "/zookeeper/quota", "/a\u{1}", "/\u{f8ff}"]
        {
            assert!(check_znode(path).is_err(), "{path:?}");
        }
        assert!(check_znode(&format!("/{}", "a".repeat(MAX_ZNODE))).is_err());
        assert_eq!(check_znode("/zookeepers"), Ok(()));
    }
}
