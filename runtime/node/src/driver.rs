//! The loop between the core and the world: one event in, its commands out, in order. It runs on a thread of its own together
//! with the session, so that nothing that guests, peers or operators do can delay a heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellwether_coordination::{Coordinator, Session, Sink};
use bellwether_core::command::{Answer, Command, Level, Notice};
use bellwether_core::event::Event;
use bellwether_core::id::{Generation, GroupName};
use bellwether_core::node::Node;
use bellwether_core::status::Status;
use bellwether_core::time::Moment;
use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};

use crate::clock::{self, Alarm};
use crate::gate::Lease;
use crate::guests::Guests;
use crate::lines;
use crate::shared::NodeShared;

/// Events that may wait for the driver; whoever has more to say waits.
pub(crate) const MAILBOX: usize = 1024;

/// What the driver is asked apart from events.
pub(crate) enum Inquiry {
    /// How is it?
    Status(oneshot::Sender<(Status, Moment)>),
    /// End at once, as a crash would: no demotion, no farewell.
    Crash,
}

pub(crate) struct Driver {
    pub core: Node,
    pub id: bellwether_core::id::NodeId,
    pub shared: Arc<NodeShared>,
    pub guests: BTreeMap<GroupName, Arc<Guests>>,
    pub coordinator: Arc<dyn Coordinator>,
    pub lease: Lease,
    pub session: Option<(Generation, Box<dyn Session>)>,
}

/// How the driver ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All is closed.
    Stopped,
    /// The coordinator will never do.
    Refused(String),
    /// It was told to crash.
    Crashed,
}

