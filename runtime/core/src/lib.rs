//! Bellwether's state machines. Time comes in as a parameter, requests go out as values: nothing here waits, reads a clock,
//! draws a random number or touches the outside.
//!
//! ```text
//!   session ──┐                       ┌── requests
//!   guests  ──┤ Event → Node::handle → │── calls, stops       Command
//!   admin   ──┤         (link, groups)│── grants, revocations
//!   timers  ──┘                       └── answers, notices
//! ```
//! [`node::Node`] holds the session (`link`) and the groups; a group holds its `election`, its `registry`, its `guest`
//! (with the `swap` under way) and its `store`. `invariant` is checked after every event in debug builds.

pub mod callback;
mod candidate;
pub mod command;
pub mod config;
mod course;
mod election;
pub mod event;
mod group;
mod guest;
pub mod id;
#[cfg(any(debug_assertions, test))]
mod invariant;
mod link;
pub mod member;
pub mod members;
pub mod node;
mod probation;
mod registry;
pub mod release;
pub mod request;
mod rollout;
pub mod state;
pub mod status;
mod store;
mod swap;
pub mod time;
pub mod work;
