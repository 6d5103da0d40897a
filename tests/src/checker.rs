//! Judges what a cluster has done by the effects that its nodes noted (see `runtime/node/src/effects.rs`), all stamped by one clock.
//!
//! What must hold:
//! - at every target (a key of the state; a worker) what is accepted carries epochs that never decrease;
//! - a guest that was told that it leads has been told that it does not, or was stopped, before a guest of a later term is told.
//!
//! The second has conditions, so a test says what it did: whom it killed and paused, and when it meddled with znodes. What a pause
//! or an operator excuses is the overlap alone: nothing excuses a stale effect that was accepted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::cluster::Cluster;

/// What the nodes must log for this: goes into `BELLWETHER_LOG`.
pub const LOG: &str = "info,bellwether::effects=debug";
/// How late after a pause its consequences may still show.
const SETTLING_NS: u64 = 500_000_000;

/// `CLOCK_BOOTTIME` now, in nanoseconds: the clock of the nodes' stamps.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// What took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `on-elected` was entered.
    ElectedEntered,
    /// `on-elected` was left.
    ElectedLeft,
    /// `on-demoted` was entered.
    DemotedEntered,
    /// `on-demoted` was left.
    DemotedLeft,
    /// An instance that believed that it leads was stopped.
    Stopped,
    /// A write to this key was accepted and left this version; none if it deleted the key.
    Write(String, Option<u64>),
    /// A task was accepted by the node.
    Task,
}

/// One effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Where.
    pub node: String,
    /// In which group.
    pub group: String,
    /// Of which term.
    pub epoch: u64,
    /// When, see [`now_ns`].
    pub at: u64,
    /// By which instance; 0 where that does not matter.
    pub instance: u64,
    /// What.
    pub kind: Kind,
}

impl Effect {
    /// Reads a line of a node's log; none if it is about something else.
    #[must_use]
    pub fn parse(line: &Value) -> Option<Self> {
        if line["target"] != "bellwether::effects" {
            return None;
        }
        let fields = &line["fields"];
        let kind = match fields["effect"].as_str()? {
            "elected-entered" => Kind::ElectedEntered,
            "elected-left" => Kind::ElectedLeft,
            "demoted-entered" => Kind::DemotedEntered,
            "demoted-left" => Kind::DemotedLeft,
            "stopped" => Kind::Stopped,
            "write-accepted" => Kind::Write(fields["key"].as_str()?.to_owned(), fields["version"].as_u64()),
            "task-accepted" => Kind::Task,
            _ => return None,
        };
        Some(Self {
            node: line["node"].as_str()?.to_owned(),
            group: line["group"].as_str()?.to_owned(),
            epoch: line["epoch"].as_u64()?,
            at: fields["at_ns"].as_u64()?,
            instance: fields["instance"].as_u64().unwrap_or(0),
            kind,
        })
    }
}

/// From when to when a guest believed that it leads. `until` is `u64::MAX` for one that still does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Where.
    pub node: String,
    /// In which group.
    pub group: String,
    /// The term.
    pub epoch: u64,
    /// When `on-elected` was entered.
    pub from: u64,
    /// When `on-demoted` was left, or the guest stopped, or the node killed.
    pub until: u64,
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// An older epoch was accepted where a newer one had been.
    Stale {
        /// Where: a key or a worker.
        target: String,
        /// What was accepted.
        accepted: Effect,
        /// What had been accepted before.
        before: Effect,
    },
    /// Two writes left the same version of a key.
    Twice {
        /// One of them.
        one: Effect,
        /// The other.
        other: Effect,
    },
    /// A later term began before this one had ended.
    Overlap {
        /// The earlier term.
        earlier: Term,
        /// The later one.
        later: Term,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { target, accepted, before } => write!(
                f,
                "{target} accepted e{} of {} after it had accepted e{}: {accepted:?} after {before:?}",
                accepted.epoch, accepted.node, before.epoch
            ),
            Self::Twice { one, other } => write!(f, "two writes left the same version: {one:?} and {other:?}"),
            Self::Overlap { earlier, later } => {
                let by = Duration::from_nanos(earlier.until.saturating_sub(later.from));
                write!(
                    f,
                    "{} was told of e{} at {} while {} still led with e{}, for {by:?} more",
                    later.node, later.epoch, later.from, earlier.node, earlier.epoch
                )
            }
        }
    }
}

