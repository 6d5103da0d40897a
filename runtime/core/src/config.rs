//! What a node is told at start, and the times that follow from the session timeout.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::id::{GroupName, Guid, NodeId};
use crate::work::Outcomes;

/// Who watches the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Watch {
    /// Only the leader.
    #[default]
    Leader,
    /// Every node: the group is peer to peer.
    All,
}

/// How the znodes of candidates are named, and with whom an election can be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ElectionFormat {
    /// `<node-id>-<guid>-n_<seq>`.
    #[default]
    Bellwether,
    /// As Apache Curator's `LeaderLatch` does: `_c_<uuid>-latch-<seq>`.
    Curator,
}

/// When `on-tick` is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickConfig {
    /// The interval.
    pub every: Duration,
    /// Whether workers tick as well.
    pub always: bool,
}

/// Who may use the group's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateAccess {
    /// Nobody.
    None,
    /// The leader.
    #[default]
    Leader,
    /// The leader; workers read and watch.
    All,
}

/// What to do when restarting a guest did not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastResort {
    /// Go on restarting it.
    Restart,
    /// Go back to the release before, if there was one since the node started; otherwise resign.
    Rollback,
    /// Give leadership up, and stay out of the election for a while.
    #[default]
    Resign,
    /// Leave the group.
    Stop,
}

/// What to do about a guest that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePolicy {
    /// So many restarts in a row for the same callback, then the last resort.
    pub restarts: u32,
    /// What comes after that.
    pub then: LastResort,
    /// The pause before the first restart; it doubles with each.
    pub backoff: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// How long a node that resigned for a failure stays a worker.
    pub sit_out: Duration,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            restarts: 3,
            then: LastResort::default(),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            sit_out: Duration::from_secs(30),
        }
    }
}

/// A part of a whole, in millionths: whole numbers, so that the same calls give the same verdict on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u32);

impl Rate {
    /// Everything: nothing is more than that.
    pub const ALL: Self = Self(1_000_000);

    /// A fraction from 0 to 1; none for anything else.
    #[must_use]
    pub fn new(fraction: f64) -> Option<Self> {
        (0.0..=1.0).contains(&fraction).then(|| Self((fraction * 1e6).round() as u32))
    }

    /// Whether a greater part of the calls than this has failed.
    #[must_use]
    pub fn exceeded_by(self, calls: Outcomes) -> bool {
        u128::from(calls.failed) * 1_000_000 > u128::from(calls.ended) * u128::from(self.0)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 1e4)
    }
}

/// How a new release proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probation {
    /// How long it is on probation after it took over; zero for none.
    pub lasts: Duration,
    /// So many callbacks may fail in that time; one more takes the group back to the release before.
    pub failures: u32,
    /// Such a part of the tasks, and of the callbacks, may fail in that time; more takes the group back as well.
    pub error_rate: Rate,
    /// Before so many tasks, or callbacks, have ended, their rate says nothing.
    pub at_least: u32,
}

impl Default for Probation {
    fn default() -> Self {
        Self { lasts: Duration::from_secs(10), failures: 0, error_rate: Rate(500_000), at_least: 20 }
    }
}

impl Probation {
    /// No probation.
    pub const NONE: Self = Self { lasts: Duration::ZERO, failures: 0, error_rate: Rate::ALL, at_least: 1 };
}

/// A group, as this node takes part in it.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// Its name.
    pub name: GroupName,
    /// Whether this node stands for election.
    pub candidate: bool,
    /// How the candidates' znodes are named.
    pub election_format: ElectionFormat,
    /// The znode that the candidates' znodes lie below, if not the group's own `election`.
    pub election_path: Option<String>,
    /// Who watches the registry.
    pub watch: Watch,
    /// The labels of this node's member.
    pub labels: BTreeMap<String, String>,
    /// When `on-tick` is called, if it is.
    pub tick: Option<TickConfig>,
    /// The time a callback may take.
    pub callback: Duration,
    /// What to do about failures.
    pub on_failure: FailurePolicy,
    /// How a new release proves itself.
    pub probation: Probation,
    /// Who may use the state.
    pub state: StateAccess,
}

/// A node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its id.
    pub id: NodeId,
    /// Its identity in elections.
    pub guid: Guid,
    /// Where its peers reach it, `host:port`.
    pub address: String,
    /// The znode below which everything lies, without a slash at the end.
    pub root: String,
    /// The session timeout to ask for.
    pub session_timeout: Duration,
    /// The ensemble's tickTime: it ends sessions on multiples of it.
    pub tick_time: Duration,
    /// The mean time between looks at what no watch covers: this node's own znodes.
    pub audit: Duration,
    /// How long tasks in flight may go on at shutdown.
    pub drain: Duration,
    /// Where the sequence of jitters begins.
    pub seed: u64,
}

