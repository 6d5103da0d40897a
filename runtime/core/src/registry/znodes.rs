//! Which znodes stand for which members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{NodeId, SessionId};
use crate::member::Member;
use crate::members::{Members, Registration};
use crate::request::Stat;

/// The znodes of the registry that are known, and the members that they stand for. A member may have several, when the znode of a session
/// that it had before has not run out yet, or when the answer to a creation was lost: the latest counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Znodes {
    known: BTreeMap<String, Registration>,
    /// Names whose znodes hold no member.
    foreign: BTreeSet<String>,
    /// The names of each member's znodes, by the transaction that made them.
    of: BTreeMap<(NodeId, i64), String>,
    /// Whose znodes have changed since it was looked at last what they stand for.
    touched: BTreeSet<NodeId>,
    members: Members,
}

impl Znodes {
    pub fn knows(&self, name: &str) -> bool {
        self.known.contains_key(name) || self.foreign.contains(name)
    }

    /// A znode was read; none if there is none of this name.
    pub fn put(&mut self, name: String, found: Option<(&[u8], &Stat)>) {
        self.remove(&name);
        let Some((data, stat)) = found else { return };
        let Ok(member) = serde_json::from_slice::<Member>(data) else {
            self.foreign.insert(name);
            return;
        };
        let id = member.id.clone();
        self.known.insert(name.clone(), Registration { member: Arc::new(member), made: stat.czxid, owner: stat.owner });
        self.of.insert((id.clone(), stat.czxid), name);
        self.touched.insert(id);
    }

    fn remove(&mut self, name: &str) {
        self.foreign.remove(name);
        if let Some(registration) = self.known.remove(name) {
            let id = registration.member.id.clone();
            self.of.remove(&(id.clone(), registration.made));
            self.touched.insert(id);
        }
    }

