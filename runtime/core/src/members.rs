//! The members of a group at one moment.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::id::{NodeId, SessionId};
use crate::member::{Member, MembershipChange};

/// A member as a znode has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    pub member: Arc<Member>,
    /// The transaction that made it: later ones count.
    pub made: i64,
    pub owner: Option<SessionId>,
}

/// The members of a group, by id. Cloning shares them, and what was the same in two views is still shared when one of them has changed: a
/// join among ten thousand copies, compares and sorts no more than one among ten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(OrdMap<NodeId, Registration>);

impl Members {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The member with this id.
    #[must_use]
    pub fn get(&self, id: &NodeId) -> Option<&Arc<Member>> {
        self.0.get(id).map(|registration| &registration.member)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.0.values().map(|registration| &registration.member)
    }

    /// Whether nothing has happened from one to the other. It may have, and be undone again, where this says no.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }

    /// Leaves everything as it is where nothing changes.
    pub(crate) fn put(&mut self, id: &NodeId, registration: Option<&Registration>) {
        match (self.0.get(id), registration) {
            (before, Some(now)) if before != Some(now) => drop(self.0.insert(id.clone(), now.clone())),
            (Some(_), None) => drop(self.0.remove(id)),
            _ => {}
        }
    }

    /// What leads from what an instance was told to what is.
    pub(crate) fn change_to(&self, now: &Self, version: u64) -> Option<MembershipChange> {
        let mut change = MembershipChange { version, ..MembershipChange::default() };
        for item in self.0.diff(&now.0) {
            match item {
                DiffItem::Add(_, new) => change.joined.push(new.member.clone()),
                DiffItem::Update { old: (_, old), new: (_, new) } if old.made != new.made => {
                    change.changed.push(new.member.clone());
                }
                DiffItem::Update { .. } => {}
                DiffItem::Remove(id, _) => change.left.push(id.clone()),
            }
        }
        let nothing = change.joined.is_empty() && change.changed.is_empty() && change.left.is_empty();
        (!nothing).then_some(change)
    }
}
