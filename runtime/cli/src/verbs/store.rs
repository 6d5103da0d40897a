use std::path::PathBuf;

use bellwether_node::source::store::StoreError;
use clap::Subcommand;
use serde_json::json;

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::render::table::Table;
use crate::{node, output};

const EXAMPLES: &str = "\
Examples:
  bellwether store ls
  bellwether store gc /etc/bellwether/node.toml
  bellwether store verify --json

The node may run meanwhile: what it needs stays.";

/// Look after the components that a node keeps
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, subcommand_value_name = "WHAT")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the components
    Ls(Of),
    /// Remove what no node runs or can go back to, and no reference stood for last
    Gc(Of),
    /// Compare every component with its digest, and remove what is damaged
    Verify(Of),
}

#[derive(Debug, clap::Args)]
struct Of {
    /// The node's manifest; otherwise ./bellwether.toml
    manifest: Option<PathBuf>,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let (What::Ls(of) | What::Gc(of) | What::Verify(of)) = &args.what;
    let store = node::store(&super::manifest(of.manifest.clone()), global.color.on_stderr())?;
    let failed = |error: StoreError| Failure::new(Exit::Local, error.to_string());
    match &args.what {
        What::Ls(_) => {
            let entries = store.list().map_err(failed)?;
            if of.json {
                return output::json(&json!({ "components": entries }));
            }
            let mut table = Table::new(&["DIGEST", "BYTES", "NEEDED", "SIGNED BY", "REFERENCES"]);
            for entry in entries {
                let needed = if entry.needed { "yes" } else { "no" };
                let (signed, references) = (entry.signed_by.join(" "), entry.references.join(" "));
                table.row([entry.digest.to_string(), entry.size.to_string(), needed.to_owned(), signed, references]);
            }
            output::text(&table.lines().join("\n"))
        }
        What::Gc(_) => {
            let cleaned = store.clean().map_err(failed)?;
            if of.json {
                return output::json(&cleaned);
            }
            output::text(&format!("{} components removed, {} bytes", cleaned.removed.len(), cleaned.bytes))
        }
        What::Verify(_) => {
            let damages = store.verify().map_err(failed)?;
            if of.json {
                output::json(&json!({ "damaged": damages }))?;
            } else if damages.is_empty() {
                output::text("all is well")?;
            } else {
                let lines: Vec<String> =
                    damages.iter().map(|it| format!("{} was {}: removed", it.digest, it.found)).collect();
                output::text(&lines.join("\n"))?;
            }
            if damages.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Failed, "some components were damaged")) }
        }
    }
}