/// What a history contains, when nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Terms of leadership.
    pub terms: usize,
    /// Writes that were accepted.
    pub writes: usize,
    /// Tasks that were accepted.
    pub tasks: usize,
    /// The shortest time between the end of a term and the beginning of a later one; none if there was but one term.
    pub closest: Option<Duration>,
    /// Overlaps that a pause or an operator excuses.
    pub excused: usize,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct History {
    effects: Vec<Effect>,
    killed: Vec<(String, u64, u64)>,
    paused: Vec<(String, u64, u64)>,
    meddled: Vec<(u64, u64)>,
    /// When the state was deleted: its versions begin anew.
    deleted: Vec<(u64, u64)>,
}

impl History {
    /// Adds effects.
    pub fn extend(&mut self, effects: impl IntoIterator<Item = Effect>) {
        self.effects.extend(effects);
        self.effects.sort_by_key(|effect| effect.at);
    }

    /// Takes what the nodes have logged so far, in place of what was taken before.
    pub fn read(&mut self, cluster: &Cluster) {
        self.effects.clear();
        let lines = cluster.nodes().iter().flat_map(|node| node.log());
        self.extend(lines.filter_map(|line| Effect::parse(&line.json)));
    }

    /// The node was killed: it ran until `from` and was dead by `to`.
    pub fn killed(&mut self, node: &str, from: u64, to: u64) {
        self.killed.push((node.to_owned(), from, to));
    }

    /// The node stood still from `from` to `to`.
    pub fn paused(&mut self, node: &str, from: u64, to: u64) {
        self.paused.push((node.to_owned(), from, to));
    }

    /// An operator has deleted the state between `from` and `to`: its versions begin anew, and within that time nobody can say which
    /// of two writes of one version came first.
    pub fn state_deleted(&mut self, from: u64, to: u64) {
        self.deleted.push((from, to));
    }

    /// An operator has taken leadership away between `from` and `to`, when all had been told.
    pub fn meddled(&mut self, from: u64, to: u64) {
        self.meddled.push((from, to));
    }

    /// All effects, by time.
    #[must_use]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// All terms, by their beginning.
    #[must_use]
    pub fn terms(&self) -> Vec<Term> {
        let mut terms: Vec<Term> = Vec::new();
        let mut open: BTreeMap<(&str, &str, u64), usize> = BTreeMap::new();
        for effect in &self.effects {
            let key = (effect.node.as_str(), effect.group.as_str(), effect.instance);
            match effect.kind {
                Kind::ElectedEntered => {
                    // It was dead by the end of a killing, and somebody else may have known before we did; so what it still did counts.
                    let killed = self.killed.iter().filter(|(node, _, to)| *node == effect.node && *to >= effect.at);
                    let until = killed.map(|(node, from, to)| {
                        let last = self.effects.iter().rfind(|effect| effect.node == *node && effect.at <= *to);
                        last.map_or(*from, |last| last.at.max(*from))
                    });
                    open.insert(key, terms.len());
                    terms.push(Term {
                        node: effect.node.clone(),
                        group: effect.group.clone(),
                        epoch: effect.epoch,
                        from: effect.at,
                        until: until.min().unwrap_or(u64::MAX),
                    });
                }
                Kind::DemotedLeft | Kind::Stopped => {
                    if let Some(index) = open.remove(&key) {
                        terms[index].until = effect.at;
                    }
                }
                _ => {}
            }
        }
        terms
    }

    fn excused(&self, earlier: &Term, later: &Term) -> bool {
        let when = later.from;
        let paused = self
            .paused
            .iter()
            .any(|(node, from, to)| *node == earlier.node && (*from..=to.saturating_add(SETTLING_NS)).contains(&when));
        paused || self.meddled.iter().any(|(from, to)| (*from..=*to).contains(&when))
    }

    /// What must not be, and how much there is of the rest.
    #[must_use]
    pub fn judge(&self) -> (Vec<Violation>, Summary) {
        let mut wrong = Vec::new();
        let mut summary = Summary::default();
        self.judge_terms(&mut wrong, &mut summary);
        self.judge_writes(&mut wrong, &mut summary);
        self.judge_tasks(&mut wrong, &mut summary);
        (wrong, summary)
    }

