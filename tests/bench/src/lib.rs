//! Bellwether measured beside what a user would pick instead: Curator's recipes and Kazoo's, in processes of their own, on the same
//! ZooKeeper, in turn. What is timed is the product as it ships: fenced claim and guest callback included.

pub mod bare;
pub mod bed;
pub mod big;
pub mod callback;
pub mod callers;
pub mod echo;
pub mod failover;
pub mod field;
pub mod footprint;
pub mod handover;
pub mod registry;
pub mod report;
pub mod swap;
pub mod tasks;
