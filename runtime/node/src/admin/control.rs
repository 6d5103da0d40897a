//! What the admin API asks of the node.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_core::id::{GroupName, NodeId};
use bellwether_core::member::Member;
use bellwether_core::state::Entry;
use bellwether_source::Reference;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::error::ControlError;
use super::rollout::{DeployRequest, Planned, RollbackRequest, RolloutStatus, Steer, SteerRequest};
use super::status::{NodeStatus, SwapReport};

/// The answer to one request. The asker may go away and drop it at any time: what it asked for goes on regardless.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ControlError>>;

/// What a group shall be swapped to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwapRequest {
    /// What names the component: an absolute path on the node's machine, read by the node; an address; an image; a digest. Without
    /// one, the component that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<Reference>,
    /// Settings that take the place of the manifest's, or stand beside them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
}

/// One node, as the admin API sees it. No method may block; the API gives up waiting for reads after a few seconds.
pub trait Control: Send + Sync + 'static {
    /// Its id.
    fn node(&self) -> NodeId;

    /// Everything about it.
    fn status(&self) -> Answer<'_, NodeStatus>;

    /// A group's workers as this node knows them.
    fn members(&self, group: GroupName) -> Answer<'_, Vec<Arc<Member>>>;

    /// Swaps a group's release on this node and waits for the outcome. A swap that was rolled back is a report that says so,
    /// or [`ControlError::Failed`] if it never got as far as a report. A second one at the same time is
    /// [`ControlError::Busy`].
    fn swap(&self, group: GroupName, request: SwapRequest) -> Answer<'_, SwapReport>;

    /// Gives leadership of a group up; answered when the node has begun to. [`ControlError::NotLeader`] if it does not lead.
    fn resign(&self, group: GroupName) -> Answer<'_, ()>;

    /// The keys of a group's state that begin with `prefix`, sorted.
    fn state_list(&self, group: GroupName, prefix: String) -> Answer<'_, Vec<String>>;

    /// One key of a group's state; none if it does not exist.
    fn state_get(&self, group: GroupName, key: String) -> Answer<'_, Option<Entry>>;

    /// What a group runs as a whole, and what its nodes say of it.
    fn rollout(&self, group: GroupName) -> Answer<'_, RolloutStatus>;

    /// Checks a release against this node's grants, and has it rolled out across the group; answered when that has begun.
    /// [`ControlError::Refused`] if the group's document does not allow it; [`ControlError::Failed`] if the component cannot be used.
    fn deploy(&self, group: GroupName, request: DeployRequest) -> Answer<'_, Planned>;

    /// Has an earlier release rolled out again; answered when that has begun.
    fn rollback(&self, group: GroupName, request: RollbackRequest) -> Answer<'_, Planned>;

    /// Says how the rollout that is under way shall go on.
    fn steer(&self, group: GroupName, steer: Steer, request: SteerRequest) -> Answer<'_, RolloutStatus>;

    /// Begins a graceful stop of this node; returns at once.
    fn stop(&self);
}

/// The nodes of one process.
pub trait Nodes: Send + Sync + 'static {
    /// The nodes that run now, in a fixed order.
    fn list(&self) -> Vec<Arc<dyn Control>>;

    /// Ends a node as a crash would: no demotion, no farewell to the coordinator. For `bellwether dev` only.
    fn kill(&self, node: NodeId) -> Answer<'_, ()> {
        Box::pin(async move {
            Err(ControlError::BadRequest(format!(
                "{node} cannot be killed through the admin API: only `bellwether dev` allows it; to try a crash, send SIGKILL to the \
                 process"
            )))
        })
    }
}

/// The one node of a `bellwether run`.
pub(super) struct One(pub(super) Arc<dyn Control>);

impl Nodes for One {
    fn list(&self) -> Vec<Arc<dyn Control>> {
        vec![Arc::clone(&self.0)]
    }
}
