//! Names and numbers that must not be mixed up.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that is not fit to be part of a znode's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a valid {what}: use 1 to {max} letters, digits, '.', '_' or '-', and begin with a letter or digit"
)]
pub struct BadName {
    /// What the name is for.
    pub what: &'static str,
    /// The name as given.
    pub name: String,
    /// The greatest length.
    pub max: usize,
}

/// The greatest length of a node id or a group name: short paths keep the re-registration of watches small.
pub const MAX_NAME: usize = 64;

fn check_name(what: &'static str, name: &str) -> Result<(), BadName> {
    let ok = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if ok { Ok(()) } else { Err(BadName { what, name: name.to_owned(), max: MAX_NAME }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When the name is empty, too long, or has a character that does not belong in a path.
            pub fn new(name: impl AsRef<str>) -> Result<Self, BadName> {
                check_name($what, name.as_ref())?;
                Ok(Self(name.as_ref().into()))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(name: String) -> Result<Self, BadName> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// One running `bellwether` process, by the id its manifest gives it.
    NodeId,
    "node id"
);
name!(
    /// The nodes that share one election, one registry and one release.
    GroupName,
    "group name"
);

/// The fencing token of one term of leadership: the transaction id of the write that claimed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

/// ZooKeeper's id of a session; also the `ephemeralOwner` of what it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub i64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub u64);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

counter!(
    /// Which of the sessions that this process opened, one after the other, something belongs to.
    Generation,
    "s"
);
counter!(
    /// Names a request to the coordinator, and the watch it leaves; never used twice in a process.
    Tag,
    "t"
);
counter!(
    /// One instantiation of a component, in a store of its own; never used twice in a process.
    InstanceId,
    "i"
);
counter!(
    /// One call into an instance; never used twice in a process.
    CallId,
    "c"
);
counter!(
    /// An asker outside of the core (a guest's import, an admin) that waits for an answer.
    RequestId,
    "r"
);

/// What a group runs, as one unit: the SHA-256 of component digest, configuration, grants and limits, in hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseId(pub Arc<str>);

impl ReleaseId {
    /// The first twelve digits, enough for a person.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// The identity under which this process joins elections, part of its znodes' names. Kept with the node's data, so that a
/// process that starts again knows, and may delete, what it left behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Guid(Arc<str>);

impl Guid {
    /// Takes 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let ok = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ok.then(|| Self(text.into()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
