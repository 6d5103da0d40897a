//! The coordinator on a real ZooKeeper.

mod config;
mod connect;
mod feed;
mod handle;
mod overflow;
mod reap;
mod request;
mod session;
mod spawner;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_core::id::Generation;

pub use self::config::{ConfigError, DigestAuth, Secret, ZookeeperConfig};
pub use self::reap::ReapError;
use crate::estate::Holdings;
use crate::{Coordinator, Session, Sink};

/// Opens sessions on a ZooKeeper ensemble. A session runs on the tokio runtime in which it is opened; give it one of its own
/// (`current_thread`, on its own thread), so that nothing else can starve its heartbeats.
#[derive(Debug, Clone)]
pub struct ZookeeperCoordinator {
    config: Arc<ZookeeperConfig>,
}

impl ZookeeperCoordinator {
    /// Takes a configuration. Connects to nothing yet.
    ///
    /// # Errors
    /// When the configuration is not fit.
    pub fn new(config: ZookeeperConfig) -> Result<Self, ConfigError> {
        Ok(Self { config: Arc::new(config.validated()?) })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ZookeeperConfig {
        &self.config
    }

    /// Deletes the znodes of a session whose process is dead, in place of its timeout, and gives their number. A znode that belongs
    /// to somebody else by now is left alone. Goes on trying while there is no connection.
    ///
    /// Only for a session that nobody uses any more: to its owner it is as if an operator had deleted them.
    ///
    /// # Errors
    /// When not all of it could be done before `give_up`, or the server refuses.
    pub async fn reap(&self, holdings: &Holdings, give_up: Instant) -> Result<usize, ReapError> {
        reap::reap(&self.config, holdings, give_up).await
    }
}

impl Coordinator for ZookeeperCoordinator {
    fn open(&self, generation: Generation, timeout: Duration, sink: Sink) -> Box<dyn Session> {
        Box::new(handle::open(self.config.clone(), generation, timeout, sink))
    }
}
