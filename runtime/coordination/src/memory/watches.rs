//! One-shot watches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellwether_core::id::{SessionId, Tag};

use super::tree::{Change, split};

/// What a watch looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A znode's data and its deletion.
    Data,
    /// A znode's list of children and its deletion.
    Children,
}

type Owner = (i64, u64);

/// The watches of all sessions, and those that have fired and were not yet asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Watches {
    by_path: BTreeMap<Arc<str>, BTreeSet<(Kind, Owner)>>,
    by_owner: BTreeMap<Owner, (Arc<str>, Kind)>,
    fired: Vec<Owner>,
}

impl Watches {
    pub(super) fn add(&mut self, session: SessionId, tag: Tag, path: &str, kind: Kind) {
        self.forget(session, tag);
        let owner = (session.0, tag.0);
        let path: Arc<str> = path.into();
        self.by_path.entry(path.clone()).or_default().insert((kind, owner));
        self.by_owner.insert(owner, (path, kind));
    }

    pub(super) fn forget(&mut self, session: SessionId, tag: Tag) {
        let owner = (session.0, tag.0);
        self.remove(owner);
        self.fired.retain(|fired| *fired != owner);
    }

    pub(super) fn forget_session(&mut self, session: SessionId) {
        let owners: Vec<Owner> =
            self.by_owner.range((session.0, u64::MIN)..=(session.0, u64::MAX)).map(|(owner, _)| *owner).collect();
        for owner in owners {
            self.remove(owner);
        }
        self.fired.retain(|(fired, _)| *fired != session.0);
    }

    fn remove(&mut self, owner: Owner) {
        if let Some((path, kind)) = self.by_owner.remove(&owner)
            && let Some(watches) = self.by_path.get_mut(&path)
        {
            watches.remove(&(kind, owner));
            if watches.is_empty() {
                self.by_path.remove(&path);
            }
        }
    }

    pub(super) fn fire(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Created(path) => self.fire_at(split(path).0, &[Kind::Children]),
                Change::Written(path) => self.fire_at(path, &[Kind::Data]),
                Change::Deleted(path) => {
                    self.fire_at(path, &[Kind::Data, Kind::Children]);
                    self.fire_at(split(path).0, &[Kind::Children]);
                }
            }
        }
    }

    fn fire_at(&mut self, path: &str, kinds: &[Kind]) {
        let Some(watches) = self.by_path.get(path) else { return };
        let owners: Vec<Owner> =
            watches.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, owner)| *owner).collect();
        for owner in owners {
            self.remove(owner);
            self.fired.push(owner);
        }
    }

    pub(super) fn take_fired(&mut self) -> Vec<(SessionId, Tag)> {
        self.fired.drain(..).map(|(session, tag)| (SessionId(session), Tag(tag))).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.by_owner.len()
    }
}
