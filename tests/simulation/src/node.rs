//! A node: what is production code, and what is modelled around it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bellwether_core::command::{Answer, Command, SwapOutcome};
use bellwether_core::config::{FailurePolicy, GroupConfig, NodeConfig, Safeguards, StateAccess, TickConfig};
use bellwether_core::event::Event;
use bellwether_core::id::{Epoch, Generation, GroupName, Guid, NodeId, RequestId};
use bellwether_core::node::Node;
use bellwether_core::time::Moment;

use crate::client::{Cable, Client};
use crate::ensemble::Follower;
use crate::guests::Side;
use crate::history::Process;
use crate::options::{Missing, Options, Profile};
use crate::wire::{Packet, Parcel};
use crate::world::World;

/// The znode below which everything lies.
pub const ROOT: &str = "/bellwether";
/// How long a shutdown may drain.
const DRAIN: Duration = Duration::from_secs(5);
/// What a shutdown may take besides, and the session timeout.
const STOP_MARGIN: Duration = Duration::from_secs(6);

/// The name of a group.
#[must_use]
pub fn group_name(group: usize) -> GroupName {
    // Fit, whatever the number.
    GroupName::new(format!("g{group}")).unwrap_or_else(|_| unreachable!())
}

/// The group of a name.
pub(crate) fn group_of(name: &GroupName) -> usize {
    name.as_str().trim_start_matches('g').parse().unwrap_or(0)
}

/// The guid of a node, which outlives its processes.
#[must_use]
pub fn guid(index: usize) -> Guid {
    Guid::new(&format!("{:032x}", index + 1)).unwrap_or_else(|| unreachable!())
}

/// A node.
#[derive(Debug)]
pub struct SimNode {
    /// The production core; none while the process is down.
    pub core: Option<Node>,
    /// Which of its processes this is: a restart makes another.
    pub incarnation: u64,
    pub(crate) client: Option<Client>,
    pub(crate) cable: Cable,
    pub(crate) follower: Follower,
    /// Whether the reads of a session wait behind its writes at a server that has lost its leader.
    pub(crate) blocks: bool,
    /// Whether the process stands still.
    pub paused: bool,
    /// What could not be delivered while the process stood still.
    pub(crate) held: VecDeque<Event>,
    /// The groups.
    pub groups: Vec<Side>,
    /// The end of the lease, as the gates know it.
    pub(crate) lease: Moment,
    /// When the last write was sent that is known to have been acknowledged.
    pub(crate) proved: Moment,
    /// Until when the server still takes what an earlier connection had sent.
    pub(crate) linger: Moment,
    /// What an earlier connection had sent and the server will take when the cable is mended.
    pub(crate) late: VecDeque<Packet>,
    /// By when a shutdown must be over.
    pub(crate) stop_by: Option<Moment>,
    pub(crate) wake: u64,
    pub(crate) next_request: u64,
    pub(crate) swaps_asked: BTreeSet<RequestId>,
}

impl SimNode {
    /// A node whose process has not started yet.
    #[must_use]
    pub fn new(groups: usize) -> Self {
        Self {
            core: None,
            incarnation: 0,
            client: None,
            cable: Cable::WHOLE,
            follower: Follower::default(),
            blocks: false,
            paused: false,
            held: VecDeque::new(),
            groups: (0..groups).map(|_| Side::default()).collect(),
            lease: Moment::default(),
            proved: Moment::default(),
            linger: Moment::default(),
            late: VecDeque::new(),
            stop_by: None,
            wake: 0,
            next_request: 0,
            swaps_asked: BTreeSet::new(),
        }
    }

    pub(crate) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }
}

