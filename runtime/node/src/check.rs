//! `bellwether check`: looks at what would run, without starting it.

use std::fmt;

use bellwether_core::callback::PrepareFailure;
use bellwether_core::id::GroupName;
use bellwether_guest::{Component, Description, Engine, EngineOptions};
use bellwether_source::store::Store;
use bellwether_source::{Options, Reference, Sources};
use serde::Serialize;

use crate::error::{NodeError, NodeErrorKind};
use crate::guests::{Asked, ReleaseSpec, compile};
use crate::manifest::Manifest;
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
    /// What keeps it from running.
    pub problem: Option<String>,
}

impl CheckReport {
    /// Whether everything would run.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.components.iter().all(|component| component.problem.is_none())
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
            writeln!(f, "  exports  {}", about.exports.join(", "))?;
            for (n, import) in about.imports.iter().enumerate() {
                let head = if n == 0 { "imports" } else { "" };
                writeln!(f, "  {head:8} {} (granted by {})", import.name, import.granted_by)?;
            }
        }
        match &self.problem {
            None => write!(f, "  ok"),
            Some(problem) => write!(f, "  error: {problem}"),
        }
    }
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
        let spec = ReleaseSpec::new(group, std::time::Duration::ZERO);
        for reference in std::iter::once(&group.component).chain(&group.worker.component) {
            let (mut checked, component) = describe(&engine, &sources, &group.name, reference).await;
            checked.group = Some(group.name.to_string());
            if let Some(Err(failure)) = component.map(|component| spec.link(&component, reference)) {
                checked.problem = Some(failure.reason);
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
    let (mut checked, _) = describe(&engine, &sources, &group, reference).await;
    if let Some(description) = checked.description.as_ref().filter(|description| !description.problems.is_empty()) {
        checked.problem = Some(description.problems.join("; "));
    }
    Ok(CheckReport { components: vec![checked] })
}

async fn describe(
    engine: &Engine,
    sources: &Sources,
    group: &GroupName,
    reference: &Reference,
) -> (CheckedComponent, Option<Component>) {
    let mut checked = CheckedComponent {
        group: None,
        file: reference.to_string(),
        resolved: None,
        signer: None,
        description: None,
        problem: None,
    };
    match compile(engine, sources, group, reference, Asked::Anew, &mut Vec::new()).await {
        Ok((component, artifact)) => {
            checked.description = Some(component.describe());
            checked.resolved = Some(artifact.resolved.to_string()).filter(|resolved| *resolved != checked.file);
            checked.signer = artifact.signer;
            (checked, Some(component))
        }
        Err(why) => {
            checked.problem = Some(PrepareFailure::from(why).reason);
            (checked, None)
        }
    }
}
