//! A compiled component that fits the contract.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bellwether_core::callback::{Exports, Step};

use crate::engine::Engine;
use crate::error::LoadError;
use crate::findings::{Description, Findings};
use crate::grants::Grants;
use crate::limits::Limits;
use crate::link::Linked;

/// A compiled component, compared with the contract. Cheap to clone.
#[derive(Clone)]
pub struct Component(Arc<Inner>);

/// One that lives only as long as somebody has it.
#[derive(Clone)]
pub(crate) struct Remembered(Weak<Inner>);

impl Remembered {
    pub(crate) fn component(&self) -> Option<Component> {
        self.0.upgrade().map(Component)
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }
}

struct Inner {
    engine: Engine,
    wasm: wasmtime::component::Component,
    findings: Findings,
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").field("digest", &self.digest()).field("exports", &self.exports()).finish()
    }
}

impl Component {
    pub(crate) fn new(
        engine: &Engine,
        wasm: wasmtime::component::Component,
        digest: &str,
        size: usize,
    ) -> Result<Self, LoadError> {
        let findings = Findings::new(&engine.0.wasm, &engine.0.contract, &wasm, digest, size);
        if !findings.problems.is_empty() {
            let error =
                LoadError::of_problems(Step::Check, "the component does not fit the contract", &findings.problems);
            return Err(LoadError { findings: Some(findings.into()), ..error });
        }
        Ok(Self(Arc::new(Inner { engine: engine.clone(), wasm, findings })))
    }

    /// The SHA-256 of the component as it was read, in hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.0.findings.digest()
    }

    /// The optional parts of the contract that it exports.
    #[must_use]
    pub fn exports(&self) -> Exports {
        self.0.findings.exports
    }

    /// What it is, exports and needs.
    #[must_use]
    pub fn describe(&self) -> Description {
        self.0.findings.describe()
    }

    /// What was found when it was compared with the contract.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.0.findings
    }

    /// Makes a release of the component: gives it what is granted, and nothing else.
    ///
    /// # Errors
    /// When it imports what is not granted or not to be had, or takes more than its limits from the start; everything that is in
    /// the way is named, with what to do about it.
    pub fn link(
        &self,
        grants: &Grants,
        limits: &Limits,
        config: BTreeMap<String, String>,
    ) -> Result<Linked, LoadError> {
        let obstacles = self.0.findings.obstacles(Some(grants), limits);
        if !obstacles.is_empty() {
            return Err(LoadError::of_problems(Step::Check, "the component needs what it cannot have", &obstacles));
        }
        Linked::new(self, grants, limits, config)
    }

    /// For whoever wants the same once more.
    pub(crate) fn remembered(&self) -> Remembered {
        Remembered(Arc::downgrade(&self.0))
    }

    pub(crate) fn wasm(&self) -> &wasmtime::component::Component {
        &self.0.wasm
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }
}
