//! What was found about a component: what it is, and everything that keeps it from running.

use bellwether_core::callback::Exports;
use serde::Serialize;
use wasmtime::component::types;

use crate::context::bytes;
use crate::contract::{self, Contract, Source};
use crate::grants::Grants;
use crate::limits::Limits;

/// What was found about a component, whether it fits the contract or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    size: usize,
    digest: String,
    pub(crate) exports: Exports,
    /// Every export, as the component names it.
    exported: Vec<String>,
    imports: Vec<(String, Source)>,
    /// How it differs from the contract.
    pub(crate) problems: Vec<String>,
    needs: Needs,
}

/// What one instance takes from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Needs {
    /// The largest memory, in bytes.
    pub memory_bytes: u64,
    /// Memories.
    pub memories: u32,
    /// The largest table.
    pub table_elements: u64,
    /// Tables.
    pub tables: u32,
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
    /// What one instance takes from the start.
    pub needs: Needs,
}

/// One import of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportDescription {
    /// The interface.
    pub name: String,
    /// Who grants it: `always`, the manifest's setting, or nobody.
    pub granted_by: String,
}

/// The size of a page of memory.
const PAGE: u64 = 64 << 10;

impl Findings {
    pub(crate) fn new(
        engine: &wasmtime::Engine,
        contract: &Contract,
        wasm: &wasmtime::component::Component,
        digest: &str,
        size: usize,
    ) -> Self {
        let ty: types::Component = wasm.component_type();
        let (imports, of_imports) = contract.check_imports(engine, &ty);
        let (exports, mut problems) = contract.check_exports(engine, &ty);
        problems.extend(of_imports);
        let exported = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        // None only for components that import core modules, of which there is none to give them.
        let needs = wasm.resources_required().map_or_else(Needs::default, |needed| Needs {
            memory_bytes: needed.max_initial_memory_size.unwrap_or_default().saturating_mul(PAGE),
            memories: needed.num_memories,
            table_elements: needed.max_initial_table_size.unwrap_or_default(),
            tables: needed.num_tables,
        });
        Self { size, digest: digest.to_owned(), exports, exported, imports, problems, needs }
    }

    /// The SHA-256 of the component as it was read, in hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What it is, for a person.
    #[must_use]
    pub fn describe(&self) -> Description {
        let imports = self.imports.iter().map(|(name, source)| ImportDescription {
            name: name.clone(),
            granted_by: match source {
                Source::Always(how) => (*how).to_owned(),
                Source::Grant(key) => format!("`{key}` under [group.grants]"),
                Source::Nowhere(_) => "nobody".to_owned(),
            },
        });
        Description {
            size: self.size,
            digest: self.digest.clone(),
            optional: self.exports,
            exports: self.exported.clone(),
            imports: imports.collect(),
            needs: self.needs,
        }
    }

    /// Everything that keeps the component from running with these limits and, if they are known, these grants; each with what to
    /// do about it.
    #[must_use]
    pub fn obstacles(&self, grants: Option<&Grants>, limits: &Limits) -> Vec<String> {
        let missing = self.imports.iter().filter_map(|(name, source)| match source {
            Source::Grant(key) if grants.is_some_and(|grants| !contract::granted(grants, name)) => {
                Some(format!("imports `{name}`, which is not granted: set `{key}` under [group.grants]"))
            }
            Source::Nowhere(why) => Some(why.clone()),
            _ => None,
        });
        self.problems.iter().cloned().chain(missing).chain(self.needs.beyond(limits)).collect()
    }
}

impl Needs {
    fn beyond(&self, limits: &Limits) -> Vec<String> {
        let beyond = |has: u64, most: u64, what: String, key: &str, allowed: String| {
            (has > most).then(|| {
                format!("takes {what} from the start, where `{key}` under [group.limits] allows {allowed}: raise that, or build the \
                         guest with less")
            })
        };
        let each = u64::from(limits.instances);
        let (memory, tables) = (limits.memory_bytes, limits.table_elements);
        let count = |count: u32, what: &str| format!("{count} {what}");
        [
            beyond(
                self.memory_bytes,
                memory,
                format!("{} of memory", bytes(self.memory_bytes)),
                "memory",
                bytes(memory),
            ),
            beyond(u64::from(self.memories), each, count(self.memories, "memories"), "instances", each.to_string()),
            beyond(u64::from(self.tables), each, count(self.tables, "tables"), "instances", each.to_string()),
            beyond(
                self.table_elements,
                tables,
                format!("a table of {} elements", self.table_elements),
                "table_elements",
                tables.to_string(),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
