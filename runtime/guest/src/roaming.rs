//! Where a guest runs: on the runtime of whoever calls it, until it turns out to compute.
//!
//! To change the runtime is to wake another thread, twice a call, which takes longer than most calls do. To stay would let a guest
//! that computes hold up the connections and the other guests of that runtime. So a guest begins where it is called; one that has computed for
//! [`BRIEF`] goes on where those that compute are, and comes back after a call that was brief.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::engine::Engine;

/// A guest that computes for longer without giving way does so apart from others.
const BRIEF: Duration = Duration::from_millis(1);

/// Where a guest wants to be. Shared by the guest and by the future that carries it.
#[derive(Debug, Clone)]
pub(crate) struct Whereabouts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    apart: AtomicBool,
    made: Instant,
    /// When it was last given the processor, in microseconds after `made`.
    resumed: AtomicU64,
}

impl Whereabouts {
    /// Of a guest that computes to begin with: it is being made.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { apart: AtomicBool::new(true), made: Instant::now(), resumed: AtomicU64::new(0) }))
    }

    /// Says that the guest gives way in the midst of a computation. Gives whether that has been a long one.
    pub(crate) fn gives_way(&self) -> bool {
        let long = self.has_been_long();
        if long {
            self.0.apart.store(true, Ordering::Relaxed);
        }
        long
    }

    /// Whether the guest has had the processor for long since it was last given it.
    pub(crate) fn has_been_long(&self) -> bool {
        self.micros().saturating_sub(self.0.resumed.load(Ordering::Relaxed)) >= BRIEF.as_micros() as u64
    }

    /// Says that the guest has ended a call, and whether it computed for long in it.
    pub(crate) fn ends(&self, long: bool) {
        self.0.apart.store(long, Ordering::Relaxed);
    }

    fn resumes(&self) {
        self.0.resumed.store(self.micros(), Ordering::Relaxed);
    }

    fn micros(&self) -> u64 {
        self.0.made.elapsed().as_micros() as u64
    }
}

/// A guest on the one runtime or the other.
pub(crate) struct Roaming {
    /// None once it has gone on elsewhere.
    guest: Option<BoxFuture<'static, ()>>,
    whereabouts: Whereabouts,
    apart: bool,
    here: Handle,
    elsewhere: Handle,
}

impl Roaming {
    /// Lets `guest` run, on `apart` or on `callers`.
    pub(crate) fn start(
        guest: impl Future<Output = ()> + Send + 'static,
        whereabouts: Whereabouts,
        callers: Handle,
        apart: Handle,
    ) {
        let (guest, here, elsewhere) = (Some(Box::pin(guest) as _), apart.clone(), callers);
        apart.spawn(Self { guest, whereabouts, apart: true, here, elsewhere });
    }
}

impl Future for Roaming {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut guest) = self.guest.take() else { return Poll::Ready(()) };
        self.whereabouts.resumes();
        let polled = {
            let _entered = (!self.apart).then(|| self.elsewhere.enter());
            guest.as_mut().poll(cx)
        };
        if polled.is_ready() {
            return Poll::Ready(());
        }
        if self.whereabouts.0.apart.load(Ordering::Relaxed) == self.apart {
            self.guest = Some(guest);
            return Poll::Pending;
        }
        // Polled as soon as it is there: what has woken this task meanwhile is not missed.
        let next = Self {
            guest: Some(guest),
            whereabouts: self.whereabouts.clone(),
            apart: !self.apart,
            here: self.elsewhere.clone(),
            elsewhere: self.here.clone(),
        };
        self.elsewhere.spawn(next);
        Poll::Ready(())
    }
}

/// One call of a guest, that goes on elsewhere if it turns out to compute. If this is dropped, it ends.
pub(crate) enum Call<T> {
    /// It runs where this is polled.
    Here { call: BoxFuture<'static, Option<T>>, whereabouts: Whereabouts, engine: Engine },
    /// It runs on the runtime of those that compute.
    Apart(Ending<T>),
}

/// Something that ends when nobody waits for it any more.
pub(crate) struct Ending<T> {
    call: JoinHandle<Option<T>>,
    engine: Engine,
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        if !self.call.is_finished() {
            self.call.abort();
            // It gives way at the next epoch: make it now.
            self.engine.0.wasm.increment_epoch();
        }
    }
}

impl<T: Send + 'static> Call<T> {
    /// A call of a guest that wants to be there. If the engine has no runtime for those that compute, it stays here.
    pub(crate) fn new(
        call: impl Future<Output = T> + Send + 'static,
        whereabouts: Whereabouts,
        engine: Engine,
    ) -> Self {
        // Whoever panics does so for itself, wherever that is.
        let call = AssertUnwindSafe(call).catch_unwind().map(Result::ok).boxed();
        Self::Here { call, whereabouts, engine }
    }
}

