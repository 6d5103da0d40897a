//! The WebAssembly side of Bellwether: it compiles components, compares them with the contract, gives them what the manifest
//! grants and nothing else, and runs their instances so that nothing a guest does can hurt its node.
//!
//! ```text
//! Engine ─compile→ Component ─link→ Linked ─instantiate→ Instance   (lifecycle callbacks, one at a time)
//!                                        └────────────→ WorkerPool (tasks, in parallel)
//! ```
//!
//! The node hands in a [`host::Host`] for each instance; through it alone does a guest reach the cluster.

mod bindings;
mod cache;
pub mod compiler;
mod component;
mod context;
mod contract;
mod convert;
mod engine;
mod error;
mod exports;
mod findings;
mod format;
pub mod grants;
mod guest;
pub mod host;
mod http;
mod imports;
mod instance;
pub mod limits;
mod link;
mod ongoing;
mod output;
mod pool;
mod roaming;
mod settings;
mod shape;
mod trap;
mod unsent;

pub use component::Component;
pub use engine::{Engine, EngineOptions};
pub use error::{EngineError, LoadError};
pub use findings::{Description, Findings, ImportDescription, Needs};
pub use grants::Grants;
pub use host::Host;
pub use instance::Instance;
pub use limits::Limits;
pub use link::Linked;
pub use pool::{Hosts, PoolOptions, WorkerPool};
