use std::path::PathBuf;

use crate::args::Global;
use crate::exit::Failure;
use crate::{keys, log, node, signals};

const EXAMPLES: &str = "\
Examples:
  bellwether dev
  bellwether dev examples/quickstart/bellwether.toml --nodes 5
  bellwether dev --coordinator zookeeper://127.0.0.1:2181 --data dev-data

With `[dev] build` in the manifest, it builds the component at start and whenever the sources change, and swaps it in on all nodes. On a
terminal it takes keys: h shows which. From another one: `bellwether status`, `bellwether kill node-1`.";

/// Run several nodes of one manifest in this process, with a coordinator of their own: no server needed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The manifest; otherwise ./bellwether.toml
    manifest: Option<PathBuf>,

    /// How many nodes to start with; otherwise as the manifest says in `[dev] nodes`, or 3
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: Option<u16>,

    /// A coordinator, as in zookeeper://HOST:PORT,…/CHROOT, instead of the one in this process
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,

    /// The folder for the nodes' data; otherwise the manifest's
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let _log = log::install(global)?;
    let Args { manifest, nodes, coordinator, data } = args;
    let manifest = node::load_for_dev(&super::manifest(manifest), global.color.on_stderr())?;
    let shutdown = signals::listen(signals::OF_A_TERMINAL)?;
    super::serve(async {
        // Until the nodes have stopped, the terminal is set to give single keys.
        let mut keys = keys::listen()?;
        let orders = keys.as_mut().and_then(keys::Keys::orders);
        node::dev(
            manifest,
            node::DevOptions { nodes, coordinator, data, orders, shutdown, compiler: Some(node::compiler()) },
        )
        .await
    })
}
