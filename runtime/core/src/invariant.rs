//! What must hold after every event. Checked in debug builds and in every test and simulation.

use crate::election::Phase;
use crate::node::Node;
use crate::time::Moment;

/// Checks all of it.
///
/// # Panics
/// When one does not hold: the state machines have a fault, and going on could break a promise.
pub(crate) fn check(node: &Node, now: Moment) {
    for (name, group) in &node.groups {
        let leading = group.election.leading();
        if leading.is_some() {
            assert!(node.link.lease().is_some_and(|lease| lease > now), "{name}: leads without a lease");
            assert!(node.link.session().is_some(), "{name}: leads without a session");
            assert!(group.election.has_place(), "{name}: leads without a znode of its own");
            assert!(!group.registry.registered(), "{name}: leads and is a member at once");
            assert!(!group.demoting(), "{name}: leads and is being demoted at once");
        }
        if matches!(group.election.phase, Phase::Claiming | Phase::Lowest { .. }) {
            assert!(group.guest.demoted(), "{name}: claims while its guest still believes in an earlier term");
        }
        if group.demoting() {
            assert!(
                matches!(group.election.phase, Phase::Demoting { .. } | Phase::Denied),
                "{name}: the election goes on while the guest is being demoted"
            );
        }
        if let (Some(told), Some(epoch)) = (group.guest.live.as_ref().and_then(|live| live.told_epoch()), leading) {
            assert!(told <= epoch, "{name}: the guest was told of a term that lies ahead");
        }
    }
}