    /// Forgets all others.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.known.keys().chain(&self.foreign).filter(|name| !keep(name)).cloned().collect();
        gone.iter().for_each(|name| self.remove(name));
    }

    /// Looks at the znodes of a session again: which of them count depends on more than themselves.
    pub fn touch_those_of(&mut self, session: Option<SessionId>) {
        let ids = self.known.values().filter(|registration| registration.owner == session);
        self.touched.extend(ids.map(|registration| registration.member.id.clone()));
    }

    /// The members that the znodes stand for, and the names of the ghosts among them: registrations of a session that are not its latest,
    /// since the answers to them were lost. `mine` is this node's session and `own` the name of its own znode, unless it is not settled
    /// which that is.
    pub fn settle(&mut self, mine: Option<SessionId>, own: Option<&str>) -> (Members, Vec<String>) {
        let mut ghosts = Vec::new();
        for id in std::mem::take(&mut self.touched) {
            let mut counts: Option<(&String, &Registration)> = None;
            let names = self.of.range((id.clone(), i64::MIN)..=(id.clone(), i64::MAX)).map(|(_, name)| name);
            for (name, registration) in names.filter_map(|name| self.known.get_key_value(name)) {
                if registration.owner == mine && own.is_some_and(|own| own != name) {
                    ghosts.push(name.clone());
                } else if let Some((earlier, before)) = counts.replace((name, registration))
                    && before.owner == registration.owner
                {
                    ghosts.push(earlier.clone());
                }
            }
            self.members.put(&id, counts.map(|(_, registration)| registration));
        }
        (self.members.clone(), ghosts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Jitter;
    use crate::member::MembershipChange;

    const MINE: SessionId = SessionId(1);

    /// What a registry holds: by name, the id, the transaction and the session.
    type Truth = BTreeMap<String, (String, i64, SessionId)>;

    fn put(znodes: &mut Znodes, truth: &Truth, name: &str) {
        let found = truth.get(name).map(|(id, made, owner)| {
            let data = format!("{{\"id\":\"{id}\",\"address\":\"h:{made}\"}}");
            (data, Stat { czxid: *made, owner: Some(*owner), ..Stat::default() })
        });
        znodes.put(name.to_owned(), found.as_ref().map(|(data, stat)| (data.as_bytes(), stat)));
    }

    /// Who counts, looked at in the plainest way: of each id the latest, and no ghost.
    fn expected(truth: &Truth, own: &str) -> BTreeMap<String, i64> {
        let ghost = |name: &String, owner: SessionId| owner == MINE && name != own;
        let mut counts = BTreeMap::<String, i64>::new();
        for (_, (id, made, _)) in truth.iter().filter(|(name, (_, _, owner))| !ghost(name, *owner)) {
            let latest = counts.entry(id.clone()).or_insert(*made);
            *latest = (*latest).max(*made);
        }
        counts
    }

    fn made(members: &Members) -> BTreeMap<String, i64> {
        let made = |member: &Arc<Member>| member.address.trim_start_matches("h:").parse().unwrap();
        members.iter().map(|member| (member.id.to_string(), made(member))).collect()
    }

    /// A guest that is told of changes alone knows what is.
    fn told(known: &mut BTreeMap<String, i64>, change: Option<MembershipChange>) {
        let Some(change) = change else { return };
        let stand =
            |member: &Arc<Member>| (member.id.to_string(), member.address.trim_start_matches("h:").parse().unwrap());
        for id in &change.left {
            assert!(known.remove(id.as_str()).is_some(), "{id} left and was not there");
        }
        for (id, made) in change.joined.iter().map(stand) {
            assert_eq!(known.insert(id, made), None);
        }
        for (id, made) in change.changed.iter().map(stand) {
            assert!(known.insert(id, made).is_some_and(|before| before != made));
        }
    }

    #[test]
    fn whatever_happens_the_latest_of_each_counts_and_changes_lead_there() {
        for seed in 0..300 {
            let mut rng = Jitter::new(seed);
            let mut below = |n: u64| rng.next() % n;
            // Few ids, so that they meet; or so many that the views are deep.
            let ids = [4, 40, 400][below(3) as usize];
            let (mut znodes, mut truth, mut guest) = (Znodes::default(), Truth::new(), BTreeMap::new());
            let (mut before, mut zxid) = (Members::default(), 0);
            for _ in 0..60 {
                for _ in 0..1 + below(ids / 2) {
                    zxid += 1;
                    let name = format!("m_{:03}", below(ids * 2));
                    match below(3) {
                        0 => drop(truth.remove(&name)),
                        // Now and then of this session, whose own znode is another.
                        _ => {
                            drop(truth.insert(
                                name.clone(),
                                (format!("w{}", below(ids)), zxid, SessionId(1 + below(20) as i64)),
                            ))
                        }
                    }
                    put(&mut znodes, &truth, &name);
                }
                if below(10) == 0 {
                    let gone = format!("m_{:03}", below(ids * 2));
                    truth.retain(|name, _| *name > gone);
                    znodes.retain(|name| *name > *gone);
                }
                let (members, ghosts) = znodes.settle(Some(MINE), Some("m_000"));
                assert_eq!(made(&members), expected(&truth, "m_000"), "seed {seed}");
                assert!(ghosts.iter().all(|ghost| truth.contains_key(ghost)));
                told(&mut guest, before.change_to(&members, 1));
                assert_eq!(guest, made(&members), "seed {seed}");
                assert_eq!(members.change_to(&members.clone(), 1), None);
                let (again, none) = znodes.settle(Some(MINE), Some("m_000"));
                assert!(again.is_same(&members) && none.is_empty(), "nothing has happened");
                before = members;
            }
        }
    }

    #[test]
    fn the_change_names_who_came_who_changed_and_who_left() {
        let view = |of: &[(&str, i64)]| {
            let (mut znodes, mut truth) = (Znodes::default(), Truth::new());
            for (id, made) in of {
                truth.insert(format!("m_{made}"), ((*id).to_owned(), *made, SessionId(*made)));
                put(&mut znodes, &truth, &format!("m_{made}"));
            }
            znodes.settle(None, None).0
        };
        let (told, now) = (view(&[("a", 1), ("b", 2), ("c", 3), ("e", 4)]), view(&[("b", 2), ("c", 7), ("d", 8)]));
        let change = told.change_to(&now, 4).unwrap();
        let ids = |of: &[Arc<Member>]| of.iter().map(|member| member.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&change.joined), ["d"]);
        assert_eq!(ids(&change.changed), ["c"]);
        assert_eq!(change.left, [NodeId::new("a").unwrap(), NodeId::new("e").unwrap()]);
        assert_eq!(change.version, 4);
        assert_eq!(now.change_to(&now.clone(), 5), None);
    }

    #[test]
    fn ghosts_are_registrations_of_a_session_that_are_not_its_latest() {
        let (mut znodes, mut truth) = (Znodes::default(), Truth::new());
        for (name, id, made, owner) in
            [("m_1", "a", 1, 1), ("m_2", "a", 2, 1), ("m_3", "b", 3, 7), ("m_4", "b", 4, 7), ("m_5", "b", 5, 8)]
        {
            truth.insert(name.to_owned(), (id.to_owned(), made, SessionId(owner)));
            put(&mut znodes, &truth, name);
        }
        // While it is not settled which is ours, the latest is taken for it.
        assert_eq!(znodes.settle(Some(MINE), None).1, ["m_1", "m_3"]);
        znodes.touch_those_of(Some(MINE));
        assert_eq!(znodes.settle(Some(MINE), Some("m_1")).1, ["m_2"]);
        znodes.touch_those_of(Some(MINE));
        let (members, ghosts) = znodes.settle(Some(MINE), Some(""));
        assert_eq!(ghosts, ["m_1", "m_2"]);
        assert_eq!(made(&members), BTreeMap::from([("b".to_owned(), 5)]));
    }
}
