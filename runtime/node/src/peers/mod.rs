//! The links between nodes: work goes from the leader (or, in a group that watches all, from any member) to a worker and the
//! answer comes back, as gRPC over HTTP/2.
//!
//! [`PeerServer`] takes work and gives it to a [`Tasks`]; [`Peers`] sends it. Everything is bounded by [`PeerLimits`].
//!
//! # Security
//!
//! **Without [`TlsFiles`] the links are plain TCP: whoever reaches the port can hand work to this node's guests, under any
//! node's name, and read what passes by. Use that on loopback or on a network that you trust as you trust the node's own
//! disk.** [`PeerServer::bind`] warns when it listens beyond loopback without TLS.
//!
//! With TLS both sides show a certificate and check the other's against the same authorities; TLS 1.3 is the only version
//! spoken. A node's certificate must be good for both sides (server and client) and name the host of its advertised address.
//! What is checked is that the peer belongs to the cluster, not which of its nodes it is: nodes of one cluster trust each other.
//!
//! Components are given only to peers that have shown a certificate, and to those on this machine.

mod client;
mod fetch;
mod gate;
mod limits;
mod link;
mod reason;
mod server;
mod tls;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use bellwether_core::id::{GroupName, NodeId};
use bellwether_core::work::WorkError;
use bellwether_guest::host::Task;
use bellwether_source::Digest;
use bytes::Bytes;
use futures::future::BoxFuture;

pub use self::client::Peers;
pub use self::limits::PeerLimits;
pub use self::server::PeerServer;
pub use self::tls::{TlsError, TlsFiles};

/// Who does the work that peers send: the node.
pub trait Tasks: Send + Sync + 'static {
    /// Does one piece of work, within `deadline` from now (the caller is given up on after that, and the future dropped; so
    /// it is when the caller cancels). A `recipient` that is not this node, or a group in which it is no member, is
    /// [`WorkError::UnknownMember`]: an address may have passed on from one node to another.
    fn handle(
        &self,
        group: GroupName,
        recipient: NodeId,
        task: Task,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, WorkError>>;

    /// Gives a part of a component that the group runs, or can go back to, from `offset` on and of at most `most` bytes. Called
    /// only for peers that have proved themselves. A node that keeps none has none.
    fn part(
        &self,
        group: GroupName,
        recipient: NodeId,
        digest: Digest,
        offset: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<Part, WorkError>> {
        let _ = (group, recipient, digest, offset, most);
        Box::pin(async { Err(WorkError::Other("this node keeps no components".into())) })
    }
}

/// A part of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its bytes.
    pub data: Bytes,
    /// The length of the whole.
    pub whole: u64,
    /// The signatures that came with it, as in a `.sig` file; only with the first part.
    pub signatures: String,
}

/// Why the links between nodes could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Somebody else listens there.
    #[error(
        "cannot listen for peers on {address}: the address is in use; stop the other process, or choose another port with \
         `listen`"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address is not this machine's.
    #[error(
        "cannot listen for peers on {address}: no network interface of this machine has that address; set `listen` to one \
         that has, and `advertise` to what the peers connect to"
    )]
    NotLocal {
        /// The address.
        address: SocketAddr,
    },
    /// Listening failed for another reason.
    #[error("cannot listen for peers on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The certificate, the key or the authorities are not fit.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
