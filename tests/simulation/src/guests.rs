//! A model of a node's guests: releases are prepared, calls take time, fail now and then, and a leading guest acts.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, Exports, PrepareFailure, Prepared, Returned, Step};
use bellwether_core::event::{Event, Source};
use bellwether_core::id::{CallId, Epoch, InstanceId, ReleaseId};
use bellwether_core::work::Fence;

use crate::history::Handover;
use crate::node::group_name;
use crate::options::Manners;
use crate::rollouts::{Flaw, content, content_of};
use crate::wire::Parcel;
use crate::world::World;

/// What an instance is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The call.
    pub call: CallId,
    /// Which one it is.
    pub kind: Kind,
}

/// The callbacks that the model tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It ends a term.
    Demoted,
    /// It takes the state.
    Snapshot,
    /// It was given a state.
    Restore(u64),
    /// Any other; it counts.
    Other,
}

/// An instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// What it runs.
    pub release: ReleaseId,
    /// The term that it was told of.
    pub told: Option<Epoch>,
    /// The call it is in.
    pub running: Option<Running>,
    /// The number it counts in its state, handed over by swaps.
    pub counter: u64,
    /// The state that it was given.
    pub restored: Option<u64>,
}

/// One group on one node.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// The instances that exist.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// The one that counts.
    pub live: Option<InstanceId>,
    /// The release that was promoted last.
    pub running: Option<ReleaseId>,
    /// The last state that each release gave.
    pub given: BTreeMap<ReleaseId, u64>,
    /// The term that was granted.
    pub granted: Option<Epoch>,
    /// What the workers' side has seen.
    pub fence: Fence,
}

/// How a call will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Well.
    Done,
    /// With an error.
    Refused,
    /// With a trap.
    Trapped,
    /// At the end of its budget.
    Hung,
}

impl Manners {
    /// Draws how a call ends and how long it takes.
    fn draw(self, rng: &mut fastrand::Rng, budget: Duration) -> (Fate, Duration) {
        let short = Duration::from_micros(rng.u64(50..20_000));
        let dice = rng.u32(0..1000);
        let fate = if dice < self.trap {
            Fate::Trapped
        } else if dice < self.trap + self.refuse {
            Fate::Refused
        } else if dice < self.trap + self.refuse + self.hang {
            Fate::Hung
        } else {
            Fate::Done
        };
        match fate {
            Fate::Hung => (fate, budget),
            _ if short >= budget => (Fate::Hung, budget),
            _ => (fate, short),
        }
    }
}

/// The release that the manifest names.
const FIRST: u64 = 1;

/// The name of a release.
#[must_use]
pub fn release(number: u64) -> ReleaseId {
    ReleaseId(format!("{number:064x}").into())
}

impl World {
    pub(crate) fn prepare(&mut self, index: usize, group: usize, instance: InstanceId, source: Source) {
        let ill = self.rng.u32(0..1000) < self.manners.broken;
        let broken = match &source {
            Source::Component(_) => ill,
            Source::Wanted(release) => {
                self.prepares(index, group, release);
                ill || self.flaw(group, content(release)) == Some(Flaw::Load)
            }
            _ => false,
        };
        let what = match &source {
            Source::Wanted(release) => format!("number {}, {}", release.number, content(release)),
            other => format!("{other:?}"),
        };
        self.say(format_args!("node-{index}: g{group} {instance} is to be {what}"));
        let side = &mut self.nodes[index].groups[group];
        let release = match source {
            Source::Component(name) => release(name.parse().unwrap_or(FIRST)),
            Source::Earlier(earlier) => earlier,
            Source::Manifest => release(FIRST),
            Source::Wanted(numbered) => release(content(&numbered)),
            Source::Current | Source::Configured { .. } => side.running.clone().unwrap_or_else(|| release(FIRST)),
        };
        let observer = self.profile.observer;
        let exports = Exports { worker: true, ticker: true, handover: self.profile.handover, observer };
        let result = if broken {
            Err(PrepareFailure { step: Step::Compile, reason: "broken".into() })
        } else {
            let made = Instance { release: release.clone(), told: None, running: None, counter: 0, restored: None };
            side.instances.insert(instance, made);
            Ok(Prepared { instance, release, digest: "d".into(), exports, took: [].into() })
        };
        let pause = Duration::from_millis(self.rng.u64(1..300));
        let event = Event::Prepared { group: group_name(group), instance, result };
        self.post(pause, index, Parcel::Local(event));
    }

