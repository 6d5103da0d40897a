use std::path::PathBuf;

use crate::args::Global;
use crate::exit::Failure;
use crate::{log, node, signals};

const EXAMPLES: &str = "\
Examples:
  bellwether dev
  bellwether dev examples/quickstart/bellwether.toml --nodes 5
  bellwether dev --coordinator zookeeper://127.0.0.1:2181 --data dev-data

While it runs, from another terminal: `bellwether status`, `bellwether kill node-1`.";

/// Run several nodes of one manifest in this process, with a coordinator of their own: no server needed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The manifest; otherwise ./bellwether.toml
    manifest: Option<PathBuf>,

    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,

    /// A coordinator, as in zookeeper://HOST:PORT,…/CHROOT, instead of the one in this process
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,

    /// The folder for the nodes' data; otherwise the manifest's
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let _log = log::install(global)?;
    let manifest = node::load(&super::manifest(args.manifest), global.color.on_stderr())?;
    let shutdown = signals::listen()?;
    let dev = node::Dev { nodes: args.nodes.into(), coordinator: args.coordinator, data: args.data, shutdown };
    super::serve(node::dev(manifest, dev))
}
