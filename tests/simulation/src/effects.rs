//! What guests do to the world, and what operators ask of nodes.

use std::time::Duration;

use bellwether_core::event::{Ask, Asker, Event, Source};
use bellwether_core::id::{Epoch, InstanceId};
use bellwether_core::state::{Expectation, StateOp};

use crate::history::Accepted;
use crate::node::group_name;
use crate::options::Missing;
use crate::wire::Parcel;
use crate::world::World;

impl World {
    /// A guest that believes it leads does something: a write to the state, or a task for a worker.
    pub(crate) fn act(&mut self, index: usize, group: usize, instance: InstanceId) {
        let again = Duration::from_millis(self.rng.u64(5..400));
        if self.nodes[index].paused {
            return self.post(again, index, Parcel::Act { group, instance });
        }
        let Some(actor) = self.nodes[index].groups[group].instances.get(&instance) else { return };
        let Some(told) = actor.told else { return };
        // The gate that every effect goes through: granted, and the lease holds at this very moment.
        if let Some(epoch) = self.gate(index, group) {
            if epoch != told {
                self.history.bad_call =
                    Some(format!("{instance} of node-{index} was told of {told} and acts in {epoch}"));
            }
            let dice = self.rng.u32(0..10);
            let key = format!("k{}", self.rng.u32(0..4));
            match dice {
                0..5 => self.put(index, group, instance, key, epoch),
                5 if self.profile.observer => {
                    self.ask_state(index, group, Asker::Guest(instance), StateOp::Watch(key));
                }
                _ => {
                    let to = self.rng.usize(0..self.nodes.len());
                    self.task(index, to, group, epoch);
                }
            }
        }
        self.post(again, index, Parcel::Act { group, instance });
    }

    fn put(&mut self, index: usize, group: usize, instance: InstanceId, key: String, epoch: Epoch) {
        let value = epoch.0.to_string().into_bytes().into();
        let expect = if self.rng.u32(0..4) == 0 { Expectation::Absent } else { Expectation::Anything };
        self.ask_state(index, group, Asker::Guest(instance), StateOp::Put { key, value, expect });
    }

    fn ask_state(&mut self, index: usize, group: usize, asker: Asker, op: StateOp) {
        let request = self.nodes[index].request();
        self.feed(index, Event::Ask { group: group_name(group), request, asker, ask: Ask::State(op) });
    }

    /// A task is sent; mostly it arrives soon, and sometimes long after its sender's term.
    fn task(&mut self, from: usize, to: usize, group: usize, epoch: Epoch) {
        if from == to || self.nodes[to].core.is_none() {
            return;
        }
        let delay =
            if self.rng.u32(0..20) == 0 { Duration::from_millis(self.rng.u64(100..15_000)) } else { self.delay() };
        self.post(delay, to, Parcel::Task { group, epoch });
    }

    /// A worker gets a task.
    pub(crate) fn task_arrives(&mut self, index: usize, group: usize, epoch: Epoch) {
        if self.nodes[index].paused {
            return self.post(Duration::from_millis(50), index, Parcel::Task { group, epoch });
        }
        if self.nodes[index].core.is_none() {
            return;
        }
        let worker = self.process(index);
        let admitted = self.nodes[index].groups[group].fence.admit(epoch).is_ok();
        if !admitted && self.options.missing != Some(Missing::WorkerFence) {
            self.history.refused += 1;
            return;
        }
        self.history.tasks += 1;
        let seen = self.history.seen.get(&(worker, group)).copied();
        self.history.task = Some(Accepted { worker, epoch, seen });
        self.saw(index, group, epoch);
    }

    fn saw(&mut self, index: usize, group: usize, epoch: Epoch) {
        let key = (self.process(index), group);
        let seen = self.history.seen.entry(key).or_insert(epoch);
        *seen = epoch.max(*seen);
    }

    /// The core has read or won an epoch: older tasks are to be refused from now on.
    pub(crate) fn witness(&mut self, index: usize, group: usize, epoch: Epoch) {
        // An older epoch than the one seen changes nothing.
        let _ = self.nodes[index].groups[group].fence.admit(epoch);
        self.saw(index, group, epoch);
    }

    /// An operator asks for another release on a node.
    pub(crate) fn ask_swap(&mut self, index: usize, group: usize) {
        let release = self.rng.u64(1..5);
        let request = self.nodes[index].request();
        self.nodes[index].swaps_asked.insert(request);
        let ask = Ask::Swap(Source::Component(release.to_string().into()));
        self.feed(index, Event::Ask { group: group_name(group), request, asker: Asker::Operator, ask });
    }

    /// An operator asks a node to resign.
    pub(crate) fn ask_resign(&mut self, index: usize, group: usize) {
        let request = self.nodes[index].request();
        self.feed(index, Event::Ask { group: group_name(group), request, asker: Asker::Operator, ask: Ask::Resign });
    }
}
