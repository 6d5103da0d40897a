//! A coordinator in this process: [`Server`], ZooKeeper's semantics as a pure value, and [`MemoryCoordinator`], which gives
//! sessions on one to nodes of the same process, with faults that tests can bring about.

mod coordinator;
mod server;
mod session;
mod tree;
mod watches;
mod world;

pub use coordinator::{MemoryCoordinator, Whom};
pub use server::Server;