    /// What there is, if nothing is wrong.
    ///
    /// # Errors
    /// Every violation.
    pub fn check(&self) -> Result<Summary> {
        let (wrong, summary) = self.judge();
        if wrong.is_empty() {
            return Ok(summary);
        }
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        bail!("{} violations of what is promised:\n{}", lines.len(), lines.join("\n"))
    }

    fn judge_terms(&self, wrong: &mut Vec<Violation>, summary: &mut Summary) {
        let terms = self.terms();
        summary.terms = terms.len();
        for earlier in &terms {
            // Another instance of the same term takes over at a swap; that one is called restart or swap, not an election.
            let later = terms.iter().filter(|later| later.group == earlier.group && later.epoch > earlier.epoch);
            let Some(later) = later.min_by_key(|later| later.from) else { continue };
            if earlier.until <= later.from {
                let gap = Duration::from_nanos(later.from - earlier.until);
                summary.closest = Some(summary.closest.map_or(gap, |closest| closest.min(gap)));
            } else if self.excused(earlier, later) {
                summary.excused += 1;
            } else {
                wrong.push(Violation::Overlap { earlier: earlier.clone(), later: later.clone() });
            }
        }
    }

    /// Writes by key, and within a key by version, which is the order in which they took effect. Where an operator has deleted the
    /// state, they begin anew.
    fn judge_writes(&self, wrong: &mut Vec<Violation>, summary: &mut Summary) {
        let mut keys: BTreeMap<(&str, &str, usize), BTreeMap<u64, &Effect>> = BTreeMap::new();
        for effect in &self.effects {
            let Kind::Write(key, version) = &effect.kind else { continue };
            summary.writes += 1;
            let deleted = self.deleted.iter().any(|(from, to)| (*from..=*to).contains(&effect.at));
            let Some(version) = version.filter(|_| !deleted) else { continue };
            let era = self.deleted.iter().filter(|(from, _)| *from < effect.at).count();
            let writes = keys.entry((&effect.group, key, era)).or_default();
            if let Some(one) = writes.insert(version, effect) {
                wrong.push(Violation::Twice { one: one.clone(), other: effect.clone() });
            }
        }
        for ((group, key, _), writes) in keys {
            ascend(&format!("the key {key:?} of {group}"), writes.into_values(), wrong);
        }
    }

    fn judge_tasks(&self, wrong: &mut Vec<Violation>, summary: &mut Summary) {
        let mut workers: BTreeMap<(&str, &str), Vec<&Effect>> = BTreeMap::new();
        for effect in self.effects.iter().filter(|effect| effect.kind == Kind::Task) {
            summary.tasks += 1;
            workers.entry((&effect.group, &effect.node)).or_default().push(effect);
        }
        for ((group, node), tasks) in workers {
            ascend(&format!("the worker {node} of {group}"), tasks.into_iter(), wrong);
        }
    }
}

fn ascend<'a>(target: &str, effects: impl Iterator<Item = &'a Effect>, wrong: &mut Vec<Violation>) {
    let mut newest: Option<&Effect> = None;
    for effect in effects {
        match newest {
            Some(before) if effect.epoch < before.epoch => {
                let (target, accepted, before) = (target.to_owned(), effect.clone(), before.clone());
                wrong.push(Violation::Stale { target, accepted, before });
            }
            _ => newest = Some(effect),
        }
    }
}

/// Waits until exactly one of the nodes that are awake leads `group`, and knows all the others, and only them, as its members.
///
/// # Errors
/// When that does not happen in time.
pub fn at_rest(cluster: &Cluster, group: &str) -> Result<usize> {
    cluster.wait_for(&format!("{group} to be at rest"), crate::cluster::PATIENCE, |cluster| {
        let leader = cluster.leader(group)?;
        let status = cluster.node(leader).group(group).ok()?;
        let awake = cluster.nodes().iter().filter(|node| node.is_awake() && node.id() != cluster.node(leader).id());
        let mut wanted: Vec<&str> = awake.map(|node| node.id()).collect();
        let mut there: Vec<&str> = status["members"].as_array()?.iter().filter_map(|one| one["id"].as_str()).collect();
        wanted.sort_unstable();
        there.sort_unstable();
        (wanted == there).then_some(leader)
    })
}

#[cfg(test)]
mod tests;
