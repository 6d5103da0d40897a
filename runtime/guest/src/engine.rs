//! The engine that compiles and runs guests; one a process.

use std::collections::HashMap;
use std::io::PipeReader;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwether_core::callback::Step;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use crate::cache::Cache;
use crate::compiler::{self, Program};
use crate::component::{Component, Remembered};
use crate::contract::Contract;
use crate::error::{EngineError, LoadError, one_line};
use crate::format;

/// How the engine is made.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The folder for compiled components; none keeps nothing. It is made if it is not there, for this user alone.
    pub cache: Option<PathBuf>,
    /// How many bytes of compiled components are kept; those not used for longest go first.
    pub cache_bytes: u64,
    /// How often a guest that computes gives way to others.
    pub tick: Duration,
    /// The runtime for guests that compute, be it that they are being made or in a call that takes long. Without one they stay on
    /// the runtime of whoever instantiates them, where others may have to wait for them.
    pub runtime: Option<Handle>,
    /// The program that compiles components. Without one they are compiled in this process, which a component that is hard to
    /// compile then costs memory, and its other threads time.
    pub compiler: Option<Program>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { cache: None, cache_bytes: 1 << 30, tick: Duration::from_millis(10), runtime: None, compiler: None }
    }
}

/// Compiles and runs guests. Cheap to clone.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) wasm: wasmtime::Engine,
    pub(crate) contract: Contract,
    pub(crate) runtime: Option<Handle>,
    cache: Option<Cache>,
    compiler: Option<Program>,
    /// One compilation at a time: it takes a whole core, and is never urgent.
    compiling: Arc<Semaphore>,
    compiled: AtomicU64,
    /// What somebody has, by digest: a component that many groups run is in memory once.
    loaded: Mutex<HashMap<String, Remembered>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("cache", &self.0.cache).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes the engine and starts the thread that interrupts guests; the thread ends with the engine.
    ///
    /// # Errors
    /// When wasmtime does not support this machine, or the folder for compiled components is not usable or not private.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let wasm =
            wasmtime::Engine::new(&compiler::config()).map_err(|error| EngineError::Unsupported(one_line(&error)))?;
        let contract = Contract::load().map_err(EngineError::Unsupported)?;
        let cache =
            options.cache.as_deref().map(|folder| Cache::open(folder, options.cache_bytes, &wasm)).transpose()?;
        let (weak, tick) = (wasm.weak(), options.tick.max(Duration::from_millis(1)));
        std::thread::Builder::new()
            .name("guest-epoch".into())
            .spawn(move || {
                while let Some(engine) = weak.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    std::thread::sleep(tick);
                }
            })
            .map_err(EngineError::Thread)?;
        Ok(Self(Arc::new(Inner {
            wasm,
            contract,
            runtime: options.runtime,
            cache,
            compiler: options.compiler,
            compiling: Arc::new(Semaphore::new(1)),
            compiled: AtomicU64::new(0),
            loaded: Mutex::default(),
        })))
    }

    /// How many components this engine has compiled, those from the cache not counted.
    #[must_use]
    pub fn compiled(&self) -> u64 {
        self.0.compiled.load(Ordering::Relaxed)
    }

    /// Compiles a component, or takes its compiled form from the cache, and compares it with the contract. Dropped before, the program
    /// that compiles it is killed. All of it has the priority of the threads that this is polled on, which the threads and processes
    /// that it starts inherit: call it from one that stands back (see `nice`) where others are served meanwhile.
    ///
    /// # Errors
    /// When the bytes are not a component, or not one that fits the contract; the reason says what to do.
    pub async fn compile(&self, bytes: Bytes) -> Result<Component, LoadError> {
        format::check(&bytes)?;
        let failed = |why: &str| LoadError::new(Step::Compile, format!("could not be compiled: {why}"));
        let engine = self.clone();
        let look = move || {
            let digest = hex::encode(Sha256::digest(&bytes));
            (engine.compiled_before(&digest, bytes.len()), digest, bytes)
        };
        // What was compiled before need not wait for the compilation of something else.
        let (found, digest, bytes) = apart("guest-load", look)?.await.map_err(|_| failed("loading it failed"))?;
        if let Some(component) = found {
            return component;
        }
        let turn = Arc::clone(&self.0.compiling).acquire_owned().await.map_err(|_| failed("the engine is closed"))?;
        // Closed when this future is dropped.
        let (watched, _wanted) = std::io::pipe().map_err(|error| failed(&error.to_string()))?;
        let engine = self.clone();
        let compiling = apart("guest-compile", move || {
            let _turn = turn;
            engine.compile_now(&bytes, &digest, &watched)
        })?;
        compiling.await.unwrap_or_else(|_| Err(failed("the compiler failed; this is a fault of the compiler")))
    }

    fn compiled_before(&self, digest: &str, size: usize) -> Option<Result<Component, LoadError>> {
        let loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        if let Some(component) = loaded.and_then(|remembered| remembered.component()) {
            return Some(Ok(component));
        }
        let cached = self.0.cache.as_ref()?.get(&self.0.wasm, digest)?;
        Some(self.component(cached, digest, size))
    }

    fn component(
        &self,
        wasm: wasmtime::component::Component,
        digest: &str,
        size: usize,
    ) -> Result<Component, LoadError> {
        let component = Component::new(self, wasm, digest, size)?;
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have loaded it meanwhile.
        let there = loaded.get(digest).and_then(Remembered::component);
        if there.is_none() {
            loaded.retain(|_, remembered| remembered.is_there());
            loaded.insert(digest.to_owned(), component.remembered());
        }
        drop(loaded);
        Ok(there.unwrap_or(component))
    }

    fn compile_now(&self, bytes: &[u8], digest: &str, wanted: &PipeReader) -> Result<Component, LoadError> {
        // Whoever had the turn before may have compiled the same.
        if let Some(component) = self.compiled_before(digest, bytes.len()) {
            return component;
        }
        let compiled = match &self.0.compiler {
            Some(program) => program.compile(bytes, wanted)?,
            None => compiler::here(&self.0.wasm, bytes)?,
        };
        self.0.compiled.fetch_add(1, Ordering::Relaxed);
        // SAFETY: they come from the compiler, this very moment.
        #[expect(unsafe_code, reason = "loading what was compiled is what compiling is for")]
        let loaded = unsafe { compiler::load(&self.0.wasm, &compiled) };
        let wasm = loaded.map_err(|error| {
            LoadError::new(Step::Compile, format!("what the compiler wrote is not usable: {}", one_line(&error)))
        })?;
        if let Some(cache) = &self.0.cache
            && let Err(error) = cache.put(digest, &compiled)
        {
            tracing::warn!(%error, "the compiled component could not be kept; it is compiled again after a restart");
        }
        self.component(wasm, digest, bytes.len())
    }
}

/// Does `work` on a thread of its own: it takes its time, and as deep a stack as the component is nested.
fn apart<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, LoadError> {
    let (reply, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.into()).stack_size(16 << 20);
    thread
        .spawn(move || drop(reply.send(work())))
        .map_err(|error| LoadError::new(Step::Compile, format!("could not be compiled: no thread: {error}")))?;
    Ok(answer)
}
