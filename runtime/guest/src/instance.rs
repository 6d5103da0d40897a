//! An instance of a guest: an actor that owns the store, and handles to it.
//!
//! Calls reach the guest one at a time because one task owns the store and takes one job after the other. That task is
//! also where every call can be cut off: by its budget, by [`Instance::stop`], or because whoever asked went away.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, Returned, Step};
use bellwether_core::work::Task;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wasmtime::{Store, UpdateDeadline};

use crate::context::{Ctx, bytes};
use crate::convert;
use crate::error::LoadError;
use crate::exports::Loaded;
use crate::host::{Host, LogLevel};
use crate::link::Linked;
use crate::trap;

/// What a guest may copy to the host in one call, beyond the limit for messages: names, keys, the lists' own bytes. What
/// lies between the limit and this is refused in words; beyond it the guest is stopped before the host allocates it.
const HEADROOM: u64 = 1 << 20;

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
pub(crate) enum Work {
    Callback(Callback),
    Task(Task),
}

/// What came of it.
pub(crate) enum Outcome {
    Returned(Returned),
    Answer(Vec<u8>),
}

struct Job {
    work: Work,
    budget: Duration,
    reply: oneshot::Sender<Result<Outcome, CallFailure>>,
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
        let actor = run(linked.clone(), host, Arc::clone(&shared), stopped, queue, ready);
        match &engine.0.runtime {
            Some(runtime) => runtime.spawn(actor),
            None => tokio::spawn(actor),
        };
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
        match self.submit(Work::Callback(callback), budget).await? {
            Outcome::Returned(returned) => Ok(returned),
            Outcome::Answer(_) => Ok(Returned::Done),
        }
    }

    /// Gives the guest a task.
    pub(crate) async fn handle(&self, task: Task, budget: Duration) -> Result<Vec<u8>, CallFailure> {
        match self.submit(Work::Task(task), budget).await? {
            Outcome::Answer(answer) => Ok(answer),
            Outcome::Returned(_) => Ok(Vec::new()),
        }
    }

    async fn submit(&self, work: Work, budget: Duration) -> Result<Outcome, CallFailure> {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job { work, budget, reply }).await.is_err() {
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

/// How a bounded call ended early.
enum Cut {
    Stopped,
    TimedOut,
}

/// Runs a call until it ends or is cut off. The guest gives way at each epoch, so the other branches are looked at again
/// however busy it is.
async fn bounded<T>(
    call: impl Future<Output = T>,
    deadline: Instant,
    stopped: &mut watch::Receiver<bool>,
    abandoned: impl Future<Output = ()>,
) -> Result<T, Cut> {
    tokio::select! {
        biased;
        // An error means that the last handle is gone.
        _ = stopped.wait_for(|stop| *stop) => Err(Cut::Stopped),
        () = abandoned => Err(Cut::Stopped),
        result = call => Ok(result),
        // Later than the guest's own deadline, which knows the place where the guest was.
        () = tokio::time::sleep_until(deadline + GRACE) => Err(Cut::TimedOut),
    }
}

/// Epochs do not stop a guest that waits in a host call; the timer does, this much later.
const GRACE: Duration = Duration::from_millis(5);

async fn run(
    linked: Linked,
    host: Arc<dyn Host>,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
    mut queue: mpsc::Receiver<Job>,
    mut ready: oneshot::Sender<Result<(), LoadError>>,
) {
    let mut guest = match prepare(&linked, host, &mut stopped, &mut ready).await {
        Ok(guest) => guest,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    drop(linked);
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
        let Some(Job { work, budget, mut reply }) = job else { return };
        if reply.is_closed() {
            // Whoever asked went away before the call began: nothing has happened, and nothing will.
            continue;
        }
        let result = guest.call(work, budget, &mut stopped, reply.closed()).await;
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

async fn prepare(
    linked: &Linked,
    host: Arc<dyn Host>,
    stopped: &mut watch::Receiver<bool>,
    ready: &mut oneshot::Sender<Result<(), LoadError>>,
) -> Result<Guest, LoadError> {
    let failed = |why: String| LoadError::new(Step::Instantiate, why);
    let release = &linked.0;
    let ctx = Ctx::new(host, &release.grants, &release.limits, &release.config).map_err(failed)?;
    let mut store = Store::new(&release.component.engine().0.wasm, ctx);
    store.limiter(|ctx| &mut ctx.meter);
    let copied = release.limits.message_bytes.saturating_add(HEADROOM);
    store.set_hostcall_fuel(usize::try_from(copied).unwrap_or(usize::MAX));
    store.epoch_deadline_callback(|mut store| {
        let ctx = store.data_mut();
        ctx.check_calls()?;
        if Instant::now() >= ctx.deadline {
            return Ok(UpdateDeadline::Interrupt);
        }
        // Giving way through tokio lets its timers and sockets have their turn too; wasmtime's own yield does not.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    let budget = release.limits.callback;
    let deadline = begin(&mut store, budget);
    let made = async {
        let instance = release.pre.instantiate_async(&mut store).await?;
        Loaded::load(&release.indices, &mut store, &instance)
    };
    let result = bounded(made, deadline, stopped, ready.closed()).await;
    store.data_mut().end();
    let budget_ms = millis(budget);
    let reason = match result {
        Ok(Ok(exports)) => return Ok(Guest { store, exports }),
        Ok(Err(error)) => trap::failure(&error, store.data(), budget_ms),
        Err(Cut::TimedOut) => CallFailure::TimedOut { budget_ms },
        Err(Cut::Stopped) => CallFailure::Stopped,
    };
    Err(failed(format!("the guest's initialisation {reason}")))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn begin(store: &mut Store<Ctx>, budget: Duration) -> Instant {
    let now = Instant::now();
    let deadline = now.checked_add(budget).unwrap_or_else(|| now + Duration::from_secs(86_400));
    store.data_mut().begin(deadline);
    store.set_epoch_deadline(1);
    deadline
}

/// A store and what can be called in it.
struct Guest {
    store: Store<Ctx>,
    exports: Loaded,
}

impl Guest {
    async fn call(
        &mut self,
        work: Work,
        budget: Duration,
        stopped: &mut watch::Receiver<bool>,
        abandoned: impl Future<Output = ()>,
    ) -> Result<Outcome, CallFailure> {
        let deadline = begin(&mut self.store, budget);
        let call = self.exports.call(&mut self.store, &work);
        let result = bounded(call, deadline, stopped, abandoned).await;
        self.store.data_mut().end();
        let ctx = self.store.data();
        let budget_ms = millis(budget);
        match result {
            Ok(Ok(Ok(outcome))) => self.within_limits(outcome),
            Ok(Ok(Err(text))) => Err(CallFailure::Refused(text)),
            Ok(Err(error)) => {
                let failure = trap::failure(&error, ctx, budget_ms);
                if matches!(failure, CallFailure::TimedOut { .. })
                    && let Some(place) = trap::place(&error)
                {
                    ctx.output.runtime(LogLevel::Warn, &format!("stopped after {budget_ms} ms in {place}"));
                }
                Err(failure)
            }
            Err(Cut::TimedOut) => Err(CallFailure::TimedOut { budget_ms }),
            Err(Cut::Stopped) => Err(CallFailure::Stopped),
        }
    }

    /// A snapshot that is too large is refused, so that the guest whose snapshot it is goes on.
    fn within_limits(&self, outcome: Outcome) -> Result<Outcome, CallFailure> {
        let limit = self.store.data().limits.message_bytes;
        match &outcome {
            Outcome::Returned(Returned::Snapshot(state)) if state.len() as u64 > limit => {
                Err(CallFailure::Refused(format!(
                    "the snapshot is {}, where `message` under [group.limits] allows {}",
                    bytes(state.len() as u64),
                    bytes(limit)
                )))
            }
            _ => Ok(outcome),
        }
    }
}

impl Loaded {
    async fn call(&self, store: &mut Store<Ctx>, work: &Work) -> wasmtime::Result<Result<Outcome, String>> {
        let callback = match work {
            Work::Task(task) => {
                let Some(worker) = &self.worker else { return absent("worker") };
                return Ok(worker.call_handle(store, &convert::task(task)).await?.map(Outcome::Answer));
            }
            Work::Callback(callback) => callback,
        };
        let result = match callback {
            Callback::Elected { epoch, cause } => {
                self.lifecycle.call_on_elected(store, convert::leadership(*epoch, *cause)).await?
            }
            Callback::Demoted(reason) => self.lifecycle.call_on_demoted(store, &convert::demotion(reason)).await?,
            Callback::MembersChanged(change) => {
                self.lifecycle.call_on_members_changed(store, &convert::membership(change)).await?
            }
            Callback::Tick => {
                let Some(ticker) = &self.ticker else { return absent("ticker") };
                ticker.call_on_tick(store).await?
            }
            Callback::StateChanged { key, entry } => {
                let Some(observer) = &self.observer else { return absent("observer") };
                observer.call_on_state_changed(store, &convert::change(key, entry.as_ref())).await?
            }
            Callback::Snapshot => {
                let Some(handover) = &self.handover else { return absent("handover") };
                let state = handover.call_snapshot(store).await?;
                return Ok(Ok(Outcome::Returned(Returned::Snapshot(state.into()))));
            }
            Callback::Restore(state) => {
                let Some(handover) = &self.handover else { return absent("handover") };
                handover.call_restore(store, state).await?
            }
        };
        Ok(result.map(|()| Outcome::Returned(Returned::Done)))
    }
}

/// A call of an export that the component does not have. The node asks [`crate::Component::exports`] first.
fn absent(interface: &str) -> wasmtime::Result<Result<Outcome, String>> {
    Ok(Err(format!("the component does not export `{interface}`")))
}
