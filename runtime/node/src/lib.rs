//! A Bellwether node: the driver around the core, the manifest, the links to peers and the admin API.
//!
//! [`run`] runs one node, [`dev`] several in one process, [`check()`] looks at what a manifest names without starting anything.

pub mod admin;
mod check;
mod clock;
mod control;
mod dev;
mod driver;
mod effects;
mod error;
mod gate;
mod guests;
mod holders;
mod host;
mod identity;
mod lines;
pub mod manifest;
mod outcomes;
mod outgoing;
pub mod peers;
pub mod reaper;
mod release;
mod rollout;
mod run;
pub mod scenario;
mod shared;
mod start;
mod wanted;
mod watcher;

pub use bellwether_guest::compiler;
pub use bellwether_source as source;
pub use check::{CheckReport, check, check_component};
pub use dev::{DevOptions, Order, dev};
pub use error::{NodeError, NodeErrorKind};
pub use lines::{Making, make_lines_elsewhere};
pub use run::{RunOptions, Shutdown, run};
