//! Instances that do tasks: a bounded number, made when they are needed and replaced when they are worn.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Step};
use bellwether_core::work::{Outcomes, WorkError};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::LoadError;
use crate::guest::Guest;
use crate::host::{Host, Task};
use crate::link::Linked;
use crate::roaming::{Call, Whereabouts};

/// How a pool behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// Tasks that run at the same time, each in an instance of its own.
    pub parallelism: usize,
    /// Tasks that wait for their turn; one more is refused as overload.
    pub queue: usize,
    /// Tasks that one instance does before it is replaced; 1 gives each task a fresh one, 0 never replaces one that works.
    pub recycle_after: u64,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            parallelism: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            queue: 64,
            recycle_after: 10_000,
        }
    }
}

/// Makes the host of each instance.
pub type Hosts = Arc<dyn Fn() -> Arc<dyn Host> + Send + Sync>;

/// The instances of one release that do tasks. Cheap to clone.
#[derive(Clone)]
pub struct WorkerPool(Arc<Inner>);

struct Inner {
    linked: Linked,
    options: PoolOptions,
    hosts: Hosts,
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Worker>>,
    waiting: AtomicUsize,
    draining: AtomicBool,
    in_flight: watch::Sender<usize>,
    stop: watch::Sender<bool>,
    outcomes: watch::Sender<Outcomes>,
    made: AtomicUsize,
}

/// An instance and the number of tasks it has done.
struct Worker {
    guest: Guest,
    host: Arc<dyn Host>,
    done: u64,
}

impl std::fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerPool").field("options", &self.0.options).field("in_flight", &self.in_flight()).finish()
    }
}

impl WorkerPool {
    /// Makes an empty pool; instances come with the first tasks. A parallelism of 0 counts as 1.
    #[must_use]
    pub fn new(linked: Linked, options: PoolOptions, hosts: Hosts) -> Self {
        let options = PoolOptions { parallelism: options.parallelism.clamp(1, Semaphore::MAX_PERMITS), ..options };
        Self(Arc::new(Inner {
            linked,
            options,
            hosts,
            slots: Arc::new(Semaphore::new(options.parallelism)),
            idle: Mutex::new(Vec::new()),
            waiting: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            in_flight: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            outcomes: watch::Sender::new(Outcomes::default()),
            made: AtomicUsize::new(0),
        }))
    }

    /// Does a task, within `budget` from now, the wait for a free instance included. Dropping the future stops the guest
    /// and frees the slot.
    ///
    /// # Errors
    /// `Overloaded` at once when the queue is full or the pool is being drained; `Failed` with the guest's error, its trap or
    /// the limit it went over; `TimedOut`; `TooLarge` for an answer beyond the limit for messages.
    pub async fn handle(&self, task: Task, budget: Duration) -> Result<Bytes, WorkError> {
        let pool = &self.0;
        let begun = Instant::now();
        // Counted before the look at `draining`: whoever drains sees this task or turns it away.
        let _counted = InFlight::new(pool);
        if pool.draining.load(Ordering::SeqCst) {
            return Err(WorkError::Overloaded);
        }
        let mut stopped = pool.stop.subscribe();
        let work = async {
            let slot = pool.slot().await?;
            let worker = self.worker().await?;
            let left = budget.saturating_sub(begun.elapsed());
            let busy = Busy { pool, until: Some(Instant::now() + left), _slot: slot };
            busy.handle(worker, task, left).await
        };
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => Err(WorkError::Failed(CallFailure::Stopped.to_string())),
            result = work => result,
            // A little later than the guest's own end, which says more.
            () = tokio::time::sleep(budget.saturating_add(Duration::from_millis(20))) => Err(WorkError::TimedOut),
        }
    }

    /// Makes an instance before there is a task for it, which then need not wait for one.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn warm(&self) -> Result<(), LoadError> {
        let worker = self.make().await?;
        self.0.idle().push(worker);
        Ok(())
    }

    async fn make(&self) -> Result<Worker, LoadError> {
        let (host, linked, whereabouts) = ((self.0.hosts)(), self.0.linked.clone(), Whereabouts::new());
        let (own, there) = (Arc::clone(&host), whereabouts.clone());
        let making = async move {
            let made = Guest::make(&linked, own, there.clone(), std::future::pending()).await;
            there.ends(false);
            made
        };
        let made = Call::new(making, whereabouts, self.0.engine()).await;
        let gone = || LoadError::new(Step::Instantiate, "the runtime that guests run on is shutting down");
        let guest = made.ok_or_else(gone)??;
        self.0.made.fetch_add(1, Ordering::Relaxed);
        Ok(Worker { guest, host, done: 0 })
    }

    async fn worker(&self) -> Result<Worker, WorkError> {
        let idle = self.0.idle().pop();
        if let Some(worker) = idle {
            return Ok(worker);
        }
        self.make().await.map_err(|error| {
            self.0.ended(true);
            WorkError::Failed(format!("no instance could be made: {error}"))
        })
    }

    /// Refuses new tasks from now on and waits until those that were taken have ended, at most for `deadline`. Gives the
    /// number of tasks that are still there; 0 means that the pool is empty.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.0.draining.store(true, Ordering::SeqCst);
        let mut count = self.0.in_flight.subscribe();
        let _ = tokio::time::timeout(deadline, count.wait_for(|tasks| *tasks == 0)).await;
        let left = self.in_flight();
        if left == 0 {
            self.0.idle().clear();
        }
        left
    }

    /// Refuses new tasks and stops those that run, at once.
    pub fn stop(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        self.0.stop.send_replace(true);
        self.0.idle().clear();
    }

    /// The tasks that were taken and have not ended, those that wait included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        *self.0.in_flight.borrow()
    }

    /// How the tasks have ended that its guests were given, and how it changes. Tasks that were refused, or that nobody wanted any
    /// more before their time was up, are not counted.
    #[must_use]
    pub fn outcomes(&self) -> watch::Receiver<Outcomes> {
        self.0.outcomes.subscribe()
    }

    /// Whether it takes no more tasks, because it is being drained or was stopped.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// How many instances were made so far.
    #[must_use]
    pub fn instances_made(&self) -> usize {
        self.0.made.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> Engine {
        self.linked.component().engine().clone()
    }

    fn ended(&self, failed: bool) {
        self.outcomes.send_modify(|outcomes| outcomes.count(failed));
    }

    /// Waits for a free slot, if there is room to wait.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, WorkError> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        let room = |waiting: usize| (waiting < self.options.queue).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).is_err() {
            return Err(WorkError::Overloaded);
        }
        let _place = Waiting(&self.waiting);
        Arc::clone(&self.slots).acquire_owned().await.map_err(|_| WorkError::Overloaded)
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A task that was taken.
struct InFlight<'a>(&'a Inner);

