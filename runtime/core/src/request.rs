//! What the core asks of a coordinator: ZooKeeper's operations, no more than are used.

use std::sync::Arc;

use crate::id::SessionId;

/// How long a znode lives and how it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    /// Until it is deleted.
    Persistent,
    /// Until it is deleted or its session ends.
    Ephemeral,
    /// As `Ephemeral`; the server appends its parent's counter, at least ten digits, to the name.
    EphemeralSequential,
}

/// One operation. Paths are absolute, below the chroot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Makes a znode → [`Reply::Created`].
    Create {
        /// Its path; of a sequential one, without the counter.
        path: String,
        /// What it holds.
        data: Arc<[u8]>,
        /// How long it lives.
        mode: CreateMode,
    },
    /// Deletes a znode that has no children → [`Reply::Deleted`].
    Delete {
        /// Its path.
        path: String,
        /// Only if it has this version.
        version: Option<i32>,
    },
    /// Replaces what a znode holds → [`Reply::Written`].
    Set {
        /// Its path.
        path: String,
        /// What it shall hold.
        data: Arc<[u8]>,
        /// Only if it has this version.
        version: Option<i32>,
    },
    /// Reads a znode → [`Reply::Data`].
    Get {
        /// Its path.
        path: String,
        /// Whether to leave a one-shot watch for its change or deletion, known by the request's tag. None is left when the
        /// read fails.
        watch: bool,
    },
    /// Reads several znodes at once, without watches → [`Reply::Found`].
    GetAll {
        /// Their paths.
        paths: Vec<String>,
    },
    /// Lists a znode's children → [`Reply::Children`].
    List {
        /// Its path.
        path: String,
        /// Whether to leave a one-shot watch for a change of the list, known by the request's tag.
        watch: bool,
    },
    /// Leaves a lasting watch on the children of a znode, which need not exist → [`Reply::Watching`]. It is known by the request's tag,
    /// and tells of each child that is made, written or deleted by its name ([`crate::event::SessionEvent::ChildChanged`]), until it
    /// is forgotten, the znode itself changes (then it fires, and is gone), or the connection is lost (then it is gone
    /// without a word). A change may be told twice. Refused by servers that have no such watches, as with `WatchManagerOptimized`. Not to
    /// be set beside another watch of the session on the same znode, which servers before 3.9 would take for one (ZOOKEEPER-4466).
    WatchChildren {
        /// The znode's path.
        path: String,
    },
    /// Makes the server that this session is connected to catch up with what was written before → [`Reply::Synced`].
    Sync {
        /// Any path.
        path: String,
    },
    /// All of these or none of them → [`Reply::Multi`].
    Multi(Vec<Op>),
}

/// One operation of a [`Request::Multi`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The znode exists, and has this version if one is given.
    Check {
        /// Its path.
        path: String,
        /// Its version; `None` means any.
        version: Option<i32>,
    },
    /// Makes a persistent znode.
    Create {
        /// Its path.
        path: String,
        /// What it holds.
        data: Arc<[u8]>,
    },
    /// Replaces what a znode holds.
    Set {
        /// Its path.
        path: String,
        /// What it shall hold.
        data: Arc<[u8]>,
        /// Only if it has this version.
        version: Option<i32>,
    },
    /// Deletes a znode.
    Delete {
        /// Its path.
        path: String,
        /// Only if it has this version.
        version: Option<i32>,
    },
}

/// What ZooKeeper tells of a znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// The id of the transaction that made it.
    pub czxid: i64,
    /// The transaction id of its last change.
    pub mzxid: i64,
    /// How often its data was changed.
    pub version: i32,
    /// The session that it lives and dies with; none if it is persistent.
    pub owner: Option<SessionId>,
}

/// The answer to a [`Request`] that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The znode now exists, under this path.
    Created {
        /// Its path, with the counter if it is sequential.
        path: String,
    },
    /// The znode is gone.
    Deleted,
    /// The znode was written.
    Written(Stat),
    /// What the znode holds.
    Data {
        /// The data.
        data: Arc<[u8]>,
        /// Its stat.
        stat: Stat,
    },
    /// What each of several znodes holds, in the order of their paths; `None` for one that does not exist.
    Found(Vec<Option<(Arc<[u8]>, Stat)>>),
    /// What a znode's list holds.
    Children {
        /// The children's names, in no order.
        names: Vec<String>,
        /// The stat of the znode as it had them.
        stat: Stat,
    },
    /// The watch stands.
    Watching,
    /// The server has caught up.
    Synced,
    /// All operations were done. For each, in order, the stat that a `Set` left; `None` for the others (a create's stat in
    /// a multi-op is not to be trusted on every server).
    Multi(Vec<Option<Stat>>),
}

/// Why a [`Request`] failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no such znode (of a create: no such parent).
    #[error("no such znode")]
    NoNode,
    /// There is such a znode already.
    #[error("the znode exists")]
    NodeExists,
    /// The znode has another version.
    #[error("the znode has another version")]
    BadVersion,
    /// The znode has children.
    #[error("the znode has children")]
    NotEmpty,
    /// The session's identity may not do this. Permanent.
    #[error("permission denied by the znode's ACL")]
    NoAuth,
    /// One operation of a multi-op failed, so none was done.
    #[error("operation {index} of the transaction failed: {error}")]
    Multi {
        /// Which, from 0.
        index: usize,
        /// Why.
        error: Box<RequestError>,
    },
    /// The session has ended: nothing was done (now or later).
    #[error("the session has ended")]
    SessionEnded,
    /// The connection broke, or some other error of transport: it may have been done, or may yet be.
    #[error("result unknown: {0}")]
    Unknown(String),
    /// The server refused for another reason; nothing was done.
    #[error("{0}")]
    Refused(String),
}