impl NodeConfig {
    /// The znode that this node's heartbeat writes to.
    #[must_use]
    pub fn node_path(&self) -> String {
        format!("{}/nodes/{}", self.root, self.id)
    }

    /// The persistent znodes that everything else stands on, outermost first.
    #[must_use]
    pub fn base_paths(&self) -> Vec<String> {
        let mut paths: Vec<String> =
            self.root.match_indices('/').skip(1).map(|(at, _)| self.root[..at].to_owned()).collect();
        if !self.root.is_empty() {
            paths.push(self.root.clone());
        }
        paths.push(format!("{}/nodes", self.root));
        paths
    }
}

/// The znodes of a group.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The group's own.
    pub group: String,
    /// The candidates.
    pub election: String,
    /// The epoch.
    pub epoch: String,
    /// The members.
    pub registry: String,
    /// The guest's state.
    pub state: String,
    /// What the group shall run.
    pub release: String,
    /// What each node says that it runs.
    pub running: String,
}

impl Paths {
    /// The paths of `group` below `root`, with the election elsewhere if a path is given.
    #[must_use]
    pub fn new(root: &str, group: &GroupName, election: Option<&str>) -> Self {
        let group = format!("{root}/{group}");
        Self {
            election: election.map_or_else(|| format!("{group}/election"), ToOwned::to_owned),
            epoch: format!("{group}/epoch"),
            registry: format!("{group}/service_registry"),
            state: format!("{group}/state"),
            release: format!("{group}/release"),
            running: format!("{group}/running"),
            group,
        }
    }

    /// All of them, and what an election elsewhere lies below, outermost first.
    #[must_use]
    pub fn all(&self) -> Vec<&str> {
        let above = self.election.match_indices('/').skip(1).map(|(at, _)| &self.election[..at]);
        let above = above.filter(|path| !self.group.starts_with(path));
        [self.group.as_str()]
            .into_iter()
            .chain(above.filter(|path| *path != self.group))
            .chain([self.election.as_str(), &self.epoch, &self.registry, &self.state, &self.release, &self.running])
            .collect()
    }
}

/// A session timeout that leaves no time to demote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a session timeout of {timeout:?} is too short for a tickTime of {tick_time:?}: the lease ends after two thirds of it, \
     and the guest must have been demoted before the session can end, half a tickTime early; it must be at least {least:?}"
)]
pub struct TooShort {
    /// The timeout.
    pub timeout: Duration,
    /// The ensemble's tickTime.
    pub tick_time: Duration,
    /// The least that will do.
    pub least: Duration,
}

/// The times that follow from the session timeout `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// `T` itself.
    pub timeout: Duration,
    /// The lease, counted from the send time of an acknowledged write (or a little earlier): 2/3 `T`.
    pub lease: Duration,
    /// When, from the same point on, the guest must have been demoted or stopped: `T` less half a tickTime (a follower
    /// reports its sessions to the leader that often) and 1 % for clocks that drift.
    pub demoted: Duration,
    /// Between two heartbeats: `T`/6, so that three may be lost within a lease; but a little more than half a tickTime, so
    /// that each finds the one before it told to the ensemble's leader.
    pub heartbeat: Duration,
}

impl Timing {
    /// Works the times out.
    ///
    /// # Errors
    /// When less than `T`/20 would be left to demote in.
    pub fn new(timeout: Duration, tick_time: Duration) -> Result<Self, TooShort> {
        let lease = timeout * 2 / 3;
        let demoted = timeout.saturating_sub(tick_time / 2).saturating_sub(timeout / 100);
        if timeout.is_zero() || demoted < lease + timeout / 20 {
            // T (1 - 2/3 - 1/100 - 1/20) = tickTime / 2
            let least = Duration::from_millis((tick_time.as_millis() as u64 * 150).div_ceil(82).max(1));
            return Err(TooShort { timeout, tick_time, least });
        }
        Ok(Self { timeout, lease, demoted, heartbeat: (timeout / 6).max(tick_time * 11 / 20) })
    }
}

/// What keeps leadership safe. Each can be taken away alone, to show that a simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Safeguard {
    /// A claim and every fenced write check the own znode, and a write the epoch.
    Proof,
    /// Leadership ends 2/3 `T` after the last acknowledged write was sent.
    Lease,
    /// The lease counts from what the ensemble's leader was told for certain, and not from the write alone.
    Told,
    /// A znode counts as ours only if its ephemeralOwner is our session.
    Owner,
    /// Candidates are ordered by their suffix alone.
    SuffixOrder,
    /// A node runs what a rollout brings only when it was admitted.
    Admission,
    /// A rollout goes on only when all that were admitted are well.
    Waves,
    /// The members are listed anew on every new connection.
    Relist,
}