impl<T: Send + 'static> Future for Call<T> {
    /// None if it has panicked, or the runtime that it ran on has ended.
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            match &mut *self {
                Self::Apart(Ending { call, .. }) => return Pin::new(call).poll(cx).map(|ended| ended.ok().flatten()),
                Self::Here { call, whereabouts, engine } => {
                    let wants = |whereabouts: &Whereabouts| whereabouts.0.apart.load(Ordering::Relaxed);
                    let apart = engine.0.runtime.as_ref();
                    if apart.is_none() || !wants(whereabouts) {
                        whereabouts.resumes();
                        // What it has done for it by other threads is not to fill those of its caller.
                        let _entered = apart.map(Handle::enter);
                        if let Poll::Ready(result) = call.as_mut().poll(cx) {
                            return Poll::Ready(result);
                        }
                    }
                    let Some(apart) = apart.filter(|_| wants(whereabouts)) else { return Poll::Pending };
                    let mut call = std::mem::replace(call, Box::pin(std::future::pending()));
                    let whereabouts = whereabouts.clone();
                    let call = apart.spawn(std::future::poll_fn(move |cx| {
                        whereabouts.resumes();
                        call.as_mut().poll(cx)
                    }));
                    let engine = engine.clone();
                    *self = Self::Apart(Ending { call, engine });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineOptions;
    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::mpsc;

    fn runtime(name: &str) -> Runtime {
        Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build().expect("a runtime")
    }

    fn here() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    /// Computes until it has been long, and gives way then.
    async fn compute(whereabouts: &Whereabouts) {
        while !whereabouts.gives_way() {
            std::hint::spin_loop();
        }
        tokio::task::yield_now().await;
    }

    #[test]
    fn who_computes_goes_and_who_does_not_comes_back() {
        let (callers, apart) = (runtime("callers"), runtime("apart"));
        let whereabouts = Whereabouts::new();
        let (calls, mut called) = mpsc::channel::<bool>(1);
        let (tell, mut told) = mpsc::channel(8);
        let own = whereabouts.clone();
        let guest = async move {
            own.ends(false);
            while let Some(long) = called.recv().await {
                let before = here();
                if long {
                    compute(&own).await;
                }
                own.ends(long);
                tell.send((before, here())).await.expect("somebody listens");
            }
        };
        Roaming::start(guest, whereabouts, callers.handle().clone(), apart.handle().clone());
        let mut call = |long| {
            calls.blocking_send(long).expect("the guest runs");
            let (before, after) = told.blocking_recv().expect("the guest answers");
            format!("{before} {after}")
        };
        // The next call may be there before the guest has moved: then it stays for that one.
        let brief = |call: &mut dyn FnMut(bool) -> String| {
            let mut found = (0..1_000).map(|_| call(false)).skip_while(|found| found == "apart apart");
            assert_eq!(found.next().as_deref(), Some("callers callers"));
        };
        brief(&mut call);
        assert_eq!(call(true), "callers apart");
        assert_eq!(call(true), "apart apart", "whoever computed is expected to do so again");
        brief(&mut call);
    }

    #[test]
    fn one_call_goes_on_elsewhere_and_ends_with_whoever_waits_for_it() {
        let (callers, apart) = (runtime("callers"), runtime("apart"));
        let options = EngineOptions { runtime: Some(apart.handle().clone()), ..EngineOptions::default() };
        let engine = Engine::new(options).expect("an engine");
        let whereabouts = Whereabouts::new();
        let call = |long| {
            let own = whereabouts.clone();
            let calling = async move {
                if long {
                    compute(&own).await;
                }
                own.ends(long);
                here()
            };
            let call = Call::new(calling, whereabouts.clone(), engine.clone());
            callers.block_on(callers.spawn(call)).expect("it does not panic").expect("it ends")
        };
        assert_eq!(call(false), "apart", "it is made there");
        assert_eq!(call(false), "callers");
        assert_eq!(call(true), "apart");
        assert_eq!(call(false), "apart");
        let panics = Call::new(async { panic!("as a test wants it") }, whereabouts.clone(), engine.clone());
        assert_eq!(callers.block_on(panics), None::<()>);
        let (held, free) = std::sync::mpsc::channel::<()>();
        let own = whereabouts.clone();
        let endless = async move {
            let _held = held;
            loop {
                compute(&own).await;
            }
        };
        let call = Call::new(endless, whereabouts.clone(), engine.clone());
        let waiting = callers.spawn(call);
        while !whereabouts.0.apart.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        waiting.abort();
        let ended = free.recv_timeout(Duration::from_secs(60));
        assert_eq!(ended, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "what it holds is free");
    }
}
