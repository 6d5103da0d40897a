use std::path::PathBuf;

use bellwether_node::admin::{SwapReport, SwapRequest};

use crate::args::Global;
use crate::client::CallError;
use crate::exit::Failure;
use crate::find::{self, Prefer};
use crate::{output, render, source};

const EXAMPLES: &str = "\
Examples:
  bellwether swap wordcount v2.wasm
  bellwether swap wordcount v2.wasm --node node-1     where one process runs several nodes
  bellwether swap wordcount v2.wasm --json

It waits for the outcome. If any step before the commit fails, the old release goes on untouched, and the exit code is 1.";

/// Swap a group's component for another on a running node, without losing leadership, state or work
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The group
    group: String,

    /// The new component (.wasm); the node reads it, so it must be readable by the user who runs the node
    file: PathBuf,

    /// Write the report as JSON, also of a swap that was rolled back
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let component = source::absolute(&args.file)?.into();
    let client = find::client(global)?;
    let call = find::group(&client, global, &args.group, Prefer::Only).await?;
    match client.post_long::<SwapReport>(&call.then("swap"), &SwapRequest { component }).await {
        Ok(report) if args.json => output::json(&report),
        Ok(report) => output::text(&format!("{}: {}", args.group, render::status::swap(&report))),
        Err(error) => {
            if let (CallError::Refused(body), true) = (&error, args.json)
                && let Some(report) = &body.report
            {
                output::json(report)?;
            }
            Err(error.into())
        }
    }
}
