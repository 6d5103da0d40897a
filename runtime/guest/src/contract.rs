//! What the contract says, and how a component compares with it.

use std::collections::BTreeMap;

use bellwether_core::callback::Exports;
use wasmtime::Engine;
use wasmtime::component::types::{self, ComponentItem};
use wit_parser::WorldItem;

use crate::bindings::COMPONENT_TYPE;
use crate::grants::{Grants, StateGrant};
use crate::shape::Signature;

type Functions = BTreeMap<String, Signature>;

/// The interfaces of the contract, by their full names.
#[derive(Debug)]
pub(crate) struct Contract {
    imports: BTreeMap<String, Functions>,
    exports: BTreeMap<String, Functions>,
}

/// The interfaces of WASI 0.2 that are there for every guest. They reach nothing by themselves: what a file, network or
/// environment call finds is a matter of the grants.
const WASI: [(&str, &str); 6] = [
    ("wasi:cli/", "always; there are no arguments, and no variables without `env` under [group.grants]"),
    ("wasi:clocks/", "always"),
    ("wasi:filesystem/", "always; reaches nothing without `folders` under [group.grants]"),
    ("wasi:io/", "always"),
    ("wasi:random/", "always"),
    ("wasi:sockets/", "always; reaches nothing without `connect` under [group.grants]"),
];

/// What of `wasi:http` is there for those whom the manifest grants it.
const HTTP: [&str; 2] = ["wasi:http/outgoing-handler", "wasi:http/types"];

/// A name such as `bellwether:runtime/lifecycle@0.1.0`, taken apart.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once('@') {
        Some((interface, version)) => (interface, Some(version)),
        None => (name, None),
    }
}

/// Whether the two versions stand for the same interface, as wasmtime sees it: equal up to the first number that is not
/// zero; drafts must be the same.
fn compatible(a: Option<&str>, b: Option<&str>) -> bool {
    fn track(version: &str) -> Option<(u64, u64, u64)> {
        let mut numbers = version.split('.').map(str::parse::<u64>);
        match (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?) {
            (0, 0, patch) => Some((0, 0, patch)),
            (0, minor, _) => Some((0, minor, 0)),
            (major, ..) => Some((major, 0, 0)),
        }
    }
    match (a, b) {
        (Some(a), Some(b)) => a == b || track(a).is_some_and(|a| Some(a) == track(b)),
        (a, b) => a == b,
    }
}

/// The short name: `lifecycle` of `bellwether:runtime/lifecycle@0.1.0`.
fn short(name: &str) -> &str {
    let interface = split(name).0;
    interface.rsplit('/').next().unwrap_or(interface)
}

