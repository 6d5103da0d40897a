//! The group's fenced key-value state, as guests see it.

use std::sync::Arc;

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Arc<[u8]>,
    /// The number of writes since the key was made.
    pub version: u32,
}

/// What must be true for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing.
    Anything,
    /// The key does not exist.
    Absent,
    /// The key has this version.
    Version(u32),
}

/// What a guest asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateOp {
    /// Reads a key → [`StateReply::Entry`].
    Get(String),
    /// Writes a key → [`StateReply::Version`].
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Arc<[u8]>,
        /// The condition.
        expect: Expectation,
    },
    /// Deletes a key → [`StateReply::Done`].
    Delete {
        /// The key.
        key: String,
        /// The condition.
        expect: Expectation,
    },
    /// The keys with a prefix → [`StateReply::Keys`].
    List(String),
    /// Watches a key → [`StateReply::Done`].
    Watch(String),
    /// Ends a watch → [`StateReply::Done`].
    Unwatch(String),
}

/// The answer to a [`StateOp`] that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateReply {
    /// What the key holds.
    Entry(Option<Entry>),
    /// The version a write left.
    Version(u32),
    /// The keys, sorted.
    Keys(Vec<String>),
    /// Done.
    Done,
}

/// Why a [`StateOp`] failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// The expectation does not hold.
    #[error("the key {}", match .0 { Some(version) => format!("has version {version}"), None => "does not exist".to_owned() })]
    Conflict(Option<u32>),
    /// The key is not fit.
    #[error("bad key: {0}")]
    BadKey(String),
    /// The value is too large.
    #[error("the value is larger than {0} bytes")]
    TooLarge(u64),
    /// The manifest does not grant it.
    #[error("not granted: {0}")]
    NotGranted(String),
    /// The coordinator could not be asked, or its answer was lost.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The greatest value, in bytes: ZooKeeper's packet limit (1,048,575 bytes by default) less the room that the checks of a
/// fenced write take.
pub const MAX_VALUE: usize = 1_000_000;

/// The greatest key, in bytes.
pub const MAX_KEY: usize = 200;