/// A core that is about to start.
#[must_use]
pub fn core(index: usize, seed: u64, options: &Options, profile: &Profile) -> Option<Node> {
    let config = NodeConfig {
        id: NodeId::new(format!("node-{index}")).ok()?,
        guid: guid(index),
        address: format!("10.0.0.{index}:1"),
        root: ROOT.into(),
        session_timeout: options.timeout,
        tick_time: options.tick_time,
        audit: Duration::from_secs(10),
        drain: DRAIN,
        seed,
    };
    let groups = (0..profile.groups).map(|group| GroupConfig {
        name: group_name(group),
        candidate: true,
        election_format: profile.format,
        election_path: None,
        watch: profile.watch,
        labels: BTreeMap::new(),
        tick: Some(TickConfig { every: Duration::from_millis(700), always: profile.ticks }),
        callback: Duration::from_secs(2),
        on_failure: FailurePolicy {
            restarts: 3,
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            sit_out: Duration::from_secs(5),
            then: profile.last_resort,
        },
        probation: profile.probation,
        state: StateAccess::Leader,
    });
    let safeguards = match options.missing {
        Some(Missing::Core(safeguard)) => Safeguards::without(safeguard),
        _ => Safeguards::default(),
    };
    Some(Node::new(config, groups).ok()?.with_safeguards(safeguards))
}

impl World {
    pub(crate) fn process(&self, index: usize) -> Process {
        (index, self.nodes[index].incarnation)
    }

    /// A process starts.
    pub(crate) fn boot(&mut self, index: usize) {
        let seed = self.rng.u64(..);
        let fresh = SimNode::new(self.profile.groups);
        let old = std::mem::replace(&mut self.nodes[index], fresh);
        let node = &mut self.nodes[index];
        node.incarnation = old.incarnation + 1;
        node.cable = old.cable;
        node.late = old.late;
        node.linger = old.linger;
        node.core = core(index, seed, &self.options, &self.profile);
        self.say(format_args!("node-{index}: starts"));
        self.feed(index, Event::Tick);
    }

    /// A process ends without a word.
    pub(crate) fn crash(&mut self, index: usize) {
        self.abandon_packets(index);
        self.down_for_a_while(index);
    }

    fn down_for_a_while(&mut self, index: usize) {
        let process = self.process(index);
        for group in 0..self.profile.groups {
            self.history.leave(process, group);
        }
        let node = &mut self.nodes[index];
        node.core = None;
        node.client = None;
        node.paused = false;
        node.stop_by = None;
        node.groups.iter_mut().for_each(|side| *side = Side::default());
        node.incarnation += 1;
        let pause = Duration::from_millis(self.rng.u64(10..12_000));
        self.post(pause, index, Parcel::Restart);
    }

    /// A process is asked to end.
    pub(crate) fn shut_down(&mut self, index: usize) {
        let by = self.now + DRAIN + self.options.timeout + STOP_MARGIN;
        self.nodes[index].stop_by.get_or_insert(by);
        self.feed(index, Event::Shutdown);
    }

    pub(crate) fn wake(&mut self, index: usize, wake: u64) {
        if self.nodes[index].wake == wake {
            self.feed(index, Event::Tick);
        }
    }

    /// Gives the core an event and carries out what it wants.
    pub(crate) fn feed(&mut self, index: usize, event: Event) {
        if self.nodes[index].paused {
            return self.nodes[index].held.push_back(event);
        }
        let now = self.now;
        let Some(core) = self.nodes[index].core.as_mut() else { return };
        let commands = core.handle(now, event);
        let deadline = core.deadline(now);
        self.history.mix(self.step);
        self.history.mix(now.since_boot().as_nanos() as u64);
        self.history.mix(((index as u64) << 32) | commands.len() as u64);
        for command in commands {
            self.execute(index, command);
        }
        let node = &mut self.nodes[index];
        node.wake += 1;
        if let Some(at) = deadline {
            let wake = Parcel::Wake(node.wake);
            self.post_at(at.max(now), index, wake);
        }
    }

    /// The process stands still.
    pub(crate) fn pause(&mut self, index: usize) {
        self.nodes[index].paused = true;
        let process = self.process(index);
        self.history.pause(process);
    }

    /// And goes on.
    pub(crate) fn resume(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.paused = false;
        // A shutdown counts the time that the process runs.
        node.stop_by = node.stop_by.map(|by| by.max(self.now + DRAIN + self.options.timeout + STOP_MARGIN));
        // What matters most on waking is the time that has passed: the driver's alarm comes first.
        self.feed(index, Event::Tick);
        while let Some(event) = self.nodes[index].held.pop_front() {
            self.feed(index, event);
        }
    }

