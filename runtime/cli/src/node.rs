//! All that this program takes from the node's library, but for the admin API's types: where either changes, this file does.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use bellwether_node::admin::AdminAddress;
pub use bellwether_node::compiler::Confinement;
use bellwether_node::compiler::{self, Program, Served};
use bellwether_node::manifest::{Manifest, ManifestError};
use bellwether_node::reaper::{self, AttendError};
pub use bellwether_node::reaper::{Attended, ReaperProgram};
use bellwether_node::scenario::TestOptions;
use bellwether_node::source::store::Store;
use bellwether_node::source::{BadReference, Reference};
pub use bellwether_node::{DevOptions, Order};
use bellwether_node::{NodeError, NodeErrorKind, RunOptions};

use crate::exit::{Exit, Failure};

/// Ready when the node shall stop gracefully.
pub type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reads and checks a manifest.
pub fn load(path: &Path, color: bool) -> Result<Manifest, Failure> {
    Manifest::load(path).map_err(|error| bad_manifest(&error, color))
}

/// The same for `dev`, which builds the components first if the manifest says how.
pub fn load_for_dev(path: &Path, color: bool) -> Result<Manifest, Failure> {
    Manifest::load_for_dev(path).map_err(|error| bad_manifest(&error, color))
}

/// The admin API's address of a manifest's node.
pub fn admin_address(path: &Path, color: bool) -> Result<AdminAddress, Failure> {
    let admin = load(path, color)?.node.admin.to_string();
    admin.parse().map_err(|error| Failure::new(Exit::Manifest, "the manifest's `node.admin` cannot be used").why(error))
}

/// What names a component; a relative path begins here.
pub fn reference(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(|error: BadReference| {
        Failure::new(Exit::Usage, "this does not name a component").why(error.why).help(error.help)
    })
}

/// The store of a manifest's node.
pub fn store(path: &Path, color: bool) -> Result<Store, Failure> {
    let manifest = load(path, color)?;
    Store::open(&manifest.node.data_dir.join("store"), manifest.store.max)
        .map_err(|error| Failure::new(Exit::Local, error.to_string()))
}

/// The verb by which a node has a component compiled.
pub const COMPILE: &str = "compile";

/// A process of this program.
pub fn compiler() -> Program {
    Program::itself(COMPILE)
}

/// Compiles what stdin holds, and writes the code to stdout.
pub fn compile(confinement: &Confinement) -> Result<(), Failure> {
    let failed = "the component cannot be compiled";
    match compiler::serve(confinement, std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(Served::Compiled) => Ok(()),
        Ok(Served::Refused(why)) => Err(Failure::new(Exit::Component, failed).why(why)),
        Err(error) => Err(Failure::new(Exit::Local, failed).why(error)),
    }
}

/// Runs one node until `shutdown`, with a reaper beside it.
pub async fn run(manifest: Manifest, shutdown: Shutdown, reaper: ReaperProgram) -> Result<(), Failure> {
    let options = RunOptions { shutdown, compiler: Some(compiler()), reaper: Some(reaper) };
    bellwether_node::run(manifest, options).await.map_err(|error| failure(&error))
}

/// Is the reaper of the node that holds the other end of the standard input.
pub fn attend() -> Result<Attended, Failure> {
    reaper::attend(std::io::stdin().lock()).map_err(|error| {
        let exit = match error {
            AttendError::Pipe(_) => Exit::Local,
            AttendError::Line(_) | AttendError::Order => Exit::Usage,
            AttendError::Config(_) | AttendError::Reap { .. } => Exit::Coordinator,
        };
        Failure::new(exit, error.to_string())
    })
}

/// Runs several nodes in this process until the options' `shutdown`.
pub async fn dev(manifest: Manifest, options: DevOptions) -> Result<(), Failure> {
    bellwether_node::dev(manifest, options).await.map_err(|error| failure(&error))
}

/// What a check or a test found.
pub struct Checked {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: serde_json::Value,
    /// Whether all is well.
    pub good: bool,
}

/// Checks the components that a manifest names.
pub async fn check(manifest: &Manifest) -> Result<Checked, Failure> {
    let report = bellwether_node::check(manifest).await.map_err(|error| failure(&error))?;
    checked(&report, report.to_string(), report.is_good())
}

/// Checks one component against the contract.
pub async fn check_component(component: &Reference) -> Result<Checked, Failure> {
    let report = bellwether_node::check_component(component).await.map_err(|error| failure(&error))?;
    checked(&report, report.to_string(), report.is_good())
}

/// Plays scenarios against a component.
pub async fn test(
    scenarios: &Path,
    component: Option<PathBuf>,
    worker: Option<PathBuf>,
    filter: Option<String>,
    verbose: bool,
) -> Result<Checked, Failure> {
    let options = TestOptions { component, worker, filter };
    let report = bellwether_node::scenario::test(scenarios, options).await.map_err(|error| failure(&error))?;
    checked(&report, report.to_text(verbose), report.passed())
}

fn checked(report: &impl serde::Serialize, text: String, good: bool) -> Result<Checked, Failure> {
    let json = serde_json::to_value(report)
        .map_err(|error| Failure::new(Exit::Failed, "the report cannot be written as JSON").why(error))?;
    Ok(Checked { text, json, good })
}

/// The manifest's JSON Schema.
pub fn schema() -> serde_json::Value {
    bellwether_node::manifest::schema()
}

fn bad_manifest(error: &ManifestError, color: bool) -> Failure {
    Failure::whole(Exit::Manifest, if color { error.to_ansi() } else { error.to_string() })
}

fn failure(error: &NodeError) -> Failure {
    let message = error.to_string();
    let exit = exit_of(error.kind());
    let whole = message.starts_with("error:");
    Failure { whole, ..Failure::new(exit, message) }
}

fn exit_of(kind: NodeErrorKind) -> Exit {
    match kind {
        NodeErrorKind::Manifest => Exit::Manifest,
        NodeErrorKind::Component => Exit::Component,
        NodeErrorKind::Coordinator => Exit::Coordinator,
        NodeErrorKind::Local => Exit::Local,
        NodeErrorKind::Failed => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_exit_code() {
        let codes = [
            (NodeErrorKind::Failed, 1),
            (NodeErrorKind::Manifest, 3),
            (NodeErrorKind::Component, 4),
            (NodeErrorKind::Coordinator, 5),
            (NodeErrorKind::Local, 6),
        ];
        for (kind, code) in codes {
            assert_eq!(i32::from(exit_of(kind)), code);
        }
        assert_eq!(i32::from(Exit::Component), i32::from(compiler::REFUSED), "nodes understand it");
    }
}
