//! Watches: those that fire once, and lasting ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellwether_core::event::SessionEvent;
use bellwether_core::id::{SessionId, Tag};

use super::tree::{Change, split};

/// What a watch looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A znode's data and its deletion.
    Data,
    /// A znode's list of children and its deletion.
    Children,
    /// Each child, until something becomes of the znode itself.
    Lasting,
}

type Owner = (i64, u64);

/// The watches of all sessions, and what they have told that was not yet asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Watches {
    by_path: BTreeMap<Arc<str>, BTreeSet<(Kind, Owner)>>,
    by_owner: BTreeMap<Owner, (Arc<str>, Kind)>,
    told: Vec<(SessionId, SessionEvent)>,
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
        self.told.retain(|(by, event)| *by != session || event.watch() != Some(tag));
    }

    pub(super) fn forget_session(&mut self, session: SessionId) {
        let owners: Vec<Owner> =
            self.by_owner.range((session.0, u64::MIN)..=(session.0, u64::MAX)).map(|(owner, _)| *owner).collect();
        for owner in owners {
            self.remove(owner);
        }
        self.told.retain(|(by, _)| *by != session);
    }

    /// The session has lost its connection.
    pub(super) fn forget_lasting(&mut self, session: SessionId) {
        let all = self.by_owner.range((session.0, u64::MIN)..=(session.0, u64::MAX));
        let lasting: Vec<Tag> =
            all.filter(|(_, (_, kind))| *kind == Kind::Lasting).map(|((_, tag), _)| Tag(*tag)).collect();
        lasting.into_iter().for_each(|tag| self.forget(session, tag));
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
                Change::Created(path) => {
                    self.fire_at(path, &[Kind::Lasting]);
                    self.fire_at(split(path).0, &[Kind::Children]);
                    self.tell_of(path);
                }
                Change::Written(path) => {
                    self.fire_at(path, &[Kind::Data, Kind::Lasting]);
                    self.tell_of(path);
                }
                Change::Deleted(path) => {
                    self.fire_at(path, &[Kind::Data, Kind::Children, Kind::Lasting]);
                    self.fire_at(split(path).0, &[Kind::Children]);
                    self.tell_of(path);
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
            self.told.push((SessionId(owner.0), SessionEvent::Fired { tag: Tag(owner.1) }));
        }
    }

    /// Tells those who watch the children of the parent.
    fn tell_of(&mut self, path: &str) {
        let (parent, name) = split(path);
        let watches = self.by_path.get(parent).into_iter().flatten().filter(|(kind, _)| *kind == Kind::Lasting);
        self.told.extend(watches.map(|(_, (session, tag))| {
            (SessionId(*session), SessionEvent::ChildChanged { tag: Tag(*tag), name: name.to_owned() })
        }));
    }

    pub(super) fn take_told(&mut self) -> Vec<(SessionId, SessionEvent)> {
        std::mem::take(&mut self.told)
    }

    pub(super) fn count(&self) -> usize {
        self.by_owner.len()
    }
}
