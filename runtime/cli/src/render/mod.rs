//! What verbs show to people.

pub mod status;
pub mod table;
