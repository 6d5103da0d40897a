//! The exports of an instance, found.

use wasmtime::Store;
use wasmtime::component::{Func, Instance};

use crate::bindings::exports::bellwether::runtime::{handover, lifecycle, observer, ticker};
use crate::context::Ctx;
use crate::link::Indices;

/// What can be called in one instance.
pub(crate) struct Loaded {
    pub(crate) lifecycle: lifecycle::Guest,
    pub(crate) worker: Option<Func>,
    pub(crate) ticker: Option<ticker::Guest>,
    pub(crate) handover: Option<handover::Guest>,
    pub(crate) observer: Option<observer::Guest>,
}

impl Loaded {
    pub(crate) fn load(indices: &Indices, store: &mut Store<Ctx>, instance: &Instance) -> wasmtime::Result<Self> {
        Ok(Self {
            lifecycle: indices.lifecycle.load(&mut *store, instance)?,
            worker: indices.worker.and_then(|found| instance.get_func(&mut *store, found)),
            ticker: indices.ticker.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            handover: indices.handover.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            observer: indices.observer.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        })
    }
}
