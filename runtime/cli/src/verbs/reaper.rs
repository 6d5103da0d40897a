use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Global, LogFormat};
use crate::exit::{Exit, Failure};
use crate::log;
use crate::node::{self, Attended, ReaperProgram};

/// The name of the verb.
const VERB: &str = "reaper";

const EXAMPLES: &str = "\
Examples:
  bellwether run                              starts it by itself
  bellwether reaper </dev/null                ends at once: nobody has told it anything
  [node] reaper = false                       in the manifest: does not

On its standard input it is told what the node's session owns. When that input ends without a farewell, the node is dead.";

/// Clear away what a node leaves behind when it crashes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// How a node starts its reaper: this program, whatever stands in its file by then, with the same log.
pub fn program(global: &Global) -> ReaperProgram {
    let format = match global.log_format {
        LogFormat::Auto => "auto",
        LogFormat::Human => "human",
        LogFormat::Json => "json",
    };
    let arguments = ["--log-format", format, "--log", &global.log, VERB].map(str::to_owned).to_vec();
    ReaperProgram { program: "/proc/self/exe".into(), arguments }
}

pub fn run(_args: &Args, global: &Global) -> Result<(), Failure> {
    let _log = log::install(global)?;
    outlive().map_err(|error| Failure::new(Exit::Local, "cannot listen for signals").why(error))?;
    match node::attend()? {
        Attended::Nothing => {}
        Attended::Reaped { node, session, znodes, within } => {
            let ms = Duration::as_millis(&within);
            tracing::warn!(
                %node, what = "reaped",
                "the node has ended without closing its session {session}: {znodes} znodes deleted within {ms} ms of its death"
            );
        }
    }
    Ok(())
}

/// A supervisor may send the signal that stops the node to all of its processes; this one ends when the node has. Once such a signal
/// has been asked for, it does not end the process any more, whether or not anybody listens.
fn outlive() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _context = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        drop(signal(kind)?);
    }
    Ok(())
}
