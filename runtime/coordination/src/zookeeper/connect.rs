//! From nothing to an open session below its chroot.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use tokio::net::TcpStream;
use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::config::ZookeeperConfig;
use super::request::acls;
use super::spawner::{Serving, Spawning};

/// The shortest and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a server may take to accept a connection when we find out what is wrong.
const PROBE: Duration = Duration::from_secs(2);

/// A session that is open.
pub(super) struct Link {
    /// Below the chroot.
    pub(super) client: Client,
    pub(super) serving: Serving,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may get better.
    Passing(String),
    /// It will not.
    Permanent(String),
}

/// Makes one attempt.
pub(super) async fn connect(config: &ZookeeperConfig, timeout: Duration) -> Result<Link, Failure> {
    // Without "fail eagerly" an attempt goes on for the whole timeout and then does not say why it failed.
    let mut connector = Client::connector().with_session_timeout(timeout).with_fail_eagerly();
    if let Some(auth) = &config.auth {
        let credentials = format!("{}:{}", auth.user, auth.password.reveal());
        connector = connector.with_auth("digest", credentials.as_bytes());
    }
    let servers = config.connect_string();
    let (client, serving) = match Spawning::new(connector.connect(&servers)).await {
        (Ok(client), Some(serving)) => (client, serving),
        (Ok(_), None) => return Err(Failure::Passing("the ZooKeeper client did not start".to_owned())),
        (Err(Error::AuthFailed), _) => {
            let who = config.identity();
            return Err(Failure::Permanent(format!("ZooKeeper at {config} refused to authenticate {who}")));
        }
        (Err(Error::BadArguments(what)), _) => {
            return Err(Failure::Permanent(format!("{config} is not an address that the client takes: {what}")));
        }
        (Err(error), _) => return Err(Failure::Passing(diagnose(config, &error).await)),
    };
    check_version(&client, config).await?;
    let Some(chroot) = &config.chroot else { return Ok(Link { client, serving }) };
    make_chroot(&client, config, chroot).await?;
    match client.chroot(chroot.as_str()) {
        Ok(client) => Ok(Link { client, serving }),
        Err(_) => Err(Failure::Permanent(format!("{chroot:?} is not a path that the client takes as its chroot"))),
    }
}

/// Asks for something that servers know since 3.6. Older ones answer it by closing the connection, and would do so again and again when it
/// is needed.
async fn check_version(client: &Client, config: &ZookeeperConfig) -> Result<(), Failure> {
    let mut reader = client.new_multi_reader();
    let asked = async {
        reader.add_get_data("/")?;
        reader.commit().await
    };
    match asked.await {
        Ok(_) => Ok(()),
        Err(Error::Unimplemented) => Err(Failure::Permanent(format!(
            "the server of {config} is older than ZooKeeper 3.6, and cannot read several znodes at once: upgrade it"
        ))),
        Err(error) => Err(lost(config, &error)),
    }
}

fn lost(config: &ZookeeperConfig, error: &Error) -> Failure {
    Failure::Passing(format!("the connection to {config} was lost while opening: {error}"))
}

/// Makes the chroot, part by part, unless it is there.
async fn make_chroot(client: &Client, config: &ZookeeperConfig, chroot: &str) -> Result<(), Failure> {
    let lost = |error: Error| lost(config, &error);
    if client.check_stat(chroot).await.map_err(lost)?.is_some() {
        return Ok(());
    }
    let acls: Acls<'static> = acls(config.auth.is_some());
    let ends = chroot.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([chroot.len()]);
    for part in ends.filter_map(|end| chroot.get(..end)) {
        // Asked for first, because where we may not make znodes the server says so even of one that exists.
        if client.check_stat(part).await.map_err(lost)?.is_some() {
            continue;
        }
        match client.create(part, b"", &CreateMode::Persistent.with_acls(acls)).await {
            Ok(_) | Err(Error::NodeExists) => {}
            Err(Error::NoAuth) => {
                return Err(Failure::Permanent(format!(
                    "the chroot {chroot} does not exist at {config}, and {} may not make {part}: \
                     make it, or grant CREATE on its parent",
                    config.identity()
                )));
            }
            Err(Error::InvalidAcl) => {
                return Err(Failure::Permanent(format!(
                    "ZooKeeper did not take the credentials of {}",
                    config.identity()
                )));
            }
            Err(Error::NoChildrenForEphemerals) => {
                return Err(Failure::Permanent(format!("{part} cannot be made: its parent is an ephemeral znode")));
            }
            // Somebody deleted the parent just now, or the connection broke: begin again.
            Err(error) => return Err(lost(error)),
        }
    }
    Ok(())
}

/// Finds out, for a person, why no session could be opened: the library does not say.
async fn diagnose(config: &ZookeeperConfig, error: &Error) -> String {
    let probes = config.servers.iter().map(|server| async move {
        match tokio::time::timeout(PROBE, probe(server)).await {
            Ok(Ok(_)) => {
                format!("{server} accepts connections but opens no session (is it serving, and has it a quorum?)")
            }
            Ok(Err(error)) => format!("{server}: {error}"),
            Err(_) => format!("{server}: no answer within {PROBE:?}"),
        }
    });
    let found = futures::future::join_all(probes).await.join("; ");
    match error {
        Error::NoHosts | Error::Timeout | Error::ConnectionLoss => format!("cannot reach ZooKeeper: {found}"),
        other => format!("cannot open a ZooKeeper session ({other}): {found}"),
    }
}

async fn probe(server: &str) -> io::Result<TcpStream> {
    TcpStream::connect(&*resolve(server).await?).await
}

/// Resolves a name on a thread of its own: tokio's would keep its runtime from ending until the resolver gives up.
async fn resolve(server: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = server.parse() {
        return Ok(vec![address]);
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let server = server.to_owned();
    std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
        // Whoever asked may have stopped waiting.
        let _ = sender.send(server.to_socket_addrs().map(Iterator::collect));
    })?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the resolver failed")))
}

/// Ever longer pauses, each shortened at random so that many nodes do not come at once.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(PAUSES.0)
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(fastrand::f64().mul_add(0.5, 0.5));
        self.0 = (self.0 * 2).min(PAUSES.1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_capped() {
        let mut backoff = Backoff::new();
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] >= PAUSES.0 / 2 && pauses[0] <= PAUSES.0);
        assert!(pauses.iter().all(|pause| *pause <= PAUSES.1));
        assert!(pauses[19] >= PAUSES.1 / 2);
    }
}
