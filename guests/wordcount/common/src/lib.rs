//! The word count: Bellwether's main example of a job with a leader and workers.
//!
//! The leader cuts a folder of text into chunks and hands them to the workers, a batch at each tick. A chunk counts exactly
//! once, whatever fails: what is counted and which chunks it stands for become visible in one single fenced write
//! ([`store`] says how). Everything but [`guest`] is plain Rust and is tested natively.

pub mod config;
pub mod corpus;
pub mod counts;
#[cfg(target_arch = "wasm32")]
pub mod guest;
pub mod handover;
pub mod job;
pub mod outside;
pub mod progress;
pub mod release;
mod roster;
pub mod store;
pub mod task;
pub mod words;
