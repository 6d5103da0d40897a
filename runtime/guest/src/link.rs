//! A component with what it was granted: ready to be instantiated, again and again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_core::callback::{Exports, Step};
use wasmtime::component::{ComponentExportIndex, HasSelf, InstancePre, Linker};

use crate::bindings;
use crate::bindings::exports::bellwether::runtime::{handover, lifecycle, observer, ticker};
use crate::component::Component;
use crate::context::Ctx;
use crate::contract::granted;
use crate::error::{LoadError, one_line};
use crate::grants::Grants;
use crate::host::Host;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::unsent;

/// A component together with its configuration, grants and limits. Cheap to clone.
#[derive(Clone)]
pub struct Linked(pub(crate) Arc<Release>);

pub(crate) struct Release {
    pub(crate) component: Component,
    pub(crate) pre: InstancePre<Ctx>,
    pub(crate) grants: Grants,
    pub(crate) limits: Arc<Limits>,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) indices: Indices,
}

/// Where the exports are found; those that the component does not have are `None`.
pub(crate) struct Indices {
    pub(crate) lifecycle: lifecycle::GuestIndices,
    pub(crate) worker: Option<ComponentExportIndex>,
    pub(crate) ticker: Option<ticker::GuestIndices>,
    pub(crate) handover: Option<handover::GuestIndices>,
    pub(crate) observer: Option<observer::GuestIndices>,
}

impl std::fmt::Debug for Linked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration may hold secrets.
        f.debug_struct("Linked").field("component", &self.0.component).finish_non_exhaustive()
    }
}

impl Linked {
    pub(crate) fn new(
        component: &Component,
        grants: &Grants,
        limits: &Limits,
        config: BTreeMap<String, String>,
    ) -> Result<Self, LoadError> {
        let refused = |error: wasmtime::Error| {
            LoadError::new(Step::Check, format!("the component cannot be linked: {}", one_line(&error)))
        };
        let no_handle = || LoadError::new(Step::Check, "the component cannot be linked: it has no worker.handle");
        let linker = linker(component, grants).map_err(refused)?;
        let pre = linker.instantiate_pre(component.wasm()).map_err(refused)?;
        let exports = component.exports();
        let indices = Indices {
            lifecycle: lifecycle::GuestIndices::new(&pre).map_err(refused)?,
            worker: exports
                .worker
                .then(|| bindings::lent::handle(component.wasm()).ok_or_else(no_handle))
                .transpose()?,
            ticker: exports.ticker.then(|| ticker::GuestIndices::new(&pre)).transpose().map_err(refused)?,
            handover: exports.handover.then(|| handover::GuestIndices::new(&pre)).transpose().map_err(refused)?,
            observer: exports.observer.then(|| observer::GuestIndices::new(&pre)).transpose().map_err(refused)?,
        };
        Ok(Self(Arc::new(Release {
            component: component.clone(),
            pre,
            grants: grants.clone(),
            limits: Arc::new(limits.clone()),
            config: Arc::new(config),
            indices,
        })))
    }

    /// The component that this was made of.
    #[must_use]
    pub fn component(&self) -> &Component {
        &self.0.component
    }

    /// The optional parts of the contract that it exports.
    #[must_use]
    pub fn exports(&self) -> Exports {
        self.0.component.exports()
    }

    /// The limits of its instances.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Makes an instance, in a store and a task of its own. The guest's own initialisation may take as long as a lifecycle
    /// callback. Must be called within a tokio runtime: calls run on it as well, unless they take long.
    ///
    /// # Errors
    /// When a granted folder cannot be opened, or the initialisation traps, takes too long or goes over a limit.
    pub async fn instantiate(&self, host: Arc<dyn Host>) -> Result<Instance, LoadError> {
        Instance::start(self, host).await
    }
}

/// Offers the interfaces that are granted, one by one: what is not in the linker cannot be called.
fn linker(component: &Component, grants: &Grants) -> wasmtime::Result<Linker<Ctx>> {
    use bindings::bellwether::runtime::{cluster, state, types, workers};
    use bindings::wasi::{config, logging};

    fn ctx(ctx: &mut Ctx) -> &mut Ctx {
        ctx
    }

    let mut linker = Linker::<Ctx>::new(&component.engine().0.wasm);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    types::add_to_linker::<_, HasSelf<Ctx>>(&mut linker, ctx)?;
    cluster::add_to_linker::<_, HasSelf<Ctx>>(&mut linker, ctx)?;
    config::store::add_to_linker::<_, HasSelf<Ctx>>(&mut linker, ctx)?;
    if granted(grants, "workers") {
        workers::add_to_linker::<_, HasSelf<Ctx>>(&mut linker, ctx)?;
    }
    if granted(grants, "state") {
        state::add_to_linker::<_, HasSelf<Ctx>>(&mut linker, ctx)?;
    }
    if !grants.http.is_empty() {
        unsent::add_to_linker(&mut linker)?;
    }
    if granted(grants, "logging") {
        logging::logging::add_to_linker::<_, HasSelf<Ctx>>(&mut linker, ctx)?;
    }
    Ok(linker)
}
