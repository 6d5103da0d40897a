//! What a group shall run: the document that its znode `release` holds, what each node reports, and what operators may change.
//!
//! Everything here is a pure function of its input; `rollout` reads, follows and writes by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// The format of the documents that this version writes, and the newest that it understands.
pub const FORMAT: u32 = 1;
/// Releases that are remembered.
pub const HISTORY: usize = 20;
/// The most that a document may take, as bytes of JSON, for a release to be deployed.
pub const MAX_DOCUMENT: usize = 512 * 1024;
/// The most that one wanted release may take of it: there is room for what runs, what comes and the nodes' names.
pub const MAX_WANTED: usize = 96 * 1024;
/// The most that a reason or a name of a person may take, in bytes.
const MAX_TEXT: usize = 1024;

/// A component, wherever it is to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where it can be obtained.
    pub reference: String,
    /// Its SHA-256, in hex: whatever is obtained must have it.
    pub digest: String,
    /// Signatures that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
}

/// What a group shall run. Grants and limits stay those of each node's own manifest: who can write to the coordinator must
/// not be able to grant a guest anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The component.
    pub component: Artifact,
    /// Another one for tasks, if tasks have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Artifact>,
    /// The configuration; none for the manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, String>>,
}

impl Wanted {
    /// Whether both are the same release, wherever their components come from.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let digest = |wanted: &Self| wanted.worker.as_ref().map(|worker| worker.digest.clone());
        self.component.digest == other.component.digest && digest(self) == digest(other) && self.config == other.config
    }
}

/// A release that was deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// Grows with each release that is deployed to the group; never used twice.
    pub number: u64,
    /// The earlier release that this one repeats, if it is a way back to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
    /// What it is.
    pub wanted: Wanted,
    /// Who deployed it.
    pub by: String,
    /// When, in seconds since 1970, as the operator's machine had it: for people only.
    pub at: u64,
}

/// What is done about a release that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Every node goes back to the release before.
    #[default]
    Back,
    /// Nothing further happens until an operator says so.
    Halt,
}

/// How a release makes its way through a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// So many nodes run it first.
    pub canaries: u32,
    /// So many nodes may be between releases at once, after that.
    pub max_unavailable: u32,
    /// For so long a wave must have been well before the next begins; zero if the end of its probation suffices.
    #[serde(with = "millis")]
    pub settle: Duration,
    /// An admitted node that is not well after that long fails the rollout.
    #[serde(with = "millis")]
    pub patience: Duration,
    /// What then.
    pub on_failure: OnFailure,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            canaries: 1,
            max_unavailable: 1,
            settle: Duration::ZERO,
            patience: Duration::from_secs(300),
            on_failure: OnFailure::Back,
        }
    }
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// How a rollout goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nodes are admitted, wave by wave.
    Running,
    /// No further node is admitted.
    Paused,
    /// Every node goes back to the release before.
    Back {
        /// Why.
        reason: String,
    },
    /// Something failed, and an operator must say what is to be done.
    Halted {
        /// What.
        reason: String,
    },
}

/// A release on its way through the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The release.
    pub to: Numbered,
    /// How it goes.
    pub policy: Policy,
    /// How it stands.
    pub phase: Phase,
    /// The nodes that shall run it.
    #[serde(default)]
    pub admitted: BTreeSet<NodeId>,
    /// Those of them that did, and were well, when the next wave was admitted.
    #[serde(default)]
    pub settled: BTreeSet<NodeId>,
    /// The node that failed, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<(NodeId, String)>,
    /// Who aborted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<String>,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every node ran the release.
    Done,
    /// It failed, and the group went back.
    Failed {
        /// Why.
        reason: String,
    },
    /// An operator ended it, and the group went back.
    Aborted {
        /// Who.
        by: String,
    },
}

