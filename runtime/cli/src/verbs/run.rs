use std::path::PathBuf;

use crate::args::Global;
use crate::exit::Failure;
use crate::{log, node, signals};

const EXAMPLES: &str = "\
Examples:
  bellwether run
  bellwether run /etc/bellwether/node.toml --log info,bellwether_node=debug
  bellwether run --log-format json 2>>/var/log/bellwether.json

SIGTERM and SIGINT stop it gracefully: guests are demoted, members leave, the session is closed. A second one ends the
process at once.";

/// Run one node, as its manifest says, until it is told to stop
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The manifest; otherwise ./bellwether.toml
    manifest: Option<PathBuf>,
}

pub fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let _log = log::install(global)?;
    let manifest = node::load(&super::manifest(args.manifest), global.color.on_stderr())?;
    let shutdown = signals::listen(signals::OF_A_NODE)?;
    super::serve(node::run(manifest, shutdown, super::reaper::program(global)))
}
