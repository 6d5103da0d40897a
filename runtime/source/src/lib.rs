//! Where releases come from.
//!
//! A component is named by a [`Reference`]: a file, an address, an image of a registry, or its digest alone. [`Sources`]
//! obtains it, from this node's [`store::Store`] if it is there, from where the reference says, or from another node, and
//! hands on only what has the right digest and, where the manifest wants that, a good [`signature`].

mod credentials;
pub mod digest;
mod error;
mod http;
pub mod reference;
mod registry;
pub mod signature;
mod sources;
pub mod store;

pub use digest::Digest;
pub use error::{Attempt, SourceError};
pub use http::{BadAuthorities, Limits, tls_client};
pub use reference::{BadReference, Reference};
pub use sources::{Artifact, Held, Holders, Options, Sources};

/// The largest component that is taken.
pub const MAX_COMPONENT: u64 = 256 << 20;
