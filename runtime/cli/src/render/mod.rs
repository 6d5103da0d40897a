//! What verbs show to people.

pub mod rollout;
pub mod status;
pub mod table;
