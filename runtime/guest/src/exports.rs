//! The exports of an instance, found and type-checked.

use wasmtime::Store;
use wasmtime::component::Instance;

use crate::bindings::exports::bellwether::runtime::{handover, lifecycle, observer, ticker, worker};
use crate::context::Ctx;
use crate::link::Indices;

/// What can be called in one instance.
pub(crate) struct Loaded {
    pub(crate) lifecycle: lifecycle::Guest,
    pub(crate) worker: Option<worker::Guest>,
    pub(crate) ticker: Option<ticker::Guest>,
    pub(crate) handover: Option<handover::Guest>,
    pub(crate) observer: Option<observer::Guest>,
}

impl Loaded {
    pub(crate) fn load(indices: &Indices, store: &mut Store<Ctx>, instance: &Instance) -> wasmtime::Result<Self> {
        Ok(Self {
            lifecycle: indices.lifecycle.load(&mut *store, instance)?,
            worker: indices.worker.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            ticker: indices.ticker.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            handover: indices.handover.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            observer: indices.observer.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        })
    }
}
