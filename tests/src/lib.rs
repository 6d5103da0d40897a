//! Test support.

pub mod busy;
pub mod checker;
pub mod cli;
pub mod cluster;
pub mod guests;
pub mod measure;
pub mod net;
pub mod peers_tools;
pub mod proxy;
pub mod registry;
pub mod script;
pub mod znodes;
pub mod zookeeper;
