use std::path::{Path, PathBuf};

use bellwether_node::admin::{SwapReport, SwapRequest};
use bellwether_node::source::Reference;

use crate::args::Global;
use crate::client::CallError;
use crate::exit::{Exit, Failure};
use crate::find::{self, Prefer};
use crate::{node, output, render};

const EXAMPLES: &str = "\
Examples:
  bellwether swap wordcount v2.wasm
  bellwether swap wordcount v2.wasm --node node-1     where one process runs several nodes
  bellwether swap wordcount oci://registry.example/wordcount:v2
  bellwether swap wordcount v2.wasm --json

It waits for the outcome. If any step before the commit fails, the old release goes on untouched, and the exit code is 1.";

/// Swap a group's component for another on a running node, without losing leadership, state or work
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The group
    group: String,

    /// The new component: a file, which must be readable by the user who runs the node, "https://host/x.wasm#sha256=HEX",
    /// "oci://registry/repository:tag" (or "@sha256:HEX"), or "sha256:HEX" for what the node or another one has
    component: String,

    /// Write the report as JSON, also of a swap that was rolled back
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let component = match node::reference(&args.component)? {
        Reference::File(file) => Reference::File(absolute(&file)?),
        elsewhere => elsewhere,
    };
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

/// The path as the node, which runs elsewhere in the file system, needs it.
fn absolute(file: &Path) -> Result<PathBuf, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Component, format!("cannot use the component {}", file.display())).why(why)
    };
    let meta = std::fs::metadata(file).map_err(|error| failed(&error))?;
    if !meta.is_file() {
        return Err(failed(&"it is not a file"));
    }
    let path = std::path::absolute(file).map_err(|error| failed(&error))?;
    if path.to_str().is_none() {
        return Err(failed(&"its path is not valid UTF-8, which the admin API needs"));
    }
    Ok(path)
}
