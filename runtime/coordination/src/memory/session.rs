//! One session on a [`MemoryCoordinator`](super::MemoryCoordinator): its handle, and the two tasks behind it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_core::id::{Generation, SessionId, Tag};
use bellwether_core::request::{Request, RequestError};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use super::world::{Connection, Out, World, unknown};
use crate::{Session, SessionEvent, Sink};

/// The world, shared by all sessions.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(World::new())))
    }

    /// Nothing is awaited and no foreign code runs under the lock, save what a test passes to `inspect`.
    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle that the owner holds.
struct MemorySession {
    shared: Shared,
    id: u64,
    closed: bool,
}

pub(super) fn open(shared: &Shared, generation: Generation, timeout: Duration, sink: Sink) -> Box<dyn Session> {
    let (out, events) = unbounded_channel();
    let id = shared.lock().enter(Connection::new(out, timeout));
    let teller = Teller { shared: shared.clone(), id, generation, sink, down: false, held: Vec::new() };
    tokio::spawn(teller.run(events, timeout));
    Box::new(MemorySession { shared: shared.clone(), id, closed: false })
}

impl Session for MemorySession {
    fn submit(&mut self, tag: Tag, request: Request) {
        self.shared.lock().submit(self.id, tag, request);
    }

    fn forget(&mut self, tag: Tag) {
        self.shared.lock().forget(self.id, tag);
    }

    fn close(&mut self) {
        self.closed = true;
        self.shared.lock().close(self.id);
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        if !self.closed {
            self.shared.lock().abandon(self.id);
        }
    }
}

/// Touches the session in time and expires whatever is due. Apart from the task that tells the owner, so that an owner who is
/// slow to listen does not lose the session.
async fn keep(shared: Shared, id: u64) {
    loop {
        let Some(next) = shared.lock().keep(id) else { return };
        sleep_until(next).await;
    }
}

/// Tells the owner what happens, in order and when it is due.
struct Teller {
    shared: Shared,
    id: u64,
    generation: Generation,
    sink: Sink,
    down: bool,
    /// What watches told while there was no connection.
    held: Vec<(Tag, SessionEvent)>,
}

impl Teller {
    async fn run(mut self, mut events: UnboundedReceiver<(Instant, Out)>, timeout: Duration) {
        tokio::spawn(keep(self.shared.clone(), self.id));
        let Some(session) = self.opened(&mut events).await else { return };
        self.tell(SessionEvent::Opened { session, timeout }).await;
        let mut queue = VecDeque::new();
        let mut open = true;
        loop {
            while let Ok((due, out)) = events.try_recv() {
                self.take(&mut queue, due, out).await;
            }
            let due = queue.front().map(|(due, _)| *due);
            tokio::select! {
                biased;
                next = events.recv(), if open => match next {
                    Some((due, out)) => self.take(&mut queue, due, out).await,
                    None if queue.is_empty() => return,
                    None => open = false,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((_, out)) = queue.pop_front()
                        && !self.pass_on(out, session).await
                    {
                        return;
                    }
                }
                else => return,
            }
        }
    }

    /// Waits until there is a session; none when it was closed before.
    async fn opened(&mut self, events: &mut UnboundedReceiver<(Instant, Out)>) -> Option<SessionId> {
        let mut told = false;
        loop {
            let opened = self.shared.lock().try_open(self.id);
            if opened.is_some() {
                return opened;
            }
            if !told {
                told = true;
                let reason = "the coordinator in memory is not available".to_owned();
                self.tell(SessionEvent::Waiting { reason }).await;
            }
            loop {
                match events.recv().await? {
                    (_, Out::TryAgain) => break,
                    (_, out @ (Out::Answer(..) | Out::End { .. })) => {
                        if !self.pass_on(out, SessionId(0)).await {
                            return None;
                        }
                    }
                    (_, Out::Watch(..) | Out::Down | Out::Up) => {}
                }
            }
        }
    }

    /// Queues what is not due yet. A disconnect is told at once, and takes with it the answers that were on their way.
    async fn take(&mut self, queue: &mut VecDeque<(Instant, Out)>, due: Instant, out: Out) {
        match out {
            Out::Down => {
                self.down = true;
                self.tell(SessionEvent::Disconnected).await;
                for (due, out) in std::mem::take(queue) {
                    match out {
                        Out::Answer(tag, _) => queue.push_back((Instant::now(), Out::Answer(tag, Err(unknown())))),
                        Out::Watch(tag, event) => self.hold(tag, event),
                        other => queue.push_back((due, other)),
                    }
                }
            }
            Out::Up => {
                self.down = false;
                queue.push_back((due, Out::Up));
                queue.extend(self.held.drain(..).map(|(tag, event)| (due, Out::Watch(tag, event))));
            }
            Out::Watch(tag, event) if self.down => self.hold(tag, event),
            other => queue.push_back((due, other)),
        }
    }

    /// For the next connection, which lasting watches do not outlive.
    fn hold(&mut self, tag: Tag, event: SessionEvent) {
        if matches!(event, SessionEvent::Fired { .. }) {
            self.held.push((tag, event));
        }
    }

    /// Tells the owner; false after the last word.
    async fn pass_on(&mut self, out: Out, session: SessionId) -> bool {
        match out {
            Out::Answer(tag, result) => {
                let unknown = matches!(result, Err(RequestError::Unknown(_)));
                self.shared.lock().answered(self.id, tag, unknown);
                self.tell(SessionEvent::Answered { tag, result }).await;
            }
            Out::Watch(tag, event) => {
                let lasts = matches!(event, SessionEvent::ChildChanged { .. });
                let armed = {
                    let mut world = self.shared.lock();
                    world.connections.get_mut(&self.id).is_some_and(|connection| match lasts {
                        true => connection.armed.contains(&tag.0),
                        false => connection.armed.remove(&tag.0),
                    })
                };
                if armed {
                    self.tell(event).await;
                }
            }
            Out::Up => self.tell(SessionEvent::Reconnected { session }).await,
            Out::End { reason } => {
                // An owner that is gone is not told anything.
                if !reason.is_empty() {
                    self.tell(SessionEvent::Ended { reason, permanent: false }).await;
                }
                return false;
            }
            Out::Down | Out::TryAgain => {}
        }
        true
    }

    async fn tell(&self, event: SessionEvent) {
        (self.sink)(self.generation, event).await;
    }
}
