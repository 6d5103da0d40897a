//! A compiled component that fits the contract.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_core::callback::{Exports, Step};
use serde::Serialize;

use crate::contract::{self, Source};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::grants::Grants;
use crate::limits::Limits;
use crate::link::Linked;

/// A compiled component, compared with the contract. Cheap to clone.
#[derive(Clone)]
pub struct Component(Arc<Inner>);

struct Inner {
    engine: Engine,
    wasm: wasmtime::component::Component,
    digest: Arc<str>,
    size: usize,
    exports: Exports,
    /// Every export, as the component names it.
    exported: Vec<String>,
    imports: Vec<(String, Source)>,
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").field("digest", &self.0.digest).field("exports", &self.0.exports).finish()
    }
}

/// What a component is, for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Its size in bytes.
    pub size: usize,
    /// Its SHA-256, in hex.
    pub digest: String,
    /// The optional parts of the contract that it exports.
    pub optional: Exports,
    /// Everything it exports.
    pub exports: Vec<String>,
    /// Everything it imports.
    pub imports: Vec<ImportDescription>,
    /// What keeps it from being linked, whatever is granted.
    pub problems: Vec<String>,
}

/// One import of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportDescription {
    /// The interface.
    pub name: String,
    /// Who grants it: `always`, the manifest's setting, or nobody.
    pub granted_by: String,
}

impl Component {
    pub(crate) fn new(
        engine: &Engine,
        wasm: wasmtime::component::Component,
        digest: &str,
        size: usize,
    ) -> Result<Self, LoadError> {
        let ty = wasm.component_type();
        let (imports, mut problems) = engine.0.contract.check_imports(&engine.0.wasm, &ty);
        let exports = match engine.0.contract.check_exports(&engine.0.wasm, &ty) {
            Ok(exports) => exports,
            Err(more) => {
                problems.splice(0..0, more);
                Exports::default()
            }
        };
        if !problems.is_empty() {
            return Err(LoadError::of_problems(Step::Check, "the component does not fit the contract", &problems));
        }
        let exported = ty.exports(&engine.0.wasm).map(|(name, _)| name.to_owned()).collect();
        Ok(Self(Arc::new(Inner {
            engine: engine.clone(),
            wasm,
            digest: digest.into(),
            size,
            exports,
            exported,
            imports,
        })))
    }

    /// The SHA-256 of the component as it was read, in hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// The optional parts of the contract that it exports.
    #[must_use]
    pub fn exports(&self) -> Exports {
        self.0.exports
    }

    /// What it is, exports and needs.
    #[must_use]
    pub fn describe(&self) -> Description {
        let imports = self.0.imports.iter().map(|(name, source)| ImportDescription {
            name: name.clone(),
            granted_by: match source {
                Source::Always(how) => (*how).to_owned(),
                Source::Grant(key) => format!("`{key}` under [group.grants]"),
                Source::Nowhere(_) => "nobody".to_owned(),
            },
        });
        Description {
            size: self.0.size,
            digest: self.0.digest.as_ref().to_owned(),
            optional: self.0.exports,
            exports: self.0.exported.clone(),
            imports: imports.collect(),
            problems: self.0.imports.iter().filter_map(|(_, source)| nowhere(source)).collect(),
        }
    }

    /// Makes a release of the component: gives it what is granted, and nothing else.
    ///
    /// # Errors
    /// When it imports what is not granted or not to be had; every such import is named, with the setting that grants it.
    pub fn link(
        &self,
        grants: &Grants,
        limits: &Limits,
        config: BTreeMap<String, String>,
    ) -> Result<Linked, LoadError> {
        let missing: Vec<String> = self
            .0
            .imports
            .iter()
            .filter_map(|(name, source)| match source {
                Source::Grant(key) if !contract::granted(grants, name) => {
                    Some(format!("imports `{name}`, which is not granted: set `{key}` under [group.grants]"))
                }
                source => nowhere(source),
            })
            .collect();
        if !missing.is_empty() {
            return Err(LoadError::of_problems(Step::Check, "the component needs what it cannot have", &missing));
        }
        Linked::new(self, grants, limits, config)
    }

    pub(crate) fn wasm(&self) -> &wasmtime::component::Component {
        &self.0.wasm
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }
}

fn nowhere(source: &Source) -> Option<String> {
    match source {
        Source::Nowhere(why) => Some(why.clone()),
        _ => None,
    }
}
