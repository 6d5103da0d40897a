//! Components from and for the other nodes of a group.

use std::sync::Arc;
use std::time::Duration;

use bellwether_core::command::Answer;
use bellwether_core::event::{Ask, Asker};
use bellwether_core::id::{GroupName, NodeId};
use bellwether_core::member::Member;
use bellwether_core::work::WorkError;
use bellwether_source::store::Store;
use bellwether_source::{Attempt, Digest, Held, Holders};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::peers::Part;
use crate::shared::NodeShared;

/// How long the coordinator may take to say who leads.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);

/// Nodes that are asked for one component.
const MOST_ASKED: usize = 8;

/// Asks the other nodes: the leader first, who surely runs something, then the members that are known here.
pub(crate) struct OtherNodes(pub Arc<NodeShared>);

impl OtherNodes {
    async fn candidates(&self, group: &GroupName) -> Vec<Arc<Member>> {
        let Some(shared) = self.0.groups.get(group) else { return Vec::new() };
        let asking = self.0.ask(group, Asker::Operator, Ask::Leader);
        let leader = match tokio::time::timeout(LEADER_PATIENCE, asking).await {
            Ok(Some(Answer::Leader(Ok(leader)))) => leader,
            _ => None,
        };
        let leader = leader
            .map(|leader| Arc::new(Member { id: leader.id, address: leader.address, labels: Default::default() }));
        let mut found: Vec<Arc<Member>> = Vec::new();
        for member in leader.into_iter().chain(shared.members().iter().cloned()) {
            if member.id != shared.this.id && found.iter().all(|known| known.id != member.id) {
                found.push(member);
            }
        }
        found.truncate(MOST_ASKED);
        found
    }
}

impl Holders for OtherNodes {
    fn fetch(&self, group: GroupName, digest: Digest, most: u64) -> BoxFuture<'_, Result<Held, Vec<Attempt>>> {
        async move {
            let mut attempts = Vec::new();
            for member in self.candidates(&group).await {
                match self.0.peers.fetch(&member, &group, &digest, most).await {
                    Ok((bytes, signatures)) => {
                        return Ok(Held { bytes, signatures, node: format!("node {}", member.id) });
                    }
                    Err(error) => attempts.push(Attempt::new(format!("node {}", member.id), error.to_string())),
                }
            }
            if attempts.is_empty() {
                attempts.push(Attempt::new("other nodes", "none of the group is known yet"));
            }
            Err(attempts)
        }
        .boxed()
    }
}

/// A part of a component, for a peer: only of what the group runs here or can go back to.
pub(crate) async fn part(
    shared: &NodeShared,
    store: Option<Store>,
    (group, recipient): (GroupName, NodeId),
    digest: Digest,
    (offset, most): (u64, usize),
) -> Result<Part, WorkError> {
    let known = shared.groups.get(&group).is_some_and(|group| group.this.id == recipient);
    if !known {
        return Err(WorkError::UnknownMember);
    }
    let none = || WorkError::Other(format!("it does not hold {digest} for the group {group}"));
    let store = store.filter(|store| store.is_pinned(&digest, group.as_str())).ok_or_else(none)?;
    let read = tokio::task::spawn_blocking(move || {
        let (data, whole) = store.part(&digest, offset, most)?;
        let signatures = if offset == 0 { store.signatures(&digest) } else { Vec::new() };
        Some(Part { data, whole, signatures: bellwether_source::signature::write(&signatures) })
    });
    read.await.ok().flatten().ok_or_else(none)
}
