use crate::args::Global;
use crate::exit::Failure;
use crate::find::{self, Prefer};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  bellwether resign wordcount
  bellwether resign wordcount --node node-1

The guest is demoted first; then the node joins the election again, behind the others.";

/// Give leadership of a group up, so that another node leads
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The group
    group: String,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let client = find::client(global)?;
    let call = find::group(&client, global, &args.group, Prefer::Leader).await?;
    client.post(&call.then("resign")).await?;
    output::text(&format!("{}: resigning", args.group))
}
