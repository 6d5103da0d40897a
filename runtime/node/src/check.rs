//! `bellwether check`: looks at what would run, without starting it.

use std::fmt;
use std::path::{Path, PathBuf};

use bellwether_guest::{Description, Engine, EngineOptions};
use serde::Serialize;

use crate::error::{NodeError, NodeErrorKind};
use crate::guests::ReleaseSpec;
use crate::manifest::Manifest;

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
    /// Its file.
    pub file: PathBuf,
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
            Some(group) => writeln!(f, "group {group}: {}", self.file.display())?,
            None => writeln!(f, "{}", self.file.display())?,
        }
        if let Some(about) = &self.description {
            writeln!(f, "  size     {} bytes", about.size)?;
            writeln!(f, "  digest   sha256:{}", about.digest)?;
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

/// Checks the components that a manifest names, against the contract and the manifest's grants.
///
/// # Errors
/// When the engine cannot run on this machine. What is wrong with a component stands in the report.
pub async fn check(manifest: &Manifest) -> Result<CheckReport, NodeError> {
    let engine = engine()?;
    let mut components = Vec::new();
    for group in &manifest.groups {
        let spec = ReleaseSpec::new(group, std::time::Duration::ZERO);
        for file in std::iter::once(&group.component).chain(&group.worker.component) {
            let problem = spec.load(&engine, file, &mut Vec::new()).await.err().map(|failure| failure.reason);
            let description = describe(&engine, file).await.ok();
            components.push(CheckedComponent {
                group: Some(group.name.to_string()),
                file: file.clone(),
                description,
                problem,
            });
        }
    }
    Ok(CheckReport { components })
}

/// Checks one component against the contract.
///
/// # Errors
/// As [`check`].
pub async fn check_component(file: &Path) -> Result<CheckReport, NodeError> {
    let engine = engine()?;
    let (description, problem) = match describe(&engine, file).await {
        Ok(description) => {
            let problem = (!description.problems.is_empty()).then(|| description.problems.join("; "));
            (Some(description), problem)
        }
        Err(problem) => (None, Some(problem)),
    };
    Ok(CheckReport { components: vec![CheckedComponent { group: None, file: file.to_owned(), description, problem }] })
}

async fn describe(engine: &Engine, file: &Path) -> Result<Description, String> {
    crate::guests::compile(engine, file, &mut Vec::new())
        .await
        .map(|component| component.describe())
        .map_err(|failure| failure.reason)
}
