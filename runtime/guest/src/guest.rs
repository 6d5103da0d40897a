//! A guest: a store, and the calls of what its component exports. Each is bounded, and can be cut off.

use std::sync::Arc;
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, Returned, Step};
use tokio::time::Instant;
use wasmtime::{Store, UpdateDeadline};

use crate::bindings::lent;
use crate::context::{Ctx, bytes};
use crate::convert;
use crate::error::LoadError;
use crate::exports::Loaded;
use crate::host::{Host, LogLevel, Task};
use crate::link::Linked;
use crate::roaming::Whereabouts;
use crate::trap;

/// What a guest may copy to the host in one call, beyond the limit for messages: names, keys, the lists' own bytes. What
/// lies between the limit and this is refused in words; beyond it the guest is stopped before the host allocates it.
const HEADROOM: u64 = 1 << 20;

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
    stopped: impl Future<Output = ()>,
) -> Result<T, Cut> {
    tokio::select! {
        biased;
        () = stopped => Err(Cut::Stopped),
        result = call => Ok(result),
        // Later than the guest's own deadline, which knows the place where the guest was.
        () = tokio::time::sleep_until(deadline + GRACE) => Err(Cut::TimedOut),
    }
}

/// Epochs do not stop a guest that waits in a host call; the timer does, this much later.
const GRACE: Duration = Duration::from_millis(5);

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
pub(crate) struct Guest {
    store: Store<Ctx>,
    exports: Loaded,
    whereabouts: Whereabouts,
}

impl Guest {
    /// Makes an instance, unless that takes longer than a callback may, or `stopped` comes first.
    pub(crate) async fn make(
        linked: &Linked,
        host: Arc<dyn Host>,
        whereabouts: Whereabouts,
        stopped: impl Future<Output = ()>,
    ) -> Result<Self, LoadError> {
        let failed = |why: String| LoadError::new(Step::Instantiate, why);
        let release = &linked.0;
        let ctx = Ctx::new(host, &release.grants, &release.limits, &release.config).map_err(failed)?;
        let mut store = Store::new(&release.component.engine().0.wasm, ctx);
        store.limiter(|ctx| &mut ctx.meter);
        let copied = release.limits.message_bytes.saturating_add(HEADROOM);
        store.set_hostcall_fuel(usize::try_from(copied).unwrap_or(usize::MAX));
        let own = whereabouts.clone();
        store.epoch_deadline_callback(move |mut store| {
            let ctx = store.data_mut();
            ctx.check_calls()?;
            if Instant::now() >= ctx.deadline {
                return Ok(UpdateDeadline::Interrupt);
            }
            ctx.computed |= own.gives_way();
            // Giving way through tokio lets its timers and sockets have their turn too; wasmtime's own yield does not.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        let budget = release.limits.callback;
        let deadline = begin(&mut store, budget);
        let made = async {
            let instance = release.pre.instantiate_async(&mut store).await?;
            Loaded::load(&release.indices, &mut store, &instance)
        };
        let result = bounded(made, deadline, stopped).await;
        store.data_mut().end();
        let budget_ms = millis(budget);
        let reason = match result {
            Ok(Ok(exports)) => return Ok(Self { store, exports, whereabouts }),
            Ok(Err(error)) => trap::failure(&error, store.data(), budget_ms),
            Err(Cut::TimedOut) => CallFailure::TimedOut { budget_ms },
            Err(Cut::Stopped) => CallFailure::Stopped,
        };
        Err(failed(format!("the guest's initialisation {reason}")))
    }

    /// Where it wants to run.
    pub(crate) fn whereabouts(&self) -> &Whereabouts {
        &self.whereabouts
    }

    /// Calls the guest until it returns, `budget` has passed, or `stopped` comes first. If this is dropped before, or fails but for
    /// `Refused`, the guest is of no use any more.
    pub(crate) async fn callback(
        &mut self,
        callback: &Callback,
        budget: Duration,
        stopped: impl Future<Output = ()>,
    ) -> Result<Returned, CallFailure> {
        let deadline = begin(&mut self.store, budget);
        let called = bounded(self.exports.callback(&mut self.store, callback), deadline, stopped).await;
        let returned = self.ended(called, budget)?;
        self.within_limits(returned)
    }

    /// Gives the guest a task. Otherwise as [`Guest::callback`].
    pub(crate) async fn task(&mut self, task: &Task, budget: Duration) -> Result<Vec<u8>, CallFailure> {
        let deadline = begin(&mut self.store, budget);
        let called = self.exports.task(&mut self.store, task);
        // Whoever cuts it off drops this.
        let called = bounded(called, deadline, std::future::pending()).await;
        self.ended(called, budget)
    }

    /// What has come of a call.
    fn ended<T>(
        &mut self,
        result: Result<wasmtime::Result<Result<T, String>>, Cut>,
        budget: Duration,
    ) -> Result<T, CallFailure> {
        self.store.data_mut().end();
        let ctx = self.store.data();
        self.whereabouts.ends(ctx.computed || self.whereabouts.has_been_long());
        let budget_ms = millis(budget);
        match result {
            Ok(Ok(Ok(returned))) => Ok(returned),
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
    fn within_limits(&self, returned: Returned) -> Result<Returned, CallFailure> {
        let limit = self.store.data().limits.message_bytes;
        match &returned {
            Returned::Snapshot(state) if state.len() as u64 > limit => Err(CallFailure::Refused(format!(
                "the snapshot is {}, where `message` under [group.limits] allows {}",
                bytes(state.len() as u64),
                bytes(limit)
            ))),
            _ => Ok(returned),
        }
    }
}

impl Loaded {
    async fn task(&self, store: &mut Store<Ctx>, task: &Task) -> wasmtime::Result<Result<Vec<u8>, String>> {
        let Some(worker) = &self.worker else { return absent("worker") };
        // Typed anew at each call, as the type has the lifetime of what is lent. That it fits was found when the component was loaded.
        let handle: lent::Handle<'_> = worker.typed(&store)?;
        let (result,) = handle.call_async(store, (convert::task(task),)).await?;
        Ok(result)
    }

    async fn callback(
        &self,
        store: &mut Store<Ctx>,
        callback: &Callback,
    ) -> wasmtime::Result<Result<Returned, String>> {
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
                return Ok(Ok(Returned::Snapshot(state.into())));
            }
            Callback::Restore(state) => {
                let Some(handover) = &self.handover else { return absent("handover") };
                handover.call_restore(store, state).await?
            }
        };
        Ok(result.map(|()| Returned::Done))
    }
}

/// A call of an export that the component does not have. The node asks [`crate::Component::exports`] first.
fn absent<T>(interface: &str) -> wasmtime::Result<Result<T, String>> {
    Ok(Err(format!("the component does not export `{interface}`")))
}
