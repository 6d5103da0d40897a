//! A model of a node's guests: calls take time, fail now and then, and a leading guest acts.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether_core::id::{CallId, Epoch, InstanceId, ReleaseId};

/// An instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// What it runs.
    pub release: ReleaseId,
    /// The term that it was told of.
    pub told: Option<Epoch>,
    /// The call it is in, and whether that call tells it that a term has ended.
    pub call: Option<(CallId, bool)>,
    /// The number it counts in its state, handed over by swaps.
    pub counter: u64,
}

/// The guests of one node's only group.
#[derive(Debug, Clone, Default)]
pub struct Guests {
    /// The instances that exist.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// The one that counts.
    pub live: Option<InstanceId>,
}

/// How likely a guest is to misbehave, in a thousand.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// A call traps.
    pub trap: u32,
    /// A call returns an error.
    pub refuse: u32,
    /// A call outlives its budget.
    pub hang: u32,
    /// A release cannot be prepared.
    pub broken: u32,
}

/// How a call will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Well.
    Done,
    /// With an error.
    Refused,
    /// With a trap.
    Trapped,
    /// At the end of its budget.
    Hung,
}

impl Manners {
    /// Draws how a call ends and how long it takes.
    pub fn draw(self, rng: &mut fastrand::Rng, budget: Duration) -> (Fate, Duration) {
        let short = Duration::from_micros(rng.u64(50..20_000));
        let dice = rng.u32(0..1000);
        let fate = if dice < self.trap {
            Fate::Trapped
        } else if dice < self.trap + self.refuse {
            Fate::Refused
        } else if dice < self.trap + self.refuse + self.hang {
            Fate::Hung
        } else {
            Fate::Done
        };
        match fate {
            Fate::Hung => (fate, budget),
            _ if short >= budget => (Fate::Hung, budget),
            _ => (fate, short),
        }
    }
}
