//! The members, and whom to give work to.

use std::collections::{BTreeMap, BTreeSet};

/// The members as `on-members-changed` tells of them, and what experience says of them.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    members: BTreeSet<String>,
    /// Members that failed lately, and the round from which on they are tried again.
    resting: BTreeMap<String, u64>,
    /// Who failed last at a chunk.
    failed_at: BTreeMap<u64, String>,
    round: u64,
    turn: usize,
}

impl Roster {
    pub(crate) fn update(&mut self, came: impl IntoIterator<Item = String>, left: &[String]) {
        for member in left {
            self.members.remove(member);
            self.resting.remove(member);
        }
        for member in came {
            self.resting.remove(&member);
            self.members.insert(member);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Forgets what was learnt about chunks: they mean something else from now on.
    pub(crate) fn forget_chunks(&mut self) {
        self.failed_at.clear();
    }

    /// Who shall do which of the chunks: everybody in turn, except that a member that failed lately rests if others are
    /// there, and that a chunk goes to another member than the one that failed at it.
    pub(crate) fn assign(&mut self, chunks: &[u64]) -> Vec<(u64, String)> {
        self.round += 1;
        let round = self.round;
        self.resting.retain(|_, until| *until > round);
        let mut ready: Vec<&String> =
            self.members.iter().filter(|member| !self.resting.contains_key(*member)).collect();
        if ready.is_empty() {
            ready = self.members.iter().collect();
        }
        let mut assigned = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let turn = self.turn;
            let pick = |offset: usize| ready.get((turn + offset) % ready.len().max(1)).copied();
            let Some(first) = pick(0) else { break };
            let to = if self.failed_at.get(chunk) == Some(first) { pick(1).unwrap_or(first) } else { first };
            assigned.push((*chunk, to.clone()));
            self.turn = self.turn.wrapping_add(1);
        }
        assigned
    }

    pub(crate) fn succeeded(&mut self, chunk: u64) {
        self.failed_at.remove(&chunk);
    }

    /// Notes a failure; `rounds` is for how many rounds the member shall rest.
    pub(crate) fn failed(&mut self, chunk: u64, member: &str, rounds: u64) {
        self.failed_at.insert(chunk, member.to_owned());
        if rounds > 0 {
            self.resting.insert(member.to_owned(), self.round + rounds + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(members: &[&str]) -> Roster {
        let mut roster = Roster::default();
        roster.update(members.iter().map(|member| (*member).to_owned()), &[]);
        roster
    }

    fn who(roster: &mut Roster, chunks: &[u64]) -> Vec<String> {
        roster.assign(chunks).into_iter().map(|(_, member)| member).collect()
    }

    #[test]
    fn everybody_has_a_turn() {
        assert_eq!(who(&mut roster(&["a", "b", "c"]), &[0, 1, 2, 3, 4]), ["a", "b", "c", "a", "b"]);
        assert!(who(&mut roster(&[]), &[0, 1]).is_empty());
    }

    #[test]
    fn a_chunk_is_done_again_by_another_member() {
        let mut roster = roster(&["a", "b"]);
        for _ in 0..4 {
            let (chunk, member) = roster.assign(&[7]).remove(0);
            roster.failed(chunk, &member, 0);
            assert_ne!(roster.assign(&[7]).remove(0).1, member);
        }
    }

    #[test]
    fn a_member_that_fails_rests_for_a_while_if_others_are_there() {
        let mut roster = roster(&["a", "b"]);
        roster.assign(&[]);
        roster.failed(0, "a", 2);
        assert_eq!(who(&mut roster, &[1, 2]), ["b", "b"]);
        assert_eq!(who(&mut roster, &[1, 2]), ["b", "b"]);
        assert!(who(&mut roster, &[1, 2]).contains(&"a".to_owned()));
        roster.failed(0, "a", 2);
        roster.failed(1, "b", 2);
        assert_eq!(who(&mut roster, &[5, 6]).len(), 2);
        roster.update(["c".to_owned()], &["b".to_owned()]);
        assert_eq!(who(&mut roster, &[5, 6]), ["c", "c"]);
    }
}