    fn execute(&mut self, index: usize, command: Command) {
        match command {
            Command::OpenSession { generation, .. } => {
                self.nodes[index].client = Some(Client::new(generation, self.now));
                let delay = self.delay();
                self.post(delay, index, Parcel::Connect(generation));
            }
            Command::CloseSession { generation } => self.close(index, generation),
            Command::Submit { generation, tag, request } => self.submit(index, generation, tag, request),
            Command::Forget { generation, tag } => self.forget(index, generation, tag),
            Command::Grant { group, epoch, until } => self.grant(index, group_of(&group), epoch, until),
            Command::Extend { until } => self.nodes[index].lease = self.nodes[index].lease.max(until),
            Command::Revoke { group } => self.nodes[index].groups[group_of(&group)].granted = None,
            Command::Witness { group, epoch } => self.witness(index, group_of(&group), epoch),
            Command::Prepare { group, instance, source } => self.prepare(index, group_of(&group), instance, source),
            Command::Call { group, instance, call, callback, budget } => {
                self.call(index, group_of(&group), instance, call, callback, budget);
            }
            Command::Stop { group, instance } => self.stop(index, group_of(&group), instance),
            Command::Promote { group, instance } => self.promote(index, group_of(&group), instance),
            Command::Drain { group } => {
                let delay = self.delay();
                self.post(delay, index, Parcel::Local(Event::Drained { group }));
            }
            Command::Answer { request, answer: Answer::Swapped(outcome) } => self.swapped(index, request, outcome),
            Command::Answer { answer: Answer::Release(result), .. } => self.released(&result),
            Command::Notice(notice) => {
                if let Some(group) = notice.group.as_ref().filter(|_| notice.what == "handover-failed") {
                    self.history.otherwise.insert((index, group_of(group)));
                }
                let group = notice.group.as_ref().map_or("", |group| group.as_str());
                self.say(format_args!("node-{index}: {group} {} {:?}: {}", notice.what, notice.epoch, notice.text));
            }
            Command::Finished { error } => {
                self.history.gave_up = error.map(|why| (index, why));
                self.abandon_packets(index);
                self.down_for_a_while(index);
            }
            Command::Publish { .. } | Command::Answer { .. } => {}
        }
    }

    fn forget(&mut self, index: usize, generation: Generation, tag: bellwether_core::id::Tag) {
        let node = &mut self.nodes[index];
        let Some(client) = node.client.as_mut().filter(|client| client.generation == generation) else { return };
        client.fired.remove(&tag);
        if client.pending.contains_key(&tag) {
            client.forgotten.insert(tag);
        }
        node.follower.forget(tag);
        if let Some(session) = client.session {
            self.ensemble.server.forget(session, tag);
        }
    }

    fn grant(&mut self, index: usize, group: usize, epoch: Epoch, until: Moment) {
        let process = self.process(index);
        let node = &mut self.nodes[index];
        node.groups[group].granted = Some(epoch);
        node.lease = node.lease.max(until);
        self.history.elections += 1;
        let greatest = self.history.granted.get(&group).map(|(_, epoch, before)| Some(*epoch).max(*before));
        self.history.granted.insert(group, (process, epoch, greatest.flatten()));
    }

    fn swapped(&mut self, index: usize, request: RequestId, outcome: SwapOutcome) {
        if !self.nodes[index].swaps_asked.remove(&request) {
            self.history.bad_call = Some(format!("node-{index} answers {request}, which nobody asked, or twice"));
        }
        match outcome {
            SwapOutcome::Committed { .. } => self.history.swaps += 1,
            SwapOutcome::RolledBack(_) => self.history.rollbacks += 1,
            SwapOutcome::Unchanged(_) | SwapOutcome::Refused(_) => {}
        }
    }

    /// The epoch that a node's guest may act in now.
    #[must_use]
    pub fn gate(&self, index: usize, group: usize) -> Option<Epoch> {
        let node = &self.nodes[index];
        node.groups.get(group)?.granted.filter(|_| self.now < node.lease)
    }
}
