//! The gate that every effect of a leader's guest goes through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bellwether_core::id::Epoch;
use bellwether_core::time::Moment;
use tokio::sync::watch;

use crate::clock;

/// The end of the node's lease, shared by all of its groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lease(Arc<AtomicU64>);

fn nanos(at: Moment) -> u64 {
    u64::try_from(at.since_boot().as_nanos()).unwrap_or(u64::MAX)
}

impl Lease {
    pub fn extend(&self, until: Moment) {
        self.0.fetch_max(nanos(until), Ordering::AcqRel);
    }

    /// Whether it has not run out. Asked at each effect: a process that was paused must not act on waking before it knows.
    fn holds(&self) -> bool {
        nanos(clock::now()) < self.0.load(Ordering::Acquire)
    }
}

/// Whether a group's guest may act as the leader now.
#[derive(Debug)]
pub(crate) struct Gate {
    lease: Lease,
    term: watch::Sender<Option<Epoch>>,
}

impl Gate {
    pub fn new(lease: Lease) -> Self {
        Self { lease, term: watch::Sender::new(None) }
    }

    pub fn grant(&self, epoch: Epoch, until: Moment) {
        self.lease.extend(until);
        self.term.send_replace(Some(epoch));
    }

    pub fn revoke(&self) {
        self.term.send_replace(None);
    }

    /// The term, if it was granted and the lease holds.
    pub fn leading(&self) -> Option<Epoch> {
        let term = *self.term.borrow();
        term.filter(|_| self.lease.holds())
    }

    /// Returns when `term` is not granted any more.
    pub async fn lost(&self, term: Epoch) {
        let mut changes = self.term.subscribe();
        // An error means that the gate is gone, and with it every grant.
        let _ = changes.wait_for(|now| *now != Some(term)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_gate_closes_when_revoked_and_when_the_lease_has_run_out() {
        let lease = Lease::default();
        let gate = Gate::new(lease.clone());
        assert_eq!(gate.leading(), None);
        gate.grant(Epoch(7), clock::now());
        assert_eq!(gate.leading(), None, "a lease that ends now is over");
        lease.extend(clock::now() + Duration::from_secs(60));
        assert_eq!(gate.leading(), Some(Epoch(7)));
        lease.extend(Moment::default());
        assert_eq!(gate.leading(), Some(Epoch(7)), "a lease never shrinks");
        gate.revoke();
        assert_eq!(gate.leading(), None);
        gate.lost(Epoch(7)).await;
    }
}
