//! The proof of leadership, and the watch over what it rests on.

use super::{Election, Outcome, Phase, Purpose};
use crate::candidate::Candidate;
use crate::config::Safeguard;
use crate::id::{Epoch, Tag};
use crate::link::Cx;
use crate::request::{Op, Reply, Request, RequestError};

impl Election {
    /// The check that our znode is still there.
    pub(super) fn standing(&self, own: &Candidate) -> Op {
        let proof = self.safeguards.hold(Safeguard::Proof);
        let path = if proof { self.path(&own.name) } else { self.paths.election.clone() };
        Op::Check { path, version: None }
    }

    /// Proves that this node leads: our znode is there, and those are gone which the list that placed us still had before it.
    /// ZooKeeper checks no absence, but it makes no znode twice: making it, and deleting it at once, is that check.
    pub(super) fn claim(&mut self, cx: &mut Cx<'_>, member: Option<&str>, gone: &[String]) {
        let Some(own) = &self.own else { return self.unsure(cx.now) };
        let leader = serde_json::json!({ "id": cx.node.id, "address": cx.node.address }).to_string();
        let mut operations = vec![
            self.standing(own),
            Op::Set { path: self.paths.epoch.clone(), data: leader.into_bytes().into(), version: None },
        ];
        if let Some(member) = member {
            operations.push(Op::Delete { path: format!("{}/{member}", self.paths.registry), version: None });
        }
        for name in gone {
            let path = self.path(name);
            operations.push(Op::Create { path: path.clone(), data: Vec::new().into() });
            operations.push(Op::Delete { path, version: None });
        }
        self.phase = Phase::Claiming;
        self.ask(cx, Purpose::Claim { round: self.round }, Request::Multi(operations));
    }

    pub(super) fn claimed(&mut self, cx: &mut Cx<'_>, result: Result<Reply, RequestError>) -> Outcome {
        let stats = match result {
            Ok(Reply::Multi(stats)) => stats,
            Err(RequestError::Multi { index, error }) => {
                match (index, *error) {
                    (_, RequestError::NoAuth) => return self.deny(),
                    (0, _) => {
                        self.own = None;
                        self.again_later(cx, "our znode was gone when we claimed");
                    }
                    // Whether those before us are gone was not come to; the list will tell.
                    (2, RequestError::NoNode) => {
                        self.list(cx);
                        return Outcome::MemberGone;
                    }
                    // One before us is there: not the one that we watched, or that one was changed and not deleted.
                    (_, RequestError::NodeExists) => self.list(cx),
                    (_, error) => self.unclear(cx, &Err(error)),
                }
                return Outcome::Nothing;
            }
            result => {
                self.unclear(cx, &result);
                return Outcome::Nothing;
            }
        };
        let Some(Some(stat)) = stats.get(1) else {
            self.again_later(cx, "the answer to the claim lacks the epoch's stat");
            return Outcome::Nothing;
        };
        if cx.link.lease().is_none_or(|lease| lease <= cx.now) {
            self.again_later(cx, "the proof came back when its lease had run out");
            return Outcome::Nothing;
        }
        self.attempts = 0;
        let epoch = Epoch(stat.mzxid.unsigned_abs());
        self.phase = Phase::Leading { epoch, version: stat.version, guard: None };
        self.audit_at = cx.now + cx.rng.around(cx.node.audit);
        self.guard(cx);
        Outcome::Won(epoch)
    }

    pub(super) fn guard(&mut self, cx: &mut Cx<'_>) {
        if let Some(own) = &self.own {
            let request = Request::Get { path: self.path(&own.name), watch: true };
            self.ask(cx, Purpose::Guard { round: self.round }, request);
        }
    }

    pub(super) fn guarded(&mut self, cx: &mut Cx<'_>, tag: Tag, result: &Result<Reply, RequestError>) -> Outcome {
        let ours = matches!(result, Ok(Reply::Data { stat, .. }) if self.is_ours(cx, stat.owner));
        let Phase::Leading { guard, .. } = &mut self.phase else { return Outcome::Nothing };
        match result {
            Ok(Reply::Data { .. }) if ours => {
                if let Some(older) = guard.replace(tag) {
                    cx.forget(older);
                }
            }
            Ok(_) | Err(RequestError::NoNode) => {
                self.own = None;
                return Outcome::Superseded;
            }
            // Refused or unknown: the next connection, or the next audit, guards again, and every write checks the znode anyway.
            Err(_) => {}
        }
        Outcome::Nothing
    }
}
