use std::collections::BTreeMap;

use bellwether_node::admin::{SwapReport, SwapRequest};
use bellwether_node::source::Reference;

use crate::args::Global;
use crate::client::CallError;
use crate::exit::{Exit, Failure};
use crate::find::{self, Prefer};
use crate::{node, output, render, source};

const EXAMPLES: &str = "\
Examples:
  bellwether swap wordcount v2.wasm
  bellwether swap wordcount v2.wasm --node node-1     where one process runs several nodes
  bellwether swap wordcount oci://registry.example/wordcount:v2
  bellwether swap wordcount v2.wasm --json
  bellwether swap wordcount --config workers=4 --config log=all
                                                      the component that runs, configured otherwise

Each swap begins with the manifest's configuration: of an earlier --config nothing is kept. A component and a configuration that run
already are not swapped. It waits for the outcome. If any step before the commit fails, the old release goes on untouched, and the exit code is 1.";

/// Swap a group's component or configuration for another on a running node, without losing leadership, state or work
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The group
    group: String,

    /// The new component: a file, which must be readable by the user who runs the node, "https://host/x.wasm#sha256=HEX",
    /// "oci://registry/repository:tag" (or "@sha256:HEX"), or "sha256:HEX" for what the node or another one has. Without it, the
    /// component that runs
    #[arg(required_unless_present = "config")]
    component: Option<String>,

    /// A setting of the guest that takes the place of the manifest's, or stands beside those; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = source::setting)]
    config: Vec<(String, String)>,

    /// Write the report as JSON, also of a swap that was rolled back
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let component = match args.component.as_deref().map(node::reference).transpose()? {
        Some(Reference::File(file)) => Some(Reference::File(source::absolute(&file)?.into())),
        elsewhere => elsewhere,
    };
    let mut config = BTreeMap::new();
    for (key, value) in &args.config {
        if config.insert(key.clone(), value.clone()).is_some() {
            let what = format!("--config sets {key:?} twice");
            return Err(Failure::new(Exit::Usage, what).help("give each setting one value"));
        }
    }
    let client = find::client(global)?;
    let call = find::group(&client, global, &args.group, Prefer::Only).await?;
    match client.post_long::<SwapReport>(&call.then("swap"), &SwapRequest { component, config }).await {
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
