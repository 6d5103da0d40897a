//! The coordinators that Bellwether runs on, behind one trait: [`zookeeper`] and [`memory`]. One conformance suite
//! (`tests/conformance.rs`) holds for both.

use std::time::Duration;

use bellwether_core::id::{Generation, SessionId, Tag};
use bellwether_core::request::{Reply, Request, RequestError};
use futures::future::BoxFuture;

/// What a session tells its owner. Every event carries the generation under which the session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The session exists and is connected.
    Opened {
        /// Its id.
        session: SessionId,
        /// The timeout that the server granted.
        timeout: Duration,
    },
    /// Trying to open a session goes on, but the last attempt failed. Told once for each new reason.
    Waiting {
        /// What is wrong, for a person.
        reason: String,
    },
    /// The connection is gone; the session may live on. Requests that were under way end as `Unknown`.
    Disconnected,
    /// Connected again. The session must be compared: some servers silently open a new one.
    Reconnected {
        /// The session that the server says this is.
        session: SessionId,
    },
    /// The session has ended, or will never be: expired, closed or refused. The last event of its generation.
    Ended {
        /// Why, for a person.
        reason: String,
        /// Whether trying again is pointless (wrong credentials, bad address).
        permanent: bool,
    },
    /// The answer to a request.
    Answered {
        /// The request.
        tag: Tag,
        /// Its result.
        result: Result<Reply, RequestError>,
    },
    /// The one-shot watch that a request left has fired: look again.
    Fired {
        /// The request.
        tag: Tag,
    },
}

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
    /// Sends a request. Requests take effect in the order in which they are submitted. Never blocks; the answer is a
    /// [`SessionEvent::Answered`] with the same tag, also when the connection is down (then `Unknown`: this never queues for
    /// a later connection).
    fn submit(&mut self, tag: Tag, request: Request);

    /// Lets go of the watch that a request left; it will not fire any more.
    fn forget(&mut self, tag: Tag);

    /// Closes the session; its ephemeral znodes go. [`SessionEvent::Ended`] follows.
    fn close(&mut self);
}
