//! An instance of a guest: an actor that owns the store, and handles to it.
//!
//! Calls reach the guest one at a time because one task owns the store and takes one job after the other. That task is
//! also where every call can be cut off: by its budget, by [`Instance::stop`], or because whoever asked went away.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, Returned, Step};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::LoadError;
use crate::guest::Guest;
use crate::host::Host;
use crate::link::Linked;
use crate::roaming::{Roaming, Whereabouts};

/// An instance of a guest, in a store and a task of its own. Clones are handles to the same instance; when the last one is
/// dropped the instance ends.
#[derive(Clone)]
pub struct Instance {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

struct Shared {
    stop: watch::Sender<bool>,
    /// How the instance was lost, once it is.
    lost: OnceLock<CallFailure>,
    engine: wasmtime::Engine,
}

/// What is asked of an instance.
struct Job {
    callback: Callback,
    budget: Duration,
    reply: oneshot::Sender<Result<Returned, CallFailure>>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("lost", &self.shared.lost.get()).finish_non_exhaustive()
    }
}

impl Instance {
    pub(crate) async fn start(linked: &Linked, host: Arc<dyn Host>) -> Result<Self, LoadError> {
        let engine = linked.component().engine();
        // One job waits while one runs; more wait with their callers.
        let (jobs, queue) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared { stop, lost: OnceLock::new(), engine: engine.0.wasm.clone() });
        let (ready, started) = oneshot::channel();
        let whereabouts = Whereabouts::new();
        let actor = run(linked.clone(), host, whereabouts.clone(), Arc::clone(&shared), stopped, queue, ready);
        match &engine.0.runtime {
            Some(apart) => Roaming::start(actor, whereabouts, Handle::current(), apart.clone()),
            None => drop(tokio::spawn(actor)),
        }
        match started.await {
            Ok(Ok(())) => Ok(Self { jobs, shared }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(LoadError::new(Step::Instantiate, "the runtime that guests run on is shutting down")),
        }
    }

    /// Calls the guest and waits until it returns, `budget` has passed since the call began, or the instance is stopped.
    /// Calls happen in the order in which they are asked for, one at a time. Dropping the future of a call that runs stops the
    /// guest and loses the instance.
    ///
    /// # Errors
    /// See [`CallFailure`]; after all but `Refused` the instance is lost.
    pub async fn call(&self, callback: Callback, budget: Duration) -> Result<Returned, CallFailure> {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job { callback, budget, reply }).await.is_err() {
            return Err(self.gone());
        }
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn gone(&self) -> CallFailure {
        match self.shared.lost.get() {
            None | Some(CallFailure::Stopped) => CallFailure::Stopped,
            Some(lost) => CallFailure::Trapped(format!("the instance was lost before: it {lost}")),
        }
    }

    /// Stops the guest by force, at once: a guest that computes is interrupted, a host call that it waits in is dropped. A
    /// call that runs ends with [`CallFailure::Stopped`], and so does every later one. Stopping twice does no harm.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
        // A guest that computes gives way at the next epoch: make it now.
        self.shared.engine.increment_epoch();
    }

    /// Waits until the store of an instance that was stopped or lost is gone.
    pub async fn closed(&self) {
        self.jobs.closed().await;
    }

    /// Whether the instance is lost: stopped, trapped, timed out or over a limit.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared.lost.get().is_some() || *self.shared.stop.borrow()
    }
}

async fn run(
    linked: Linked,
    host: Arc<dyn Host>,
    whereabouts: Whereabouts,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
    mut queue: mpsc::Receiver<Job>,
    mut ready: oneshot::Sender<Result<(), LoadError>>,
) {
    let made = Guest::make(&linked, host, whereabouts.clone(), either(&mut stopped, ready.closed())).await;
    drop(linked);
    whereabouts.ends(false);
    let mut guest = match made {
        Ok(guest) => guest,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(())).is_err() {
        return;
    }
    loop {
        let job = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => {
                let _ = shared.lost.set(CallFailure::Stopped);
                return;
            }
            job = queue.recv() => job,
        };
        let Some(Job { callback, budget, mut reply }) = job else { return };
        if reply.is_closed() {
            // Whoever asked went away before the call began: nothing has happened, and nothing will.
            continue;
        }
        let result = guest.callback(&callback, budget, either(&mut stopped, reply.closed())).await;
        if let Err(failure) = &result
            && !failure.leaves_instance()
        {
            // The store is dropped before anybody hears of it: what the guest held is free again by then.
            let _ = shared.lost.set(failure.clone());
            drop(guest);
            queue.close();
            let _ = reply.send(result);
            return;
        }
        let _ = reply.send(result);
    }
}

/// Waits until an instance is stopped, or whoever asked something of it has gone away.
async fn either(stopped: &mut watch::Receiver<bool>, abandoned: impl Future<Output = ()>) {
    tokio::select! {
        // An error means that the last handle is gone.
        _ = stopped.wait_for(|stop| *stop) => {}
        () = abandoned => {}
    }
}
