//! The coordinator on a real ZooKeeper.

mod config;
mod connect;
mod feed;
mod handle;
mod overflow;
mod request;
mod session;
mod spawner;

use std::sync::Arc;
use std::time::Duration;

use bellwether_core::id::Generation;

pub use self::config::{ConfigError, DigestAuth, Secret, ZookeeperConfig};
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
}

impl Coordinator for ZookeeperCoordinator {
    fn open(&self, generation: Generation, timeout: Duration, sink: Sink) -> Box<dyn Session> {
        Box::new(handle::open(self.config.clone(), generation, timeout, sink))
    }
}
