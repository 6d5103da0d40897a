//! How loading a guest fails.

use std::sync::Arc;

use bellwether_core::callback::{PrepareFailure, Step};

use crate::findings::Findings;

/// Why the engine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused its configuration on this machine.
    #[error("the WebAssembly engine cannot run on this machine: {0}")]
    Unsupported(String),
    /// The folder for compiled code is not usable.
    #[error("the folder for compiled components, {path}, cannot be used: {reason}")]
    Cache {
        /// The folder.
        path: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A thread could not be started.
    #[error("could not start the thread that interrupts guests: {0}")]
    Thread(std::io::Error),
}

/// Why a component could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct LoadError {
    /// The step that failed.
    pub step: Step,
    /// What happened and what to do; several problems stand on a line each.
    pub reason: String,
    /// What it is, if it could be read that far.
    pub findings: Option<Arc<Findings>>,
}

impl LoadError {
    pub(crate) fn new(step: Step, reason: impl Into<String>) -> Self {
        Self { step, reason: reason.into(), findings: None }
    }

    /// One message out of all that is wrong.
    pub(crate) fn of_problems(step: Step, headline: &str, problems: &[String]) -> Self {
        match problems {
            [only] => Self::new(step, only.clone()),
            _ => Self::new(step, format!("{headline}:\n  - {}", problems.join("\n  - "))),
        }
    }
}

impl From<LoadError> for PrepareFailure {
    fn from(error: LoadError) -> Self {
        Self { step: error.step, reason: error.reason }
    }
}

/// wasmtime's error on one line, without the host's backtrace that its `Debug` would add.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}