/// The safeguards that are in force: all of them, always. Only with the feature `mutations`, which the simulation asks for, can a
/// node be made that lacks one; without it this is an empty value and every question about it is answered when it is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Safeguards {
    #[cfg(feature = "mutations")]
    missing: Option<Safeguard>,
}

impl Safeguards {
    /// All but one.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub const fn without(missing: Safeguard) -> Self {
        Self { missing: Some(missing) }
    }

    /// Whether a safeguard is in force.
    #[must_use]
    pub fn hold(self, which: Safeguard) -> bool {
        #[cfg(feature = "mutations")]
        return self.missing != Some(which);
        #[cfg(not(feature = "mutations"))]
        {
            let _ = which;
            true
        }
    }
}

/// A small generator (splitmix64, after Steele, Lea and Flood 2014) for jitter: from a seed, so that a run can be repeated.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// Begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A duration between half of `mean` and one and a half of it.
    pub fn around(&mut self, mean: Duration) -> Duration {
        mean / 2 + mean.mul_f64((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// The pause after the `attempt`th failure in a row: doubling from `first`, at most `longest`, with jitter.
    pub fn backoff(&mut self, first: Duration, longest: Duration, attempt: u32) -> Duration {
        let pause = first.saturating_mul(1_u32 << attempt.saturating_sub(1).min(16)).min(longest);
        self.around(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_usual_session() {
        let timing = Timing::new(Duration::from_secs(6), Duration::from_secs(2)).unwrap();
        assert_eq!(timing.lease, Duration::from_secs(4));
        assert_eq!(timing.demoted, Duration::from_millis(4940));
        assert_eq!(timing.heartbeat, Duration::from_millis(1100));
    }

    #[test]
    fn the_least_timeout_named_is_the_least_that_does() {
        for tick in [1, 2, 3, 100, 199, 200, 2000, 3000] {
            let tick = Duration::from_millis(tick);
            let least = Timing::new(tick, tick).unwrap_err().least;
            assert!(Timing::new(least, tick).is_ok(), "{least:?} for {tick:?}");
            assert!(Timing::new(least - Duration::from_millis(1), tick).is_err(), "{least:?} for {tick:?}");
        }
    }

    #[test]
    fn a_rate_is_exceeded_by_more_than_it_and_not_by_as_much() {
        let rate = |fraction, failed, ended| Rate::new(fraction).unwrap().exceeded_by(Outcomes { ended, failed });
        assert!(!rate(0.5, 10, 20));
        assert!(rate(0.5, 11, 20));
        assert!(rate(0.0, 1, u64::MAX));
        assert!(!rate(1.0, u64::MAX, u64::MAX), "all may fail");
        assert!(!rate(0.0, 0, 0));
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Rate::new(wrong), None, "{wrong}");
        }
        assert_eq!(Rate::new(0.125).map(|rate| rate.to_string()).as_deref(), Some("12.5 %"));
    }

    #[test]
    fn base_paths_of_a_deep_root() {
        let config = NodeConfig {
            id: NodeId::new("a").unwrap(),
            guid: Guid::new(&"0".repeat(32)).unwrap(),
            address: String::new(),
            root: "/x/y".into(),
            session_timeout: Duration::ZERO,
            tick_time: Duration::ZERO,
            audit: Duration::ZERO,
            drain: Duration::ZERO,
            seed: 0,
        };
        assert_eq!(config.base_paths(), ["/x", "/x/y", "/x/y/nodes"]);
    }

    #[test]
    fn an_election_elsewhere_brings_its_parents() {
        let group = GroupName::new("g").unwrap();
        let own = Paths::new("/r", &group, None);
        let below = ["", "/election", "/epoch", "/service_registry", "/state", "/release", "/running"];
        assert_eq!(own.all(), below.map(|name| format!("/r/g{name}")));
        let elsewhere = Paths::new("/r", &group, Some("/services/jobs/leader"));
        assert_eq!(elsewhere.all()[..4], ["/r/g", "/services", "/services/jobs", "/services/jobs/leader"]);
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_repeats() {
        let (mut one, mut two) = (Jitter::new(7), Jitter::new(7));
        let mean = Duration::from_millis(100);
        for attempt in 1..200 {
            let pause = one.backoff(mean, mean * 8, attempt);
            assert!(pause >= mean / 2 && pause <= mean * 12, "{pause:?}");
            assert_eq!(pause, two.backoff(mean, mean * 8, attempt));
        }
    }
}
