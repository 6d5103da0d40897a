//! What a node can say of itself.

use std::sync::Arc;

use crate::command::SwapRecord;
use crate::election::Phase;
pub use crate::guest::CallbackCounts;
use crate::id::{Epoch, GroupName, ReleaseId, SessionId};
use crate::link::State;
use crate::members::Members;
use crate::node::Node;
use crate::release::Document;
use crate::time::Moment;

/// What a node is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not there yet, or not for the moment: no connection, no place, no guest.
    Starting,
    /// A member.
    Worker,
    /// The leader.
    Leader,
    /// The leader until just now; its guest is being told.
    Demoting,
    /// A member that stays out of the election for a while, because its guest failed.
    SittingOut,
    /// It has left.
    Stopped,
    /// The coordinator's ACLs forbid it.
    Denied,
}

/// The state of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Being opened.
    Connecting,
    /// Open.
    Connected,
    /// Open as far as we know, without a connection.
    Disconnected,
    /// There is none.
    Ended,
}

/// A group on this node.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// Its name.
    pub name: GroupName,
    /// What this node is in it.
    pub role: Role,
    /// Its own term, while it leads.
    pub epoch: Option<Epoch>,
    /// The members, where they are known.
    pub members: Option<Members>,
    /// What runs: the release, the component's digest, since when.
    pub release: Option<(ReleaseId, Arc<str>, Moment)>,
    /// The number of the release that runs, if it was deployed to the group; none for the manifest's.
    pub deployed: Option<u64>,
    /// What the group shall run, as far as this node knows.
    pub document: Option<Arc<Document>>,
    /// Whether a swap is under way.
    pub swapping: bool,
    /// Whether the release is still on probation.
    pub probation: bool,
    /// The swaps that have ended, oldest first; a bounded number.
    pub swaps: Vec<SwapRecord>,
    /// The callbacks.
    pub callbacks: CallbackCounts,
    /// The last thing that went wrong with the guest, or with the group's znodes.
    pub last_error: Option<String>,
}

/// A node.
#[derive(Debug, Clone)]
pub struct Status {
    /// The session, if there is one.
    pub session: Option<SessionId>,
    /// Its state.
    pub state: SessionState,
    /// The session timeout.
    pub timeout: std::time::Duration,
    /// The watches that it holds.
    pub watches: usize,
    /// What is wrong with it.
    pub trouble: Option<String>,
    /// The groups.
    pub groups: Vec<GroupStatus>,
}

impl Node {
    /// What the node says of itself now.
    #[must_use]
    pub fn status(&self, now: Moment) -> Status {
        let groups = self.groups.iter().map(|(name, group)| {
            let epoch = group.election.leading();
            let role = if group.denied.is_some() {
                Role::Denied
            } else if group.stopping == crate::group::Stopping::Done {
                Role::Stopped
            } else if group.demoting() {
                Role::Demoting
            } else if epoch.is_some() {
                Role::Leader
            } else if !group.registry.registered() || matches!(group.election.phase, Phase::Demoting { .. }) {
                Role::Starting
            } else if group.sitting_out.is_some_and(|until| until > now) {
                Role::SittingOut
            } else {
                Role::Worker
            };
            GroupStatus {
                name: name.clone(),
                role,
                epoch,
                members: group.registry.members.clone(),
                release: group
                    .guest
                    .live
                    .as_ref()
                    .map(|live| (live.prepared.release.clone(), live.prepared.digest.clone(), live.since)),
                deployed: group.guest.course.number(),
                document: group.rollouts.document().cloned(),
                swapping: group.guest.swap.is_some(),
                probation: group.guest.probation.runs(now),
                swaps: group.guest.history.iter().cloned().collect(),
                callbacks: group.guest.counts,
                last_error: [&group.denied, &group.rollouts.trouble, &group.guest.last_error]
                    .into_iter()
                    .find_map(Clone::clone),
            }
        });
        Status {
            session: self.link.session(),
            state: match self.link.state {
                State::Open { connected: true, .. } => SessionState::Connected,
                State::Open { .. } => SessionState::Disconnected,
                State::Opening | State::Closed { .. } => SessionState::Connecting,
                State::Closing | State::Over => SessionState::Ended,
            },
            timeout: self.link.timing.timeout,
            watches: self.link.watch_count(),
            trouble: self.link.trouble.clone(),
            groups: groups.collect(),
        }
    }

    /// Whether the node stands in every group: as a member or as the leader.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.groups.values().all(crate::group::Group::stands)
    }
}
