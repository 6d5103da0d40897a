//! The coordinators that Bellwether runs on, behind one trait: [`zookeeper`] and [`memory`]. One conformance suite
//! (`tests/conformance.rs`) holds for both.

mod check;
pub mod estate;
pub mod memory;
pub mod zookeeper;

use std::time::Duration;

pub use bellwether_core::event::SessionEvent;
use bellwether_core::id::{Generation, Tag};
use bellwether_core::request::Request;
use futures::future::BoxFuture;

/// Where a session's events go. Awaiting it must never wait for the session itself.
pub type Sink = std::sync::Arc<dyn Fn(Generation, SessionEvent) -> BoxFuture<'static, ()> + Send + Sync>;

/// A coordinator that sessions can be opened on.
pub trait Coordinator: Send + Sync + 'static {
    /// Begins to open a session and goes on trying, with back-off, until it is open, [`Session::close`] is called, or
    /// the coordinator says that it never will be. Returns at once; must be called within a tokio runtime.
    fn open(&self, generation: Generation, timeout: Duration, sink: Sink) -> Box<dyn Session>;
}

/// One session. Dropping it leaves the session to expire, as a crash would.
pub trait Session: Send {
    /// Sends a request. Requests take effect in the order in which they are submitted, but for a read whose watch does not fit
    /// into the session: it may be overtaken. Never blocks; the answer is a [`SessionEvent::Answered`] with the same tag, also
    /// when the connection is down (then `Unknown`: this never queues for a later connection).
    fn submit(&mut self, tag: Tag, request: Request);

    /// Lets go of the watch that a request left; it will not fire any more.
    fn forget(&mut self, tag: Tag);

    /// Closes the session; its ephemeral znodes go. [`SessionEvent::Ended`] follows.
    fn close(&mut self);
}
