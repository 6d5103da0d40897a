//! How work ends that one node hands to another, and the fence that guards it.

use crate::id::Epoch;

/// Why a piece of work was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// No such member is known.
    #[error("unknown member")]
    UnknownMember,
    /// The member could not be reached.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// A queue is full.
    #[error("overloaded")]
    Overloaded,
    /// The worker knows of a newer epoch.
    #[error("refused: the worker has seen epoch {0}")]
    StaleEpoch(Epoch),
    /// The guest there failed.
    #[error("failed: {0}")]
    Failed(String),
    /// Payload or answer are too large.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// How calls have ended, counted from some moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcomes {
    /// Calls that have ended, in whichever way.
    pub ended: u64,
    /// Those among them that failed.
    pub failed: u64,
}

impl Outcomes {
    /// One more.
    pub fn count(&mut self, failed: bool) {
        self.ended += 1;
        self.failed += u64::from(failed);
    }
}

/// The highest epoch that this worker has seen in a group. It refuses every lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fence(Option<Epoch>);

impl Fence {
    /// Takes note of `epoch`; refuses it if a higher one was seen.
    ///
    /// # Errors
    /// [`WorkError::StaleEpoch`] with the epoch that was seen.
    pub fn admit(&mut self, epoch: Epoch) -> Result<(), WorkError> {
        match self.0 {
            Some(seen) if epoch < seen => Err(WorkError::StaleEpoch(seen)),
            _ => {
                self.0 = Some(epoch);
                Ok(())
            }
        }
    }

    /// Whether a task of `epoch` may go on: no higher one was seen.
    #[must_use]
    pub fn allows(&self, epoch: Epoch) -> bool {
        self.0.is_none_or(|seen| seen <= epoch)
    }

    /// The highest epoch seen; `Epoch(0)` where it is known that nobody has led yet, none where nothing is known.
    #[must_use]
    pub fn seen(&self) -> Option<Epoch> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fence_never_goes_down() {
        let mut fence = Fence::default();
        assert_eq!(fence.admit(Epoch(5)), Ok(()));
        assert_eq!(fence.admit(Epoch(5)), Ok(()));
        assert_eq!(fence.admit(Epoch(7)), Ok(()));
        assert_eq!(fence.admit(Epoch(6)), Err(WorkError::StaleEpoch(Epoch(7))));
        assert_eq!(fence.seen(), Some(Epoch(7)));
    }
}