/// A rollout that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The release.
    #[serde(flatten)]
    pub release: Numbered,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a group shall run: the content of its znode `release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The format: a newer one is not understood.
    pub format: u32,
    /// The release that the group runs, but for the nodes that a rollout has admitted; none for each node's manifest.
    #[serde(default)]
    pub current: Option<Numbered>,
    /// The one that is on its way.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// The rollouts that have ended, newest last, a bounded number.
    #[serde(default)]
    pub history: Vec<Past>,
    /// The last number that was given; zero if nothing was ever deployed.
    #[serde(default)]
    pub last: u64,
}

impl Default for Document {
    fn default() -> Self {
        Self { format: FORMAT, current: None, rollout: None, history: Vec::new(), last: 0 }
    }
}

/// How far a node is with what it shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Staging {
    /// It does not run it yet.
    Staging,
    /// It runs it, on probation.
    Proving,
    /// It runs it, and has proved it.
    Settled,
    /// It could not run it, or not for long.
    Failed {
        /// The release.
        number: u64,
        /// How.
        reason: String,
    },
}

/// What a node says of itself in its znode below `running`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The number of the release that it runs; none for its manifest's.
    #[serde(default)]
    pub running: Option<u64>,
    /// That release's id; empty while nothing runs.
    #[serde(default)]
    pub release: String,
    /// The SHA-256 of its component, in hex; empty while nothing runs.
    #[serde(default)]
    pub digest: String,
    /// How far it is.
    pub state: Staging,
    /// Where its peers reach it.
    #[serde(default)]
    pub address: String,
}

impl Report {
    /// Whether the node runs that release (none for its manifest's), and has proved it.
    #[must_use]
    pub fn settled(&self, on: Option<u64>) -> bool {
        self.running == on && self.state == Staging::Settled
    }

    /// How it failed to run that release, if it did.
    #[must_use]
    pub fn failed(&self, on: u64) -> Option<&str> {
        match &self.state {
            Staging::Failed { number, reason } if *number == on => Some(reason),
            _ => None,
        }
    }
}

/// Why a document is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A newer version wrote it.
    #[error(
        "it is of format {found}, and this version of bellwether understands {FORMAT} at most: bring this node up to the version \
         that wrote it"
    )]
    Newer {
        /// The format.
        found: u32,
    },
    /// It is none.
    #[error(
        "it holds no document of bellwether's ({0}): put back what was there, or delete the znode, and the leader puts it back"
    )]
    Garbage(String),
}

/// Why a change of the document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only one rollout at a time.
    #[error("release {number} is on its way ({phase}): wait until it has ended, or abort it")]
    UnderWay {
        /// The release.
        number: u64,
        /// How that rollout stands.
        phase: &'static str,
    },
    /// There is nothing to do.
    #[error("the group runs this release already, as number {number}")]
    Unchanged {
        /// Under which number.
        number: u64,
    },
    /// It was never deployed, or too long ago.
    #[error("there is no release {number} in the group's history; there are {known}")]
    NoSuchNumber {
        /// The number.
        number: u64,
        /// The numbers that there are.
        known: String,
    },
    /// No other release was ever rolled out to the end.
    #[error("the group's history has no earlier release that was rolled out to its end and differs from what runs")]
    NothingEarlier,
    /// No rollout is under way.
    #[error("no rollout is under way")]
    NoRollout,
    /// The rollout does not stand as it would have to.
    #[error("the rollout of release {number} is {phase}: it cannot be {what}")]
    NotNow {
        /// The release.
        number: u64,
        /// How it stands.
        phase: &'static str,
        /// What was asked for.
        what: &'static str,
    },
    /// A policy by which no node would ever be admitted, or every one fail.
    #[error("{0}")]
    BadPolicy(&'static str),
    /// It does not fit.
    #[error("the release takes {size} bytes of JSON, and the most is {most}: shorten its configuration")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The most.
        most: usize,
    },
}

impl Phase {
    /// In one word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Back { .. } => "going back",
            Self::Halted { .. } => "halted",
        }
    }
}

/// Cuts a text to what a document has room for.
fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

/// The nodes of the next wave: workers in the order of their ids, and the leader alone when nobody else is left.
#[must_use]
pub fn next_wave(remaining: &BTreeSet<NodeId>, leader: Option<&NodeId>, size: u32) -> BTreeSet<NodeId> {
    let size = usize::try_from(size.max(1)).unwrap_or(usize::MAX);
    let workers: BTreeSet<NodeId> = remaining.iter().filter(|node| Some(*node) != leader).take(size).cloned().collect();
    if workers.is_empty() { remaining.clone() } else { workers }
}

impl Policy {
    /// The size of a wave: the first, or a later one.
    #[must_use]
    pub fn wave(&self, first: bool) -> u32 {
        if first && self.canaries > 0 { self.canaries } else { self.max_unavailable }
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.max_unavailable == 0 {
            return Err(Refusal::BadPolicy("max-unavailable must be 1 at least: with 0, no node could ever change"));
        }
        if self.patience.is_zero() {
            return Err(Refusal::BadPolicy("patience must be longer than 0: every node needs some time"));
        }
        Ok(())
    }
}

impl Document {
    /// Reads what the znode holds.
    ///
    /// # Errors
    /// When a newer version wrote it, or something else than Bellwether.
    pub fn parse(data: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        if data.is_empty() {
            return Ok(Self::default());
        }
        let garbage = |error: serde_json::Error| Unreadable::Garbage(error.to_string());
        let head: Head = serde_json::from_slice(data).map_err(garbage)?;
        if head.format > FORMAT {
            return Err(Unreadable::Newer { found: head.format });
        }
        serde_json::from_slice(data).map_err(garbage)
    }

    /// What the znode shall hold.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Maps have strings as their keys and no number is beyond JSON: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether anything was ever deployed.
    #[must_use]
    pub fn deployed(&self) -> bool {
        self.last > 0
    }

    /// What a node shall run; none for its manifest's.
    #[must_use]
    pub fn target(&self, me: &NodeId) -> Option<&Numbered> {
        match &self.rollout {
            Some(Rollout { to, phase, admitted, .. })
                if admitted.contains(me) && !matches!(phase, Phase::Back { .. }) =>
            {
                Some(to)
            }
            _ => self.current.as_ref(),
        }
    }

    /// The waves in which a release would make its way.
    #[must_use]
    pub fn plan(nodes: &BTreeSet<NodeId>, leader: Option<&NodeId>, policy: &Policy) -> Vec<Vec<NodeId>> {
        let mut remaining = nodes.clone();
        let mut waves: Vec<Vec<NodeId>> = Vec::new();
        while !remaining.is_empty() {
            let wave = next_wave(&remaining, leader, policy.wave(waves.is_empty()));
            remaining.retain(|node| !wave.contains(node));
            waves.push(wave.into_iter().collect());
        }
        waves
    }

    fn idle(&self) -> Result<(), Refusal> {
        match &self.rollout {
            Some(rollout) => Err(Refusal::UnderWay { number: rollout.to.number, phase: rollout.phase.name() }),
            None => Ok(()),
        }
    }

    fn begin(
        mut self,
        wanted: Wanted,
        repeats: Option<u64>,
        policy: Policy,
        by: String,
        at: u64,
    ) -> Result<Self, Refusal> {
        self.idle()?;
        policy.check()?;
        if let Some(current) = self.current.as_ref().filter(|current| current.wanted.same_as(&wanted)) {
            return Err(Refusal::Unchanged { number: current.number });
        }
        let takes = size(&wanted);
        if takes > MAX_WANTED {
            return Err(Refusal::TooLarge { size: takes, most: MAX_WANTED });
        }
        self.format = FORMAT;
        self.last += 1;
        let to = Numbered { number: self.last, repeats, wanted, by: bounded(by), at };
        self.rollout = Some(Rollout {
            to,
            policy,
            phase: Phase::Running,
            admitted: BTreeSet::new(),
            settled: BTreeSet::new(),
            failed: None,
            aborted: None,
        });
        self.trim();
        Ok(self)
    }

    /// Begins to roll a release out.
    ///
    /// # Errors
    /// When another rollout is under way, the group runs it already, the policy makes no sense or it is too large.
    pub fn deploy(self, wanted: Wanted, policy: Policy, by: String, at: u64) -> Result<Self, Refusal> {
        self.begin(wanted, None, policy, by, at)
    }

    /// Begins to roll an earlier release out again, under a new number: that of the history with this number, or the last before
    /// what runs that was rolled out to its end.
    ///
    /// # Errors
    /// When another rollout is under way, there is no such release, or the group runs it already.
    pub fn rollback(self, to: Option<u64>, policy: Policy, by: String, at: u64) -> Result<Self, Refusal> {
        self.idle()?;
        let found = match to {
            Some(number) => {
                let past = self.history.iter().map(|past| &past.release).chain(&self.current);
                let numbers: BTreeSet<u64> = past.clone().map(|release| release.number).collect();
                let known: Vec<String> = numbers.iter().map(u64::to_string).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                past.rev().find(|past| past.number == number).ok_or(Refusal::NoSuchNumber { number, known })?
            }
            None => {
                let other =
                    |wanted: &Wanted| self.current.as_ref().is_none_or(|current| !current.wanted.same_as(wanted));
                let mut done = self.history.iter().rev().filter(|past| past.outcome == Outcome::Done);
                &done.find(|past| other(&past.release.wanted)).ok_or(Refusal::NothingEarlier)?.release
            }
        };
        let (number, wanted) = (found.number, found.wanted.clone());
        self.begin(wanted, Some(number), policy, by, at)
    }

    fn change(mut self, what: &'static str, change: impl FnOnce(&mut Rollout) -> bool) -> Result<Self, Refusal> {
        let rollout = self.rollout.as_mut().ok_or(Refusal::NoRollout)?;
        let (number, phase) = (rollout.to.number, rollout.phase.name());
        if change(rollout) { Ok(self) } else { Err(Refusal::NotNow { number, phase, what }) }
    }

    /// Admits no further node.
    ///
    /// # Errors
    /// When no rollout is running.
    pub fn pause(self) -> Result<Self, Refusal> {
        self.change("paused", |rollout| {
            let running = rollout.phase == Phase::Running;
            if running {
                rollout.phase = Phase::Paused;
            }
            running
        })
    }

    /// Admits nodes again.
    ///
    /// # Errors
    /// When no rollout is paused.
    pub fn resume(self) -> Result<Self, Refusal> {
        self.change("resumed", |rollout| {
            let paused = rollout.phase == Phase::Paused;
            if paused {
                rollout.phase = Phase::Running;
            }
            paused
        })
    }

    /// Takes every node back to the release before.
    ///
    /// # Errors
    /// When no rollout is under way, or it goes back already.
    pub fn abort(self, by: String) -> Result<Self, Refusal> {
        self.change("aborted", |rollout| {
            let forward = !matches!(rollout.phase, Phase::Back { .. });
            if forward {
                let by = bounded(by);
                rollout.phase = Phase::Back { reason: format!("aborted by {by}") };
                rollout.aborted = Some(by);
            }
            forward
        })
    }

    /// A further wave is admitted; `settled` have run the release well.
    #[must_use]
    pub fn admit(mut self, wave: BTreeSet<NodeId>, settled: BTreeSet<NodeId>) -> Self {
        if let Some(rollout) = &mut self.rollout {
            rollout.admitted.extend(wave);
            rollout.settled.extend(settled);
        }
        self
    }

    /// A node has failed: the group goes back, or waits for an operator, as the policy says.
    #[must_use]
    pub fn fail(mut self, node: NodeId, reason: String) -> Self {
        if let Some(rollout) = &mut self.rollout {
            let how = bounded(reason);
            let reason = format!("{node}: {how}");
            rollout.phase = match rollout.policy.on_failure {
                OnFailure::Back => Phase::Back { reason },
                OnFailure::Halt => Phase::Halted { reason },
            };
            rollout.failed = Some((node, how));
        }
        self
    }

    /// The rollout has come to its end: every node runs the release, or has gone back. `left` are nodes that have not.
    #[must_use]
    pub fn end(mut self, left: &BTreeSet<NodeId>) -> Self {
        let Some(rollout) = self.rollout.take() else { return self };
        let outcome = match (rollout.phase, rollout.aborted) {
            (Phase::Back { .. }, Some(by)) => Outcome::Aborted { by },
            (Phase::Back { reason } | Phase::Halted { reason }, _) => {
                let first: Vec<&str> = left.iter().take(5).map(NodeId::as_str).collect();
                let more = if left.len() > first.len() { ", …" } else { "" };
                let left = match first.as_slice() {
                    [] => String::new(),
                    names => format!(" ({} of the nodes are not back yet: {}{more})", left.len(), names.join(", ")),
                };
                Outcome::Failed { reason: format!("{reason}{left}") }
            }
            (Phase::Running | Phase::Paused, _) => Outcome::Done,
        };
        if outcome == Outcome::Done {
            self.current = Some(rollout.to.clone());
        }
        self.history.push(Past { release: rollout.to, outcome });
        self.trim();
        self
    }

    /// Forgets the oldest of the history, until the rest has room.
    fn trim(&mut self) {
        let many = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..many);
        while !self.history.is_empty() && size(self) > MAX_DOCUMENT {
            self.history.remove(0);
        }
    }
}

/// What an operator can ask about a group's releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseOp {
    /// The document.
    Get,
    /// The document, the nodes with what they report, and who leads.
    Nodes,
    /// Roll a release out.
    Deploy {
        /// What.
        wanted: Box<Wanted>,
        /// How.
        policy: Policy,
        /// Who asks.
        by: String,
        /// When, in seconds since 1970: for people only.
        at: u64,
    },
    /// Admit no further node.
    Pause,
    /// Admit nodes again.
    Resume,
    /// Go back.
    Abort {
        /// Who asks.
        by: String,
    },
    /// Roll an earlier release out again.
    Rollback {
        /// Which; none for the last one.
        to: Option<u64>,
        /// How.
        policy: Policy,
        /// Who asks.
        by: String,
        /// When, in seconds since 1970: for people only.
        at: u64,
    },
}

impl ReleaseOp {
    /// The document as it shall be; none if nothing is to be written.
    ///
    /// # Errors
    /// When the document does not allow it.
    pub fn apply(&self, document: Document) -> Result<Option<Document>, Refusal> {
        match self.clone() {
            Self::Get | Self::Nodes => Ok(None),
            Self::Deploy { wanted, policy, by, at } => document.deploy(*wanted, policy, by, at).map(Some),
            Self::Pause => document.pause().map(Some),
            Self::Resume => document.resume().map(Some),
            Self::Abort { by } => document.abort(by).map(Some),
            Self::Rollback { to, policy, by, at } => document.rollback(to, policy, by, at).map(Some),
        }
    }
}

/// The answer to a [`ReleaseOp`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReleaseReply {
    /// The document, as it is now.
    pub document: Document,
    /// To `Nodes`: the nodes of the group, and what each reports, if it does (nobody does before the first release is deployed).
    pub nodes: BTreeMap<NodeId, Option<Report>>,
    /// To `Nodes`: who leads.
    pub leader: Option<NodeId>,
}

/// Why a [`ReleaseOp`] was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The document does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The document is not understood.
    #[error("the znode {path} cannot be read: {why}")]
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        why: Unreadable,
    },
    /// Only operators may.
    #[error("only an operator may ask for that")]
    NotAllowed,
    /// Nothing was done.
    #[error("the coordinator cannot be asked now: {0}")]
    Unavailable(String),
    /// The answer was lost.
    #[error("it is not known whether this was done, since the answer was lost ({0}): look at the status")]
    Unknown(String),
    /// Others changed the document again and again.
    #[error("others change the group's release at the same time, again and again; nothing was done")]
    Contended,
    /// For another reason; nothing was done.
    #[error("{0}")]
    Other(String),
}

#[cfg(test)]
mod tests;
