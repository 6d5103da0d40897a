//! Where the admin API is.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the admin API is: `unix:PATH`, or a loopback address such as `127.0.0.1:7070` or `[::1]:7070`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A Unix socket, for this user alone.
    Unix(PathBuf),
    /// A TCP port on a loopback address, for every user of the machine.
    Tcp(SocketAddr),
}

/// A text that is no [`AdminAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Neither form.
    #[error("{0:?} is not an admin address: use unix:PATH, 127.0.0.1:PORT or [::1]:PORT")]
    Form(String),
    /// An address that other machines can reach.
    #[error(
        "{0} is not a loopback address: the admin API has no passwords, so it is served on this machine only; use \
         unix:PATH, 127.0.0.1:PORT or [::1]:PORT (and ssh to reach it from elsewhere)"
    )]
    NotLoopback(SocketAddr),
}

impl AdminAddress {
    /// Checks that nobody outside of this machine can reach the address.
    ///
    /// # Errors
    /// [`BadAddress::NotLoopback`] for a TCP address that is not a loopback one.
    pub fn check(&self) -> Result<(), BadAddress> {
        match self {
            Self::Tcp(address) if !address.ip().is_loopback() => Err(BadAddress::NotLoopback(*address)),
            _ => Ok(()),
        }
    }
}

impl FromStr for AdminAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress::Form(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // A NUL would cut the path short in the kernel, and "unix://host/path" is a form that we do not have.
            if path.is_empty() || path.contains('\0') || path.starts_with("//") {
                return Err(bad());
            }
            return Ok(Self::Unix(path.into()));
        }
        let address = match text.strip_prefix("localhost:") {
            Some(port) => SocketAddr::from(([127, 0, 0, 1], port.parse().map_err(|_| bad())?)),
            None => text.parse().map_err(|_| bad())?,
        };
        let address = Self::Tcp(address);
        address.check()?;
        Ok(address)
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_forms_are_read_and_shown_alike() {
        for text in ["unix:/run/b.sock", "unix:.bellwether/a/admin.sock", "127.0.0.1:7070", "127.9.9.9:1", "[::1]:7070"]
        {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), text);
        }
        assert_eq!("localhost:7070".parse::<AdminAddress>().unwrap().to_string(), "127.0.0.1:7070");
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for text in [
            "",
            "unix:",
            "unix:///a",
            "unix:a\0b",
            "7070",
            "127.0.0.1",
            "127.0.0.1:http",
            "example.org:80",
            "http://127.0.0.1:80",
        ] {
            assert_eq!(text.parse::<AdminAddress>(), Err(BadAddress::Form(text.to_owned())));
        }
        for text in ["0.0.0.0:7070", "[::]:7070", "10.0.0.1:7070", "[2001:db8::1]:7070", "[::ffff:127.0.0.1]:1"] {
            let error = text.parse::<AdminAddress>().unwrap_err();
            assert!(matches!(error, BadAddress::NotLoopback(_)), "{text}: {error}");
        }
    }
}
