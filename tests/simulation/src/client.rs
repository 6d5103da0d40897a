//! A model of the client library's view of one session: what it believes of its connection, what is under way, and the order in
//! which things arrive.

use std::collections::BTreeSet;

use bellwether_core::id::{Generation, SessionId, Tag};
use bellwether_core::time::Moment;

/// Which way packets go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cable {
    /// From the node to the server.
    pub up: bool,
    /// From the server to the node.
    pub down: bool,
}

impl Cable {
    /// Both ways.
    pub const WHOLE: Self = Self { up: true, down: true };
}

/// The client of one node.
#[derive(Debug, Clone)]
pub struct Client {
    /// The generation that its owner knows it by.
    pub generation: Generation,
    /// The session, once it is open.
    pub session: Option<SessionId>,
    /// Whether it believes itself connected.
    pub connected: bool,
    /// Which connection this is; packets of an earlier one are lost.
    pub connection: u64,
    /// When it last heard from the server.
    pub heard: Moment,
    /// Requests that wait for an answer.
    pub pending: BTreeSet<Tag>,
    /// Nothing sent later may arrive earlier.
    pub last_up: Moment,
    /// The same, the other way.
    pub last_down: Moment,
    /// Whether its id has arrived.
    pub opened: bool,
    /// Something was lost on this connection, so that nothing that follows can arrive.
    pub doomed: bool,
    /// Told to close, or at its end.
    pub over: bool,
}

impl Client {
    /// A client that is about to open a session.
    #[must_use]
    pub fn new(generation: Generation, now: Moment) -> Self {
        Self {
            generation,
            session: None,
            connected: false,
            connection: 0,
            heard: now,
            pending: BTreeSet::new(),
            last_up: now,
            last_down: now,
            opened: false,
            doomed: false,
            over: false,
        }
    }
}
