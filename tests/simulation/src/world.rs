//! The cluster, its clock and what is on its way.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bellwether_core::time::Moment;

use crate::ensemble::Ensemble;
use crate::faults;
use crate::history::History;
use crate::invariants::{self, Broken};
use crate::node::SimNode;
use crate::options::{Manners, Options, Profile, Violation};
use crate::wire::Parcel;

/// The cluster.
pub struct World {
    /// The seed of the run.
    pub seed: u64,
    /// What the caller says.
    pub options: Options,
    /// What the seed says.
    pub profile: Profile,
    /// The clock.
    pub now: Moment,
    /// Steps taken.
    pub step: u64,
    /// The coordinator.
    pub ensemble: Ensemble,
    /// The nodes.
    pub nodes: Vec<SimNode>,
    /// What happened.
    pub history: History,
    pub(crate) rng: fastrand::Rng,
    pub(crate) manners: Manners,
    pub(crate) counters_set: bool,
    parcels: BTreeMap<(Moment, u64), (usize, u64, Parcel)>,
    next_parcel: u64,
    /// Steps since the clock moved last.
    idle: u32,
}

/// How often the cluster is looked at once everything is mended.
const LOOK: Duration = Duration::from_secs(4);
/// So many looks in a row must find it at rest.
const LOOKS: u32 = 3;
/// So many steps may be taken without the clock moving.
const IDLE_MAX: u32 = 20_000;

impl World {
    /// A cluster whose nodes are about to start.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut profile = Profile::draw(&mut rng);
        profile.rollouts |= options.rollouts;
        Self::with_profile(seed, options, profile, rng)
    }

    /// The same, of another kind than the seed says.
    #[must_use]
    pub fn plain(seed: u64, options: Options) -> Self {
        Self::with_profile(seed, options, Profile { rollouts: true, ..Profile::PLAIN }, fastrand::Rng::with_seed(seed))
    }

    fn with_profile(seed: u64, options: Options, profile: Profile, rng: fastrand::Rng) -> Self {
        let mut world = Self {
            seed,
            options,
            profile,
            now: Moment::from_boot(Duration::from_secs(1000)),
            step: 0,
            ensemble: Ensemble { quorum: true, ..Ensemble::default() },
            nodes: (0..options.nodes).map(|_| SimNode::new(profile.groups)).collect(),
            history: History::default(),
            rng,
            manners: profile.manners,
            counters_set: false,
            parcels: BTreeMap::new(),
            next_parcel: 0,
            idle: 0,
        };
        world.say(format_args!("{profile:?}"));
        for index in 0..options.nodes {
            world.boot(index);
        }
        world
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first invariant that did not hold.
    pub fn run(&mut self) -> Result<(), Violation> {
        let calm_from = self.now + self.options.trouble;
        let mut next_fault = self.now + Duration::from_millis(self.rng.u64(500..3000));
        while self.now < calm_from {
            if self.advance(next_fault.min(calm_from))? && self.now < calm_from {
                self.history.faults += 1;
                faults::inject(self);
                next_fault = self.now + Duration::from_millis(self.rng.u64(50..4000));
                self.check()?;
            }
        }
        faults::calm(self);
        self.check()?;
        self.come_to_rest(calm_from)
    }

    /// Everything is mended: within the time it is given the cluster must come to rest, and stay there.
    ///
    /// # Errors
    /// The first invariant that did not hold.
    pub fn come_to_rest(&mut self, from: Moment) -> Result<(), Violation> {
        let end = from + self.options.calm + self.rollouts_take();
        let (mut at_rest, mut leaders) = (0, Vec::new());
        while self.now < end {
            let look_at = (self.now + LOOK).min(end);
            while !self.advance(look_at)? {}
            self.tidy_rollouts();
            let found = invariants::at_rest(self);
            let leads = self.leaders();
            at_rest = if found.is_ok() && (leads == leaders || at_rest == 0) { at_rest + 1 } else { 0 };
            leaders = leads;
            if at_rest == 1 {
                self.history.rest_after = Some(self.now.since(from));
            }
            if at_rest == LOOKS {
                return Ok(());
            }
            if self.now >= end {
                let moved = Err(("stays_at_rest", format!("leadership moves on though nothing happens: {leaders:?}")));
                return self.result(found.and(moved));
            }
        }
        Ok(())
    }

    /// Goes on until then, whatever happens.
    ///
    /// # Errors
    /// The first invariant that did not hold.
    pub fn go_on(&mut self, until: Moment) -> Result<(), Violation> {
        while !self.advance(until)? {}
        Ok(())
    }

    fn leaders(&self) -> Vec<Option<bellwether_core::id::Epoch>> {
        let gates = |group| (0..self.nodes.len()).find_map(move |index| self.gate(index, group));
        (0..self.profile.groups).map(gates).collect()
    }

    /// Takes the next step, or goes on to `until` if nothing happens before; says whether it did that.
    fn advance(&mut self, until: Moment) -> Result<bool, Violation> {
        let next = self.parcels.keys().next().map(|(at, _)| *at);
        let expiry = self.next_expiry();
        let at = next.into_iter().chain(expiry).fold(until, Moment::min).max(self.now);
        self.idle = if at == self.now { self.idle + 1 } else { 0 };
        if self.idle > IDLE_MAX {
            let asked: Vec<_> =
                self.nodes.iter().map(|node| node.core.as_ref().and_then(|core| core.deadline(at))).collect();
            let what = format!("the clock stands still; the nodes ask to be woken at {asked:?}");
            return self.result(Err(("time_goes_on", what))).map(|()| false);
        }
        self.now = at;
        self.step += 1;
        let due = |moment: Option<Moment>| moment.is_some_and(|moment| moment <= at);
        if until <= at && !due(next) && !due(expiry) {
            return Ok(true);
        }
        if due(expiry) {
            self.expire();
        } else if let Some((_, (node, incarnation, parcel))) = self.parcels.pop_first()
            && (self.nodes[node].incarnation == incarnation || parcel.outlives())
        {
            self.deliver(node, parcel);
        }
        self.check()?;
        Ok(false)
    }

    fn check(&self) -> Result<(), Violation> {
        self.result(invariants::always(self))
    }

    fn result(&self, result: Result<(), Broken>) -> Result<(), Violation> {
        result.map_err(|(invariant, what)| Violation {
            seed: self.seed,
            step: self.step,
            at: self.now,
            invariant,
            what,
        })
    }

    pub(crate) fn say(&self, what: fmt::Arguments<'_>) {
        if self.options.trace {
            #[expect(clippy::print_stdout, reason = "the trace of a replayed seed is this program's output")]
            {
                println!("{:>8} {} {what}", self.step, self.now);
            }
        }
    }

    pub(crate) fn post(&mut self, after: Duration, node: usize, parcel: Parcel) {
        let at = self.now + after;
        self.post_at(at, node, parcel);
    }

    pub(crate) fn post_at(&mut self, at: Moment, node: usize, parcel: Parcel) {
        self.next_parcel += 1;
        let incarnation = self.nodes[node].incarnation;
        self.parcels.insert((at, self.next_parcel), (node, incarnation, parcel));
    }
}
