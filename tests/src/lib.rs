//! Test support.

pub mod busy;
pub mod checker;
pub mod cli;
pub mod cluster;
pub mod guests;
pub mod load;
pub mod measure;
pub mod net;
pub mod overlap;
pub mod peers_tools;
pub mod proxy;
pub mod relay;
pub mod script;
pub mod settings;
pub mod znodes;
pub mod zookeeper;
