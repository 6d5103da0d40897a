//! The coordinator in memory, and the faults it can bring about.

use std::time::Duration;

use bellwether_core::id::{Generation, SessionId};
use bellwether_core::request::{Reply, Request, RequestError};
use tokio::time::Instant;

use super::server::Server;
use super::session::{self, Shared};
use super::world::{Out, Phase, World};
use crate::{Coordinator, Session, Sink};

/// No session ends sooner than this, whatever is asked for.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);

/// Whom a fault befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Every session.
    All,
    /// One session.
    One(SessionId),
}

impl From<SessionId> for Whom {
    fn from(session: SessionId) -> Self {
        Self::One(session)
    }
}

/// A coordinator within this process. All clones are the same one. Its time is tokio's, so that a test may pause it.
#[derive(Debug, Clone)]
pub struct MemoryCoordinator {
    shared: Shared,
}

impl Default for MemoryCoordinator {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryCoordinator {
    /// A coordinator that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Shared::new() }
    }

    /// Looks at the server as it is now.
    pub fn inspect<T>(&self, look: impl FnOnce(&Server) -> T) -> T {
        let mut world = self.shared.lock();
        world.tick();
        look(&world.server)
    }

    /// Reads or writes as an operator would from outside; whoever watches hears of it.
    ///
    /// # Errors
    /// As [`Server::operate`].
    pub fn operate(&self, request: Request) -> Result<Reply, RequestError> {
        let mut world = self.shared.lock();
        world.tick();
        let result = world.server.operate(request);
        world.deliver_fired();
        result
    }

    /// Cuts the connection. The session lives on until its timeout.
    pub fn disconnect(&self, whom: impl Into<Whom>) {
        self.each(whom.into(), World::disconnect);
    }

    /// Brings the connection back, and ends [`MemoryCoordinator::drop_replies`]; requests whose replies were dropped end as
    /// `Unknown`. A session that has expired meanwhile ends.
    pub fn reconnect(&self, whom: impl Into<Whom>) {
        self.each(whom.into(), World::reconnect);
    }

    /// From now on requests are carried out, but neither replies nor events get through, until the connection is cut
    /// or brought back.
    pub fn drop_replies(&self, whom: impl Into<Whom>, drop: bool) {
        self.each(whom.into(), |world, id| {
            if let Some(connection) = world.connections.get_mut(&id) {
                connection.dropping = drop;
            }
        });
    }

    /// Expires a session at once.
    pub fn expire(&self, whom: impl Into<Whom>) {
        self.each(whom.into(), |world, id| {
            if let Some(session) = world.connections.get(&id).and_then(|connection| connection.session) {
                world.expire_session(session);
            }
        });
    }

    /// Lets the owner of a session seem to have crashed: it hears nothing more, nothing it asks for is done, and its session
    /// runs out.
    pub fn kill(&self, whom: impl Into<Whom>) {
        self.each(whom.into(), World::abandon);
    }

    /// How long answers and events take from now on. Those that are on their way take as long as they would have.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Whether sessions can be opened. While they cannot, those who try wait.
    pub fn unavailable(&self, unavailable: bool) {
        let mut world = self.shared.lock();
        world.unavailable = unavailable;
        for connection in world.connections.values().filter(|connection| connection.phase == Phase::Opening) {
            let _ = connection.out.send((Instant::now(), Out::TryAgain));
        }
    }

    /// From now on requests on `prefix` and below are answered with `NoAuth`.
    pub fn deny(&self, prefix: &str) {
        self.shared.lock().server.deny(prefix);
    }

    /// Sets the counter that names the next sequential child of `path`.
    ///
    /// # Errors
    /// [`RequestError::NoNode`].
    pub fn set_counter(&self, path: &str, counter: i32) -> Result<(), RequestError> {
        self.shared.lock().server.set_counter(path, counter)
    }

    fn each(&self, whom: Whom, mut fault: impl FnMut(&mut World, u64)) {
        let mut world = self.shared.lock();
        let meant: Vec<u64> = world
            .connections
            .iter()
            .filter(|(_, connection)| match whom {
                Whom::All => connection.session.is_some(),
                Whom::One(session) => connection.session == Some(session),
            })
            .map(|(id, _)| *id)
            .collect();
        for id in meant {
            fault(&mut world, id);
        }
    }
}

impl Coordinator for MemoryCoordinator {
    fn open(&self, generation: Generation, timeout: Duration, sink: Sink) -> Box<dyn Session> {
        session::open(&self.shared, generation, timeout.max(MIN_TIMEOUT), sink)
    }
}
