use crate::args::Global;
use crate::client::Path;
use crate::exit::Failure;
use crate::{find, output};

const EXAMPLES: &str = "\
Examples:
  bellwether kill node-1

Only the nodes of a `bellwether dev` can be killed so. To try the crash of a real one, send SIGKILL to its process.";

/// End a node of `bellwether dev` as a crash would: no demotion, no farewell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The node's id
    node: String,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let client = find::client(global)?;
    client.post(&Path::node(&args.node).then("kill")).await?;
    output::text(&format!("{}: killed", args.node))
}
