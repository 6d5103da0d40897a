//! Why a component could not be had.

use std::fmt;

use bellwether_core::callback::Step;

/// One place that was asked, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The place.
    pub place: String,
    /// Why it did not help.
    pub why: String,
}

impl Attempt {
    /// An attempt that failed.
    pub fn new(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place: place.into(), why: why.into() }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

/// Why a component could not be had. Its text is one line, names the reference and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reference}: {reason}")]
pub struct SourceError {
    /// What was wanted, for people.
    pub reference: String,
    /// How far it came.
    pub step: Step,
    /// What happened and what to do.
    pub reason: String,
    /// Every place that was asked, in order.
    pub attempts: Vec<Attempt>,
}
