//! Takes away what the session of a dead process has left behind.

use std::time::Instant;

use bellwether_core::id::SessionId;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::{sleep, timeout};
use zookeeper_client::{Client, Error};

use super::config::ZookeeperConfig;
use super::connect::{Backoff, Failure, connect};
use super::session::CLOSE;
use crate::estate::Holdings;

/// So many znodes at once.
const AT_ONCE: usize = 64;
/// So often a znode may change under our hands: what a dead process has sent may still be on its way.
const CHANGES_MAX: usize = 8;

/// Why not everything was taken away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReapError {
    /// No connection, or not for long enough.
    #[error("not within the time that there was: {0}")]
    Late(String),
    /// ZooKeeper will never allow it.
    #[error("{0}")]
    Refused(String),
}

pub(super) async fn reap(config: &ZookeeperConfig, holdings: &Holdings, give_up: Instant) -> Result<usize, ReapError> {
    let mut backoff = Backoff::new();
    let mut deleted = 0;
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        let attempt = attempt(config, holdings, &mut deleted);
        let why = match timeout(left, attempt).await {
            Ok(Ok(())) => return Ok(deleted),
            Ok(Err(Failure::Permanent(why))) => return Err(ReapError::Refused(why)),
            Ok(Err(Failure::Passing(why))) => why,
            Err(_) => "ZooKeeper did not answer".to_owned(),
        };
        let pause = backoff.next();
        if Instant::now() + pause >= give_up {
            return Err(ReapError::Late(why));
        }
        sleep(pause).await;
    }
}

/// In a session of its own. To open it is a write, so its server has caught up with all that the dead session was told.
async fn attempt(config: &ZookeeperConfig, holdings: &Holdings, deleted: &mut usize) -> Result<(), Failure> {
    let mut link = connect(config, holdings.timeout).await?;
    let client = link.client.clone();
    let results = stream::iter(&holdings.znodes).map(|path| delete(&client, path, holdings.session));
    let result = results
        .buffer_unordered(AT_ONCE)
        .try_for_each(|gone| {
            *deleted += usize::from(gone);
            std::future::ready(Ok(()))
        })
        .await;
    // When the last client is dropped, the library closes the session.
    drop(client);
    drop(link.client);
    let _ = timeout(CLOSE, link.serving.ended()).await;
    result
}

/// Deletes a znode if it belongs to `session`, and says whether it did.
async fn delete(client: &Client, path: &str, session: SessionId) -> Result<bool, Failure> {
    let failed = |error: Error| match error {
        Error::NoAuth => Failure::Permanent(format!("the ACL of {path} or of its parent does not allow it (NoAuth)")),
        error => Failure::Passing(format!("{path}: {error}")),
    };
    for _ in 0..CHANGES_MAX {
        let found = client.check_stat(path).await.map_err(failed)?;
        let Some(stat) = found.filter(|stat| stat.ephemeral_owner == session.0) else { return Ok(false) };
        match client.delete(path, Some(stat.version)).await {
            Ok(()) => return Ok(true),
            Err(Error::NoNode) => return Ok(false),
            Err(Error::BadVersion) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(Failure::Passing(format!("{path} goes on changing")))
}
