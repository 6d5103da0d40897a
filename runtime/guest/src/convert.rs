//! Between the core's words and the contract's.

use std::sync::Arc;

use bellwether_core::callback::{Cause, DemotionReason};
use bellwether_core::id::Epoch;
use bellwether_core::member::{Leader, Member, MembershipChange};
use bellwether_core::state::{Entry, Expectation, StateError};
use bellwether_core::work::WorkError;

use crate::bindings::bellwether::runtime::{cluster, state, types, workers};
use crate::bindings::exports::bellwether::runtime::{lifecycle, observer};
use crate::bindings::lent;
use crate::host::{ClusterError, Task};

pub(crate) fn member(member: &Member) -> types::Member {
    types::Member {
        id: member.id.as_str().to_owned(),
        address: member.address.clone(),
        labels: member.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

pub(crate) fn members(members: &[Arc<Member>]) -> Vec<types::Member> {
    members.iter().map(|m| member(m)).collect()
}

pub(crate) fn membership(change: &MembershipChange) -> lifecycle::Membership {
    lifecycle::Membership {
        version: change.version,
        joined: members(&change.joined),
        changed: members(&change.changed),
        left: change.left.iter().map(|id| id.as_str().to_owned()).collect(),
    }
}

fn cause(cause: Cause) -> lifecycle::Cause {
    match cause {
        Cause::Election => lifecycle::Cause::Election,
        Cause::Swap => lifecycle::Cause::Swap,
        Cause::Restart => lifecycle::Cause::Restart,
    }
}

pub(crate) fn leadership(epoch: Epoch, why: Cause) -> lifecycle::Leadership {
    lifecycle::Leadership { epoch: epoch.0, cause: cause(why) }
}

pub(crate) fn change(key: &str, held: Option<&Entry>) -> observer::Change {
    observer::Change { key: key.to_owned(), entry: held.map(entry) }
}

pub(crate) fn demotion(reason: &DemotionReason) -> lifecycle::DemotionReason {
    match reason {
        DemotionReason::Resigned => lifecycle::DemotionReason::Resigned,
        DemotionReason::LeaseLost => lifecycle::DemotionReason::LeaseLost,
        DemotionReason::SessionLost => lifecycle::DemotionReason::SessionLost,
        DemotionReason::Superseded => lifecycle::DemotionReason::Superseded,
        DemotionReason::Stopping => lifecycle::DemotionReason::Stopping,
        DemotionReason::Failed(how) => lifecycle::DemotionReason::Failed(how.clone()),
    }
}

pub(crate) fn task(task: &Task) -> lent::Task<'_> {
    lent::Task { sender: task.sender.as_str(), epoch: task.epoch.map(|epoch| epoch.0), payload: &task.payload }
}

pub(crate) fn entry(entry: &Entry) -> state::Entry {
    state::Entry { value: entry.value.to_vec(), version: entry.version }
}

pub(crate) fn leader(leader: Leader) -> cluster::LeaderInfo {
    cluster::LeaderInfo { id: leader.id.as_str().to_owned(), epoch: leader.epoch.0, address: leader.address }
}

pub(crate) fn expectation(expect: state::Expectation) -> Expectation {
    match expect {
        state::Expectation::Anything => Expectation::Anything,
        state::Expectation::Absent => Expectation::Absent,
        state::Expectation::Version(version) => Expectation::Version(version),
    }
}

impl From<ClusterError> for cluster::Error {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::NotLeader => Self::NotLeader,
            ClusterError::Unavailable(why) => Self::Unavailable(why),
            ClusterError::Other(why) => Self::Other(why),
        }
    }
}

impl From<StateError> for state::Error {
    fn from(error: StateError) -> Self {
        match error {
            StateError::NotLeader => Self::NotLeader,
            StateError::Conflict(version) => Self::Conflict(version),
            StateError::BadKey(why) => Self::BadKey(why),
            StateError::TooLarge(limit) => Self::TooLarge(limit),
            StateError::NotGranted(what) => Self::NotGranted(what),
            StateError::Unavailable(why) => Self::Unavailable(why),
            StateError::Other(why) => Self::Other(why),
        }
    }
}

impl From<WorkError> for workers::Error {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::UnknownMember => Self::UnknownMember,
            WorkError::Unreachable(why) => Self::Unreachable(why),
            WorkError::TimedOut => Self::TimedOut,
            WorkError::Overloaded => Self::Overloaded,
            WorkError::StaleEpoch(seen) => Self::StaleEpoch(seen.0),
            WorkError::Failed(how) => Self::Failed(how),
            WorkError::TooLarge(limit) => Self::TooLarge(limit),
            WorkError::NotLeader => Self::NotLeader,
            WorkError::Other(why) => Self::Other(why),
        }
    }
}
