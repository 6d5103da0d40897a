//! Test support.

pub mod guests;
pub mod zookeeper;
