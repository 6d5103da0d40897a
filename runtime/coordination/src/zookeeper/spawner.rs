//! How the client library's own task is started, and ended. The library closes its session when the last client is dropped;
//! a session that is let go of without [`close`](crate::Session::close) must run out instead, as after a crash. So
//! we start its task ourselves and can stop it, which just drops the connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use asyncs::task::{Spawn, Task, enter};
use tokio::task::JoinHandle;

/// The one task that the library spawns while it connects.
#[derive(Default)]
struct Slot(Mutex<Option<JoinHandle<()>>>);

impl Spawn for Slot {
    fn spawn(&self, task: Task) {
        let handle = tokio::spawn(Box::into_pin(task.future));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
    }
}

/// Runs a future of the library; what it spawns is given out with its result.
pub(super) struct Spawning<F> {
    future: Pin<Box<F>>,
    slot: Slot,
}

impl<F: Future> Spawning<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future: Box::pin(future), slot: Slot::default() }
    }
}

impl<F: Future> Future for Spawning<F> {
    type Output = (F::Output, Option<Serving>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let output = {
            let _scope = enter(&this.slot);
            std::task::ready!(this.future.as_mut().poll(context))
        };
        let task = this.slot.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Poll::Ready((output, task.map(Serving)))
    }
}

/// The library's task, which keeps the session alive. Dropping this stops it and drops the connection.
pub(super) struct Serving(JoinHandle<()>);

impl Serving {
    /// Waits until the task has ended by itself.
    pub(super) async fn ended(&mut self) {
        // A panic in the library ends its task as well; the session is as lost as after any other end.
        let _ = (&mut self.0).await;
    }

    /// Stops the task and drops the connection.
    pub(super) fn stop(&self) {
        self.0.abort();
    }

    /// Something that can stop the task from elsewhere.
    pub(super) fn stopper(&self) -> tokio::task::AbortHandle {
        self.0.abort_handle()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}
