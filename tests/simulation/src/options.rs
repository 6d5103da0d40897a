//! What a run is like: what the caller says, and what the seed says.

use std::fmt;
use std::time::Duration;

use bellwether_core::config::{ElectionFormat, LastResort, Probation, Safeguard, Watch};
use bellwether_core::time::Moment;

/// A safeguard that is taken away, to show that its absence is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// One of the core's.
    Core(Safeguard),
    /// Workers take tasks of any epoch.
    WorkerFence,
}

impl Missing {
    /// Every safeguard that there is, by the name that the command line has for it.
    pub const ALL: [(&'static str, Self); 9] = [
        ("proof", Self::Core(Safeguard::Proof)),
        ("lease", Self::Core(Safeguard::Lease)),
        ("told", Self::Core(Safeguard::Told)),
        ("owner", Self::Core(Safeguard::Owner)),
        ("suffix-order", Self::Core(Safeguard::SuffixOrder)),
        ("admission", Self::Core(Safeguard::Admission)),
        ("waves", Self::Core(Safeguard::Waves)),
        ("relist", Self::Core(Safeguard::Relist)),
        ("worker-fence", Self::WorkerFence),
    ];
}

impl std::str::FromStr for Missing {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, missing)| *missing);
        known.ok_or_else(|| {
            format!("there is no such safeguard; there are {}", Self::ALL.map(|(name, _)| name).join(", "))
        })
    }
}

/// What the caller says.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// How long faults go on, in simulated time.
    pub trouble: Duration,
    /// How long the cluster is given to come to rest after that.
    pub calm: Duration,
    /// The session timeout.
    pub timeout: Duration,
    /// The ensemble's tickTime.
    pub tick_time: Duration,
    /// Whether operators deploy releases in every run, and again and again.
    pub rollouts: bool,
    /// Whether to say what happens.
    pub trace: bool,
    /// What is missing.
    pub missing: Option<Missing>,
    /// An invariant that is not checked, to see what comes of it.
    pub unchecked: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            trouble: Duration::from_secs(60),
            calm: Duration::from_secs(60),
            timeout: Duration::from_secs(6),
            tick_time: Duration::from_secs(2),
            rollouts: false,
            trace: false,
            missing: None,
            unchecked: None,
        }
    }
}

/// How likely a guest is to misbehave, in a thousand calls.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// A call traps.
    pub trap: u32,
    /// A call returns an error.
    pub refuse: u32,
    /// A call outlives its budget.
    pub hang: u32,
    /// A release cannot be prepared.
    pub broken: u32,
}

impl Manners {
    /// Nothing ever fails.
    pub const GOOD: Self = Self { trap: 0, refuse: 0, hang: 0, broken: 0 };
}

/// What the seed says.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// How many groups each node is in.
    pub groups: usize,
    /// Who watches the registries.
    pub watch: Watch,
    /// How candidates' znodes are named.
    pub format: ElectionFormat,
    /// Whether workers tick as well.
    pub ticks: bool,
    /// Whether guests hand their state over.
    pub handover: bool,
    /// Whether leading guests watch a key.
    pub observer: bool,
    /// How guests behave.
    pub manners: Manners,
    /// What comes after too many restarts.
    pub last_resort: LastResort,
    /// How new releases prove themselves.
    pub probation: Probation,
    /// A reconnect of an expired session silently opens a new one, as some compatible servers do.
    pub silent_sessions: bool,
    /// Followers tell their leader of the sessions they heard of every half tickTime, and not at once.
    pub reports: bool,
    /// Sessions end on multiples of the tickTime, and not to the moment.
    pub rounded: bool,
    /// The counters of the election and the registry are set close to 2^31 at some time.
    pub high_counters: bool,
    /// Operators deploy releases to whole groups.
    pub rollouts: bool,
}

impl Profile {
    /// One group, nothing unusual, nothing fails.
    pub const PLAIN: Self = Self {
        groups: 1,
        watch: Watch::Leader,
        format: ElectionFormat::Bellwether,
        ticks: false,
        handover: true,
        observer: false,
        manners: Manners::GOOD,
        last_resort: LastResort::Resign,
        probation: Probation::NONE,
        silent_sessions: false,
        reports: false,
        rounded: false,
        high_counters: false,
        rollouts: false,
    };

    /// Draws one.
    pub fn draw(rng: &mut fastrand::Rng) -> Self {
        let mut chance = |percent: u32| rng.u32(0..100) < percent;
        let good = chance(25);
        let bad = chance(15);
        let (on_probation, restart, rollback) = (chance(50), chance(20), chance(30));
        Self {
            groups: if chance(25) { 2 } else { 1 },
            watch: if chance(33) { Watch::All } else { Watch::Leader },
            format: if chance(20) { ElectionFormat::Curator } else { ElectionFormat::Bellwether },
            ticks: chance(20),
            handover: chance(80),
            observer: chance(30),
            manners: match (good, bad) {
                (true, _) => Manners::GOOD,
                (_, true) => Manners { trap: 60, refuse: 60, hang: 20, broken: 300 },
                _ => Manners { trap: 5, refuse: 5, hang: 3, broken: 50 },
            },
            last_resort: match (restart, rollback) {
                (true, _) => LastResort::Restart,
                (_, true) => LastResort::Rollback,
                _ => LastResort::Resign,
            },
            probation: if on_probation { Probation::default() } else { Probation::NONE },
            silent_sessions: chance(15),
            reports: chance(50),
            rounded: chance(50),
            high_counters: chance(20),
            rollouts: chance(50),
        }
    }
}

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The run.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// When, on the simulated clock.
    pub at: Moment,
    /// Which invariant.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} step {} at {}: {}: {}", self.seed, self.step, self.at, self.invariant, self.what)
    }
}

impl std::error::Error for Violation {}