impl<'a> InFlight<'a> {
    fn new(pool: &'a Inner) -> Self {
        pool.in_flight.send_modify(|tasks| *tasks += 1);
        Self(pool)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|tasks| *tasks -= 1);
    }
}

/// A task that an instance is at. If it is dropped before the task has ended, the guest is stopped.
struct Busy<'a> {
    pool: &'a Inner,
    /// When its time is up; none once it has been counted.
    until: Option<Instant>,
    _slot: OwnedSemaphorePermit,
}

/// Whoever asked gives up at its own deadline, which is this guest's less the way here: a guest that is dropped so shortly before it has
/// let the time run out as well.
const NEARLY: Duration = Duration::from_millis(50);

/// To copy so much takes as long as two changes of thread (1 MiB takes half as long): whoever carries the next message does that
/// meanwhile.
const LARGE: usize = 2 << 20;

impl Busy<'_> {
    async fn handle(mut self, mut worker: Worker, task: Task, budget: Duration) -> Result<Bytes, WorkError> {
        let limits = self.pool.linked.limits();
        let (own, limit) = (limits.task, limits.message_bytes);
        worker.host.given_task();
        let whereabouts = worker.guest.whereabouts().clone();
        if task.payload.len() >= LARGE {
            whereabouts.ends(true);
        }
        let calling = async move {
            let result = worker.guest.task(&task, budget.min(own)).await;
            // What a guest that is lost held is free again before anybody hears of it.
            let kept = result.as_ref().map_or_else(CallFailure::leaves_instance, |_| true).then_some(worker);
            (kept, result)
        };
        let called = Call::new(calling, whereabouts, self.pool.engine()).await;
        let (kept, result) = called.unwrap_or((None, Err(CallFailure::Stopped)));
        if let Some(mut worker) = kept {
            worker.done += 1;
            let worn = self.pool.options.recycle_after > 0 && worker.done >= self.pool.options.recycle_after;
            if !worn && !self.pool.draining.load(Ordering::SeqCst) {
                self.pool.idle().push(worker);
            }
        }
        let too_large = result.as_ref().is_ok_and(|answer| answer.len() as u64 > limit);
        self.until = None;
        self.pool.ended(too_large || result.is_err());
        match result {
            Ok(_) if too_large => Err(WorkError::TooLarge(limit)),
            Ok(answer) => Ok(answer.into()),
            Err(CallFailure::Refused(text)) => Err(WorkError::Failed(text)),
            // The sender's time is up. A task that takes longer than this member allows has failed instead.
            Err(CallFailure::TimedOut { .. }) if budget <= own => Err(WorkError::TimedOut),
            Err(failure) => Err(WorkError::Failed(format!("the guest {failure}"))),
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        // Cut off. Only if the time was up is that the guest's doing.
        if self.until.is_some_and(|until| Instant::now() + NEARLY >= until) {
            self.pool.ended(true);
        }
    }
}