/// How an import can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// It is there for everybody; the text says what that means.
    Always(&'static str),
    /// The manifest must say so: the setting that grants it.
    Grant(&'static str),
    /// Nobody offers it: why, and what to do.
    Nowhere(String),
}

impl Contract {
    /// Reads the contract out of the bindings.
    pub(crate) fn load() -> Result<Self, String> {
        let (resolve, world) = wit_parser::decoding::decode_world(COMPONENT_TYPE).map_err(|e| format!("{e:#}"))?;
        let interfaces = |items: &wit_parser::IndexMap<wit_parser::WorldKey, WorldItem>| {
            let mut all = BTreeMap::new();
            for (key, item) in items {
                if let WorldItem::Interface { id, .. } = item {
                    let functions = resolve.interfaces[*id].functions.iter();
                    let functions =
                        functions.map(|(name, func)| (name.clone(), Signature::wanted(&resolve, func))).collect();
                    all.insert(resolve.name_world_key(key), functions);
                }
            }
            all
        };
        let world = &resolve.worlds[world];
        Ok(Self { imports: interfaces(&world.imports), exports: interfaces(&world.exports) })
    }

    /// Compares what a component exports. Every problem is found, not only the first.
    pub(crate) fn check_exports(&self, engine: &Engine, ty: &types::Component) -> (Exports, Vec<String>) {
        let mut problems = Vec::new();
        let mut exports = Exports::default();
        for (wanted, functions) in &self.exports {
            let name = short(wanted);
            let before = problems.len();
            let found = self.find(engine, ty, wanted, &mut problems);
            match (&found, name) {
                (None, "lifecycle") if problems.len() == before => {
                    let near = ty.exports(engine).map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>();
                    let has = if near.is_empty() { "nothing".to_owned() } else { near.join(", ") };
                    problems.push(format!(
                        "does not export `{wanted}`, which every guest must: build it for the world \
                         `bellwether:runtime/guest` (or one that includes it); it exports {has}"
                    ));
                }
                (Some(_), "worker") => exports.worker = true,
                (Some(_), "ticker") => exports.ticker = true,
                (Some(_), "handover") => exports.handover = true,
                (Some(_), "observer") => exports.observer = true,
                _ => {}
            }
            let Some(found) = found else { continue };
            for (function, wanted) in functions {
                let offered = match found.get_export(engine, function).map(|e| e.ty) {
                    Some(ComponentItem::ComponentFunc(func)) => Signature::offered(&func),
                    _ => {
                        problems
                            .push(format!("`{name}` lacks the function `{function}`: the contract wants `{wanted}`; build it against the `wit` folder of this runtime"));
                        continue;
                    }
                };
                if offered != *wanted {
                    problems.push(format!(
                        "`{name}.{function}` has the wrong type: the contract wants `{wanted}`, the component offers \
                         `{offered}`; build it against the `wit` folder of this runtime"
                    ));
                }
            }
        }
        (exports, problems)
    }

    fn find(
        &self,
        engine: &Engine,
        ty: &types::Component,
        wanted: &str,
        problems: &mut Vec<String>,
    ) -> Option<types::ComponentInstance> {
        let (interface, version) = split(wanted);
        let mut other = None;
        for (name, item) in ty.exports(engine) {
            let (offered, offered_version) = split(name);
            if offered != interface {
                continue;
            }
            match item.ty {
                ComponentItem::ComponentInstance(instance) if compatible(version, offered_version) => {
                    return Some(instance);
                }
                _ => other = Some(name.to_owned()),
            }
        }
        if let Some(other) = other {
            problems.push(format!(
                "exports `{other}`, but this runtime speaks `{wanted}`: build the guest against the `wit` folder of this \
                 runtime, or run a runtime of the guest's version"
            ));
        }
        None
    }

    /// Compares what a component imports with what there is. Gives for each import how it can be had.
    pub(crate) fn check_imports(&self, engine: &Engine, ty: &types::Component) -> (Vec<(String, Source)>, Vec<String>) {
        let mut sources = Vec::new();
        let mut problems = Vec::new();
        for (name, item) in ty.imports(engine) {
            let (interface, version) = split(name);
            if let Some((_, how)) = WASI.iter().find(|(prefix, _)| interface.starts_with(prefix)) {
                let source = if compatible(version, Some("0.2.0")) {
                    Source::Always(how)
                } else {
                    Source::Nowhere(format!("imports `{name}`: this runtime offers WASI 0.2"))
                };
                sources.push((name.to_owned(), source));
                continue;
            }
            if HTTP.contains(&interface) && compatible(version, Some("0.2.0")) {
                sources.push((name.to_owned(), Source::Grant("http = [\"https://…\"]")));
                continue;
            }
            let known = self.imports.iter().find(|(known, _)| split(known).0 == interface);
            let Some((known, functions)) = known else {
                let why = format!("imports `{name}`, which this runtime does not offer: build the guest without it");
                sources.push((name.to_owned(), Source::Nowhere(why)));
                continue;
            };
            if !compatible(version, split(known).1) {
                let why = format!(
                    "imports `{name}`, but this runtime speaks `{known}`: build the guest against the `wit` folder of this \
                     runtime, or run a runtime of the guest's version"
                );
                sources.push((name.to_owned(), Source::Nowhere(why)));
                continue;
            }
            if let ComponentItem::ComponentInstance(instance) = &item.ty {
                self.check_import(engine, short(known), functions, instance, &mut problems);
            }
            sources.push((name.to_owned(), source_of(short(known))));
        }
        (sources, problems)
    }

    fn check_import(
        &self,
        engine: &Engine,
        name: &str,
        functions: &Functions,
        instance: &types::ComponentInstance,
        problems: &mut Vec<String>,
    ) {
        for (function, item) in instance.exports(engine) {
            let ComponentItem::ComponentFunc(func) = &item.ty else { continue };
            let wanted = Signature::offered(func);
            match functions.get(function) {
                None => problems.push(format!(
                    "imports the function `{name}.{function}`, which this runtime does not have: it may be of a later version"
                )),
                Some(offered) if *offered != wanted => problems.push(format!(
                    "imports `{name}.{function}` as `{wanted}`, but the contract has `{offered}`; build it against the \
                     `wit` folder of this runtime"
                )),
                Some(_) => {}
            }
        }
    }
}

fn source_of(interface: &str) -> Source {
    match interface {
        "workers" => Source::Grant("workers = true"),
        "state" => Source::Grant("state = \"leader\" (or \"all\")"),
        "logging" => Source::Grant("logging = true"),
        _ => Source::Always("always"),
    }
}

/// Whether the manifest grants the contract's interface of this full name.
pub(crate) fn granted(grants: &Grants, import: &str) -> bool {
    if HTTP.contains(&split(import).0) {
        return !grants.http.is_empty();
    }
    match short(import) {
        "workers" => grants.workers,
        "state" => grants.state != StateGrant::None,
        "logging" => grants.logging,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_as_wasmtime_matches_them() {
        for (a, b, same) in [
            ("0.1.0", "0.1.7", true),
            ("0.1.0", "0.2.0", false),
            ("0.0.1", "0.0.2", false),
            ("1.2.3", "1.9.0", true),
            ("1.0.0", "2.0.0", false),
            ("0.2.0-rc.1", "0.2.0-rc.1", true),
            ("0.2.0-rc.1", "0.2.0", false),
        ] {
            assert_eq!(compatible(Some(a), Some(b)), same, "{a} and {b}");
            assert_eq!(compatible(Some(b), Some(a)), same, "{b} and {a}");
        }
        assert!(!compatible(None, Some("0.1.0")));
        assert!(compatible(None, None));
    }

    #[test]
    fn the_contract_can_be_read_and_has_every_interface() -> Result<(), String> {
        let contract = Contract::load()?;
        let names = |all: &BTreeMap<String, Functions>| all.keys().map(|n| short(n).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&contract.exports), ["handover", "lifecycle", "observer", "ticker", "worker"]);
        assert_eq!(names(&contract.imports), ["cluster", "state", "types", "workers", "store", "logging"]);
        Ok(())
    }
}
