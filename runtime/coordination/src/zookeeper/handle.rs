//! The handle that the owner of a session holds, and the way back to the owner.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwether_core::id::{Generation, Tag};
use bellwether_core::request::{Reply, Request, RequestError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use super::config::ZookeeperConfig;
use super::session;
use crate::check::MAX_UNDER_WAY;
use crate::{Session, SessionEvent, Sink};

/// What the owner asks for. The queue is unbounded but not boundless: beyond [`MAX_UNDER_WAY`] requests, only the tag of a request
/// is kept, and the owner keeps that as well until it is answered.
pub(super) enum Command {
    Submit(Tag, Request),
    Refuse(Tag),
    Forget(Tag),
    Close,
}

/// What handle and task share.
#[derive(Default)]
pub(super) struct Shared {
    under_way: AtomicUsize,
    /// The owner has dropped its handle without closing the session: it is not told anything any more.
    abandoned: AtomicBool,
    /// Stops the library's task.
    stopper: Mutex<Option<AbortHandle>>,
}

/// The owner's handle.
pub(super) struct ZookeeperSession {
    commands: UnboundedSender<Command>,
    shared: Arc<Shared>,
    closed: bool,
}

pub(super) fn open(
    config: Arc<ZookeeperConfig>,
    generation: Generation,
    timeout: Duration,
    sink: Sink,
) -> ZookeeperSession {
    let (commands, inbox) = unbounded_channel();
    let shared = Arc::new(Shared::default());
    let owner = Owner { generation, sink, shared: shared.clone() };
    tokio::spawn(session::run(config, timeout, owner, inbox));
    ZookeeperSession { commands, shared, closed: false }
}

impl Session for ZookeeperSession {
    fn submit(&mut self, tag: Tag, request: Request) {
        let before = self.shared.under_way.fetch_add(1, Ordering::Relaxed);
        let command = if before < MAX_UNDER_WAY { Command::Submit(tag, request) } else { Command::Refuse(tag) };
        // After the session's end nobody listens, and nothing is answered any more.
        let _ = self.commands.send(command);
    }

    fn forget(&mut self, tag: Tag) {
        let _ = self.commands.send(Command::Forget(tag));
    }

    fn close(&mut self) {
        self.closed = true;
        let _ = self.commands.send(Command::Close);
    }
}

impl Drop for ZookeeperSession {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        self.shared.abandoned.store(true, Ordering::Relaxed);
        if let Some(stopper) = self.shared.stopper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // At once, and not when the task gets to it: it may be waiting for an owner that is gone.
            stopper.abort();
        }
    }
}

/// Whom to tell.
pub(super) struct Owner {
    generation: Generation,
    sink: Sink,
    shared: Arc<Shared>,
}

impl Owner {
    /// Lets the handle stop the library's task. False when the handle is gone already.
    pub(super) fn arm(&self, stopper: AbortHandle) -> bool {
        let mut slot = self.shared.stopper.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(stopper);
        !self.shared.abandoned.load(Ordering::Relaxed)
    }

    /// The handle was dropped without closing the session.
    pub(super) fn is_gone(&self) -> bool {
        self.shared.abandoned.load(Ordering::Relaxed)
    }

    pub(super) async fn tell(&self, event: SessionEvent) {
        if !self.is_gone() {
            (self.sink)(self.generation, event).await;
        }
    }

    pub(super) async fn answer(&self, tag: Tag, result: Result<Reply, RequestError>) {
        self.shared.under_way.fetch_sub(1, Ordering::Relaxed);
        self.tell(SessionEvent::Answered { tag, result }).await;
    }

    /// Answers what still waits, and says the last word.
    pub(super) async fn end(&self, mut inbox: UnboundedReceiver<Command>, reason: String, permanent: bool) {
        inbox.close();
        while let Some(command) = inbox.recv().await {
            if let Command::Submit(tag, _) | Command::Refuse(tag) = command {
                self.answer(tag, Err(RequestError::SessionEnded)).await;
            }
        }
        self.tell(SessionEvent::Ended { reason, permanent }).await;
    }
}
