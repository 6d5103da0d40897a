//! Bellwether's state machines. Time comes in as a parameter, requests go out as values: nothing here waits, reads a clock,
//! draws a random number or touches the outside.

pub mod callback;
pub mod id;
pub mod member;
pub mod request;
pub mod state;
pub mod time;
pub mod work;