impl Driver {
    /// Runs until the node has stopped. Must be called on a current-thread runtime of its own.
    pub async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<Event>,
        mut inquiries: mpsc::Receiver<Inquiry>,
    ) -> std::io::Result<Ended> {
        let mut alarm = Alarm::new()?;
        let mut notices = Vec::new();
        if let Some(ended) = self.handle(Event::Tick, &mut notices) {
            self.say(notices);
            return Ok(ended);
        }
        loop {
            if !notices.is_empty() {
                // What was submitted is on its way first.
                tokio::task::yield_now().await;
                self.say(std::mem::take(&mut notices));
            }
            alarm.set(self.core.deadline(clock::now()))?;
            let event = tokio::select! {
                biased;
                rung = alarm.rung() => {
                    rung?;
                    Event::Tick
                }
                inquiry = inquiries.recv() => {
                    match inquiry {
                        Some(Inquiry::Status(reply)) => {
                            let now = clock::now();
                            // Whoever asked may have gone away.
                            let _ = reply.send((self.core.status(now), now));
                            continue;
                        }
                        Some(Inquiry::Crash) | None => return Ok(Ended::Crashed),
                    }
                }
                event = mailbox.recv() => match event {
                    Some(event) => event,
                    None => return Ok(Ended::Crashed),
                },
            };
            if let Some(ended) = self.handle(event, &mut notices) {
                self.say(notices);
                return Ok(ended);
            }
        }
    }

    fn handle(&mut self, event: Event, notices: &mut Vec<Notice>) -> Option<Ended> {
        let (mut ended, mut resigned) = (None, Vec::new());
        for command in self.core.handle(clock::now(), event) {
            match command {
                Command::Finished { error } => ended = Some(error.map_or(Ended::Stopped, Ended::Refused)),
                Command::Notice(notice) if notice.level == Level::Debug && !lines::debugging() => {}
                Command::Notice(notice) => notices.push(notice),
                Command::Answer { request, answer: answer @ Answer::Resigned(_) } => resigned.push((request, answer)),
                // What a guest writes stands below what it is told for.
                command @ Command::Call { .. } if !notices.is_empty() => {
                    self.say(std::mem::take(notices));
                    self.execute(command);
                }
                command => self.execute(command),
            }
        }
        // Whoever asked may run at once, and in the way of the guest that is told.
        for (request, answer) in resigned {
            self.shared.questions.answer(request, answer);
        }
        ended
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::OpenSession { generation, timeout } => self.open(generation, timeout),
            Command::CloseSession { generation } => {
                if let Some(session) = self.session(generation) {
                    session.close();
                }
            }
            Command::Submit { generation, tag, request } => {
                if let Some(session) = self.session(generation) {
                    session.submit(tag, request);
                }
            }
            Command::Forget { generation, tag } => {
                if let Some(session) = self.session(generation) {
                    session.forget(tag);
                }
            }
            Command::Extend { until } => self.lease.extend(until),
            Command::Answer { request, answer } => self.shared.questions.answer(request, answer),
            Command::Grant { group, epoch, until } => {
                if let Some(group) = self.shared.groups.get(&group) {
                    group.gate.grant(epoch, until);
                }
            }
            Command::Revoke { group } => {
                if let Some(group) = self.shared.groups.get(&group) {
                    group.gate.revoke();
                }
            }
            Command::Witness { group, epoch } => {
                if let Some(group) = self.shared.groups.get(&group) {
                    // An older epoch than the one seen changes nothing.
                    let _ = group.admit(epoch, || {});
                }
            }
            Command::Publish { group, members } => {
                if let Some(group) = self.shared.groups.get(&group) {
                    group.set_members(members);
                }
                self.retain_peers();
            }
            Command::Prepare { group, instance, source } => {
                self.with(&group, |guests| guests.prepare(instance, source))
            }
            Command::Call { group, instance, call, callback, budget } => {
                self.with(&group, |guests| guests.call(instance, call, callback, budget));
            }
            Command::Stop { group, instance } => self.with(&group, |guests| guests.stop(instance)),
            Command::Promote { group, instance } => self.with(&group, |guests| guests.promote(instance)),
            Command::Drain { group } => self.with(&group, Guests::drain),
            Command::Finished { .. } | Command::Notice(_) => {}
        }
    }

    fn with(&self, group: &GroupName, what: impl FnOnce(&Arc<Guests>)) {
        if let Some(guests) = self.guests.get(group) {
            what(guests);
        }
    }

    fn session(&mut self, generation: Generation) -> Option<&mut Box<dyn Session>> {
        self.session.as_mut().filter(|(open, _)| *open == generation).map(|(_, session)| session)
    }

    fn open(&mut self, generation: Generation, timeout: Duration) {
        let mailbox = self.shared.mailbox.clone();
        let sink: Sink = Arc::new(move |generation, event| {
            let mailbox = mailbox.clone();
            async move {
                // A closed mailbox means that the node has ended.
                let _ = mailbox.send(Event::Session { generation, event }).await;
            }
            .boxed()
        });
        self.session = Some((generation, self.coordinator.open(generation, timeout, sink)));
    }

    /// Links to those who left are let go.
    fn retain_peers(&self) {
        if self.shared.peers.links() == 0 {
            return;
        }
        let members: Vec<_> = self.shared.groups.values().map(|group| group.members()).collect();
        self.shared
            .peers
            .retain(members.iter().flat_map(|members| members.iter()).map(|member| member.address.as_str()));
    }

    fn say(&self, mut notices: Vec<Notice>) {
        notices.iter_mut().for_each(|notice| shorten(&mut notice.text));
        let node = self.id.clone();
        lines::make(notices.len(), move || notices.iter().for_each(|notice| say(node.as_str(), notice)));
    }
}

/// What a guest says of its failure may be long, and many lines may wait for whoever reads them.
const LONGEST: usize = 16 << 10;

fn shorten(text: &mut String) {
    if text.len() > LONGEST {
        let cut = text.len() - LONGEST;
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push_str(&format!("… ({cut} bytes cut)"));
        text.shrink_to_fit();
    }
}

fn say(node: &str, notice: &Notice) {
    let group = notice.group.as_ref().map(tracing::field::display);
    let epoch = notice.epoch.map(tracing::field::display);
    let release = notice.release.as_ref().map(tracing::field::display);
    let (what, text) = (notice.what, notice.text.as_str());
    macro_rules! say {
        ($level:ident) => {
            tracing::$level!(node, group, epoch, release, what, "{text}")
        };
    }
    match notice.level {
        Level::Debug => say!(debug),
        Level::Info => say!(info),
        Level::Warn => say!(warn),
        Level::Error => say!(error),
    }
}
