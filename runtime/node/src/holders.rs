//! Components from and for the other nodes of a group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bellwether_core::command::Answer;
use bellwether_core::event::{Ask, Asker};
use bellwether_core::id::{GroupName, NodeId};
use bellwether_core::member::Member;
use bellwether_core::release::{ReleaseOp, ReleaseReply};
use bellwether_core::work::WorkError;
use bellwether_source::store::Store;
use bellwether_source::{Attempt, Digest, Held, Holders};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::peers::Part;
use crate::shared::NodeShared;

/// How long the coordinator may take to say who leads.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);

/// How long the coordinator may take to say who is in the group.
const GROUP_PATIENCE: Duration = Duration::from_secs(10);

/// Nodes that are known here and asked for one component, and those that the coordinator knows besides.
const MOST_ASKED: [usize; 2] = [8, 32];

/// Asks the other nodes: the leader first, then the members that are known here, then whoever the coordinator knows.
pub(crate) struct OtherNodes(pub Arc<NodeShared>);

impl OtherNodes {
    /// The leader, and the members that this node has heard of.
    async fn known(&self, group: &GroupName) -> Vec<Arc<Member>> {
        let asking = self.0.ask(group, Asker::Operator, Ask::Leader);
        let leader = match tokio::time::timeout(LEADER_PATIENCE, asking).await {
            Ok(Some(Answer::Leader(Ok(leader)))) => leader,
            _ => None,
        };
        let leader = leader.map(|leader| member(leader.id, leader.address));
        let members = self.0.groups.get(group).map(|shared| shared.members());
        leader.into_iter().chain(members.iter().flat_map(|members| members.iter().cloned())).collect()
    }

    /// All nodes of the group, those first that say they run what has this digest. Whoever a release was deployed by way of has it
    /// too, and does not say so. Each node asks the others in an order of its own, so that not all turn to the same one.
    async fn registered(&self, group: &GroupName, digest: &Digest) -> Vec<Arc<Member>> {
        let asking = self.0.ask(group, Asker::Operator, Ask::Release(ReleaseOp::Nodes));
        let Ok(Some(Answer::Release(Ok(reply)))) = tokio::time::timeout(GROUP_PATIENCE, asking).await else {
            return Vec::new();
        };
        let ReleaseReply { nodes, addresses, .. } = *reply;
        let digest = digest.hex();
        let runs =
            |node: &NodeId| nodes.get(node).and_then(Option::as_ref).is_some_and(|report| report.digest == digest);
        let this = self.0.groups.get(group).map(|shared| shared.this.id.clone());
        let mut all: Vec<_> = addresses.into_iter().map(|(node, address)| member(node, address)).collect();
        all.sort_by_cached_key(|node| (!runs(&node.id), Some(&node.id) < this.as_ref()));
        all
    }
}

/// A member of whom no labels are known.
fn member(id: NodeId, address: String) -> Arc<Member> {
    Arc::new(Member { id, address, labels: BTreeMap::new() })
}

impl Holders for OtherNodes {
    fn fetch(&self, group: GroupName, digest: Digest, most: u64) -> BoxFuture<'_, Result<Held, Vec<Attempt>>> {
        async move {
            let mut asked: BTreeSet<NodeId> =
                self.0.groups.get(&group).map(|shared| shared.this.id.clone()).into_iter().collect();
            let mut attempts = Vec::new();
            for (round, limit) in MOST_ASKED.into_iter().enumerate() {
                let found = match round {
                    0 => self.known(&group).await,
                    _ => self.registered(&group, &digest).await,
                };
                let fresh: Vec<_> =
                    found.into_iter().filter(|member| asked.insert(member.id.clone())).take(limit).collect();
                for member in fresh {
                    let why = match self.0.peers.fetch(&member, &group, &digest, most).await {
                        Ok((bytes, signatures)) => {
                            let given = Digest::of(&bytes);
                            if given == digest {
                                return Ok(Held { bytes, signatures, node: format!("node {}", member.id) });
                            }
                            format!("it gave {given}")
                        }
                        Err(error) => error.to_string(),
                    };
                    attempts.push(Attempt::new(format!("node {}", member.id), why));
                }
            }
            if attempts.is_empty() {
                attempts.push(Attempt::new("other nodes", "none of the group is known yet"));
            }
            Err(told(attempts))
        }
        .boxed()
    }
}

/// Attempts that are told one by one; of further ones, how many there were.
const TOLD: usize = 8;

fn told(mut attempts: Vec<Attempt>) -> Vec<Attempt> {
    if attempts.len() > TOLD {
        let more = attempts.split_off(TOLD).len();
        attempts.push(Attempt::new(format!("{more} further nodes"), "none of them gave it"));
    }
    attempts
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