    pub(crate) fn call(
        &mut self,
        index: usize,
        group: usize,
        instance: InstanceId,
        call: CallId,
        callback: Callback,
        budget: Duration,
    ) {
        let (now, process) = (self.now, self.process(index));
        let (mut fate, takes) = self.manners.draw(&mut self.rng, budget);
        let name = callback.name();
        let called = self.nodes[index].groups[group].instances.get(&instance).map(|called| content_of(&called.release));
        let flaw = called.and_then(|content| self.flaw(group, content));
        match (&callback, flaw) {
            (Callback::Restore(_), Some(Flaw::Restore)) => fate = Fate::Refused,
            (Callback::Snapshot, Some(Flaw::Snapshot)) => fate = Fate::Trapped,
            (Callback::Tick, Some(Flaw::Ticks)) if self.profile.proves_by_ticks() => fate = Fate::Trapped,
            _ => {}
        }
        self.say(format_args!("node-{index}: g{group} {instance} {name} begins, ends {fate:?} after {takes:?}"));
        let side = &mut self.nodes[index].groups[group];
        let granted = side.granted;
        let Some(called) = side.instances.get_mut(&instance) else {
            self.history.bad_call = Some(format!("{name} calls {instance} of node-{index}, which does not exist"));
            return;
        };
        if let Some(running) = called.running {
            self.history.bad_call =
                Some(format!("{name} calls {instance} of node-{index} while it is in {:?}", running.kind));
        }
        let kind = match &callback {
            Callback::Demoted(_) => Kind::Demoted,
            Callback::Snapshot => Kind::Snapshot,
            Callback::Restore(state) => Kind::Restore(state.as_slice().try_into().map_or(u64::MAX, u64::from_be_bytes)),
            _ => Kind::Other,
        };
        called.running = Some(Running { call, kind });
        if let Callback::Elected { epoch, .. } = &callback {
            called.told = Some(*epoch);
            if granted != Some(*epoch) {
                self.history.bad_call =
                    Some(format!("{instance} of node-{index} hears of {epoch} while {granted:?} is granted"));
            }
            self.history.enter(process, group, *epoch, now);
            let soon = Duration::from_millis(self.rng.u64(1..200));
            self.post(soon, index, Parcel::Act { group, instance });
        }
        self.post(takes, index, Parcel::Finish { group, instance, call, fate });
    }

    pub(crate) fn finish(&mut self, index: usize, group: usize, instance: InstanceId, call: CallId, fate: Fate) {
        if self.nodes[index].paused {
            // The guest stands still with its process.
            let again = Duration::from_millis(50);
            return self.post(again, index, Parcel::Finish { group, instance, call, fate });
        }
        let side = &mut self.nodes[index].groups[group];
        let Some(called) = side.instances.get_mut(&instance) else { return };
        let Some(running) = called.running.take_if(|running| running.call == call) else { return };
        let mut returned = Returned::Done;
        match (running.kind, fate) {
            (Kind::Snapshot, Fate::Done) => {
                returned = Returned::Snapshot(called.counter.to_be_bytes().to_vec().into());
                side.given.insert(called.release.clone(), called.counter);
            }
            (Kind::Restore(state), Fate::Done) => {
                called.counter = state;
                called.restored = Some(state);
            }
            (Kind::Other | Kind::Demoted, Fate::Done) => called.counter += 1,
            _ => {}
        }
        let result = match fate {
            Fate::Done => Ok(returned),
            Fate::Refused => Err(CallFailure::Refused("no".into())),
            Fate::Trapped => Err(CallFailure::Trapped("unreachable".into())),
            Fate::Hung => Err(CallFailure::TimedOut { budget_ms: 0 }),
        };
        let lives = result.as_ref().err().is_none_or(CallFailure::leaves_instance);
        if running.kind == Kind::Demoted {
            called.told = None;
        }
        if !lives {
            side.instances.remove(&instance);
        }
        self.believe(index, group);
        self.feed(index, Event::Returned { group: group_name(group), instance, call, result });
    }

    /// Notes when no instance believes in a term any more.
    fn believe(&mut self, index: usize, group: usize) {
        if self.nodes[index].groups[group].instances.values().all(|instance| instance.told.is_none()) {
            let process = self.process(index);
            self.history.leave(process, group);
        }
    }

    pub(crate) fn stop(&mut self, index: usize, group: usize, instance: InstanceId) {
        self.nodes[index].groups[group].instances.remove(&instance);
        self.believe(index, group);
    }

    /// An instance takes over.
    pub(crate) fn promote(&mut self, index: usize, group: usize, instance: InstanceId) {
        let side = &mut self.nodes[index].groups[group];
        let old = side.live.filter(|live| *live != instance).and_then(|live| side.instances.get(&live));
        let Some(new) = side.instances.get(&instance) else {
            self.history.bad_call = Some(format!("{instance} of node-{index} is promoted and does not exist"));
            return;
        };
        let release = new.release.clone();
        if side.running.as_ref().is_some_and(|running| *running != release) {
            let otherwise = self.history.otherwise.remove(&(index, group));
            self.history.handover = Some(Handover {
                node: index,
                group,
                step: self.step,
                release: release.clone(),
                old: old.map(|old| old.counter),
                given: side.given.get(&release).copied(),
                new: new.restored,
                otherwise,
            });
        }
        side.live = Some(instance);
        side.running = Some(release);
    }
}
