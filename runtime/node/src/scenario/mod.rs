//! `bellwether test`: a guest against a host that follows a script. `SCENARIOS.md` is the reference for people.

mod document;
mod host;
mod report;
mod run;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bellwether_guest::{Engine, EngineOptions};

pub use report::{ScenarioReport, StepReport, TestReport};

use crate::error::{NodeError, NodeErrorKind};

/// What is tested, and by what.
#[derive(Debug, Clone, Default)]
pub struct TestOptions {
    /// The component, instead of the one that the scenarios name.
    pub component: Option<PathBuf>,
    /// The component for the members' tasks, instead of the scenarios'.
    pub worker: Option<PathBuf>,
    /// Only scenarios whose names contain this.
    pub filter: Option<String>,
}

/// Plays the scenarios of `file`.
///
/// # Errors
/// When the file or the component cannot be used, or no scenario is left to play. What the guest does wrong stands in the report.
pub async fn test(file: &Path, options: TestOptions) -> Result<TestReport, NodeError> {
    let document = document::read(file).map_err(|why| NodeError::new(NodeErrorKind::Manifest, why))?;
    let base = file.parent().unwrap_or(Path::new(""));
    let component = options.component.or_else(|| document.component.as_ref().map(|component| base.join(component)));
    let Some(component) = component else {
        let why = format!(
            "{} names no component\n  help: write `component = \"….wasm\"` at its top, or pass --component",
            file.display()
        );
        return Err(NodeError::new(NodeErrorKind::Manifest, why));
    };
    let worker = options.worker.or_else(|| document.worker.as_ref().map(|worker| base.join(worker)));
    let engine = Engine::new(EngineOptions::default())
        .map_err(|error| NodeError::new(NodeErrorKind::Local, error.to_string()))?;
    let unusable = |why| NodeError::new(NodeErrorKind::Manifest, why);
    let (limits, http) = (document.limits.read().map_err(unusable)?, document.grants.origins().map_err(unusable)?);
    let compiled = Mutex::default();
    let stage = run::Stage { engine: &engine, file: &document, limits, http, base, component, worker, compiled };
    let filter = options.filter.unwrap_or_default();
    let mut scenarios = Vec::new();
    for scenario in document.scenario.iter().filter(|scenario| scenario.name.contains(&filter)) {
        if scenarios.is_empty() {
            stage.check(scenario).await.map_err(|why| NodeError::new(NodeErrorKind::Component, why))?;
        }
        let (steps, problem) = match stage.play(scenario).await {
            Ok(steps) => (steps, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        scenarios.push(ScenarioReport { name: scenario.name.clone(), steps, problem });
    }
    if scenarios.is_empty() {
        let why = format!("{}: no scenario has {filter:?} in its name", file.display());
        return Err(NodeError::new(NodeErrorKind::Manifest, why));
    }
    Ok(TestReport { scenarios })
}
