//! `bellwether check`: looks at what would run, without starting it.

use std::collections::BTreeSet;
use std::fmt;

use bellwether_core::callback::{Exports, PrepareFailure};
use bellwether_core::id::GroupName;
use bellwether_guest::{Description, Engine, EngineOptions, Findings, ImportDescription, Limits, LoadError};
use bellwether_source::store::Store;
use bellwether_source::{Options, Reference, Sources};
use serde::Serialize;

use crate::error::{NodeError, NodeErrorKind};
use crate::manifest::Manifest;
use crate::release::Unloadable;
use crate::start::sources_with;

/// What was found about some components.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// One entry for each component, in the manifest's order.
    pub components: Vec<CheckedComponent>,
}

/// What was found about one component.
#[derive(Debug, Serialize)]
pub struct CheckedComponent {
    /// The group that it is for, if it was found through a manifest.
    pub group: Option<String>,
    /// What names it.
    pub file: String,
    /// What it was resolved to, where that says more: an image by its digest.
    pub resolved: Option<String>,
    /// The trusted key that vouches for it.
    pub signer: Option<String>,
    /// What it is, if it could be read that far.
    pub description: Option<Description>,
    /// Everything that keeps it from running, each with what to do about it.
    pub problems: Vec<String>,
}

impl CheckReport {
    /// Whether everything would run.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.components.iter().all(|component| component.problems.is_empty())
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, component) in self.components.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            component.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for CheckedComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => writeln!(f, "group {group}: {}", self.file)?,
            None => writeln!(f, "{}", self.file)?,
        }
        if let Some(about) = &self.description {
            writeln!(f, "  size     {} bytes", about.size)?;
            writeln!(f, "  digest   sha256:{}", about.digest)?;
            if let Some(resolved) = &self.resolved {
                writeln!(f, "  is       {resolved}")?;
            }
            if let Some(signer) = &self.signer {
                writeln!(f, "  signed   by {signer}")?;
            }
            list(f, "exports", about.exports.iter().map(String::as_str))?;
            let Exports { worker, ticker, handover, observer } = about.optional;
            let parts = [("worker", worker), ("ticker", ticker), ("handover", handover), ("observer", observer)];
            let named = |has: bool| {
                let names: Vec<&str> = parts.iter().filter(|(_, is)| *is == has).map(|(name, _)| *name).collect();
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            };
            writeln!(f, "  optional {}; absent: {}", named(true), named(false))?;
            let imports = imports(about);
            list(f, "imports", imports.iter().map(String::as_str))?;
            writeln!(f, "  memory   {} KiB from the start", about.needs.memory_bytes >> 10)?;
        }
        if self.problems.is_empty() {
            return write!(f, "  ok");
        }
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}  error: {problem}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The imports, each with who grants it. What holds for several is said of the first.
fn imports(about: &Description) -> Vec<String> {
    let mut said = BTreeSet::new();
    let shown = |import: &ImportDescription| {
        let by = import.granted_by.as_str();
        let by = match by.strip_prefix("always") {
            Some(_) if said.insert(by.to_owned()) => by.to_owned(),
            Some(_) => "always".to_owned(),
            None => format!("granted by {by}"),
        };
        format!("{}: {by}", import.name)
    };
    about.imports.iter().map(shown).collect()
}

/// A line for each item, the first with a title.
fn list<'a>(f: &mut fmt::Formatter<'_>, title: &str, items: impl Iterator<Item = &'a str>) -> fmt::Result {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return writeln!(f, "  {title:8} nothing");
    }
    items.enumerate().try_for_each(|(n, item)| writeln!(f, "  {:8} {item}", if n == 0 { title } else { "" }))
}

fn engine() -> Result<Engine, NodeError> {
    Engine::new(EngineOptions::default()).map_err(|error| NodeError::new(NodeErrorKind::Local, error.to_string()))
}

/// Checks the components that a manifest names, against the contract, the manifest's grants and its signatures. What comes from
/// elsewhere is fetched, or taken from the node's store where there is one.
///
/// # Errors
/// When the engine cannot run on this machine. What is wrong with a component stands in the report.
pub async fn check(manifest: &Manifest) -> Result<CheckReport, NodeError> {
    let engine = engine()?;
    // To check makes no folders; a store that is there may hold what nothing else has.
    let folder = manifest.node.data_dir.join("store");
    let store = folder.is_dir().then(|| Store::open(&folder, manifest.store.max).ok()).flatten();
    let sources = sources_with(manifest, store)?;
    let mut components = Vec::new();
    for group in &manifest.groups {
        for reference in std::iter::once(&group.component).chain(&group.worker.component) {
            let (mut checked, findings) = describe(&engine, &sources, &group.name, reference).await;
            checked.group = Some(group.name.to_string());
            if let Some(findings) = findings {
                checked.problems = findings.obstacles(Some(&group.grants), &group.limits);
            }
            components.push(checked);
        }
    }
    Ok(CheckReport { components })
}

/// Checks one component against the contract.
///
/// # Errors
/// As [`check`].
pub async fn check_component(reference: &Reference) -> Result<CheckReport, NodeError> {
    let engine = engine()?;
    let sources = Sources::new(None, Options::default())
        .map_err(|error| NodeError::new(NodeErrorKind::Local, error.to_string()))?;
    let group = GroupName::new("check").map_err(|error| NodeError::new(NodeErrorKind::Failed, error.to_string()))?;
    let (mut checked, findings) = describe(&engine, &sources, &group, reference).await;
    if let Some(findings) = findings {
        checked.problems = findings.obstacles(None, &Limits::default());
    }
    Ok(CheckReport { components: vec![checked] })
}

/// Obtains a component and looks at it. What keeps it from being read, or from being one, is among its problems already.
async fn describe(
    engine: &Engine,
    sources: &Sources,
    group: &GroupName,
    reference: &Reference,
) -> (CheckedComponent, Option<Findings>) {
    let mut checked = CheckedComponent {
        group: None,
        file: reference.to_string(),
        resolved: None,
        signer: None,
        description: None,
        problems: Vec::new(),
    };
    let mut artifact = match sources.obtain(reference, None, group).await {
        Ok(artifact) => artifact,
        Err(error) => {
            checked.problems.push(PrepareFailure::from(Unloadable::from(error)).reason);
            return (checked, None);
        }
    };
    let findings = match engine.compile(std::mem::take(&mut artifact.bytes)).await {
        Ok(component) => component.findings().clone(),
        Err(LoadError { findings: Some(findings), .. }) => findings.as_ref().clone(),
        Err(error) => {
            checked.problems.push(error.reason);
            return (checked, None);
        }
    };
    checked.description = Some(findings.describe());
    checked.resolved = Some(artifact.resolved.to_string()).filter(|resolved| *resolved != checked.file);
    checked.signer = artifact.signer;
    (checked, Some(findings))
}
