use base64::Engine as _;
use bellwether_node::admin::StateKeys;
use clap::Subcommand;
use serde_json::json;

use crate::args::Global;
use crate::exit::Failure;
use crate::find::{self, Prefer};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  bellwether state list wordcount result/
  bellwether state get wordcount progress
  bellwether state get wordcount progress --json";

/// Read a group's key-value state
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, subcommand_value_name = "WHAT")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write the raw value of a key to stdout, and nothing else
    Get {
        /// The group
        group: String,
        /// The key
        key: String,
        /// Write JSON: {key, version, value}, or value_base64 where the value is no UTF-8
        #[arg(long)]
        json: bool,
    },
    /// List the keys, one a line
    List {
        /// The group
        group: String,
        /// Only keys that begin so
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let client = find::client(global)?;
    match &args.what {
        What::Get { group, key, json } => {
            let call = find::group(&client, global, group, Prefer::Leader).await?;
            let value = client.value(&call.then("state").then("value").query("key", key)).await?;
            if !json {
                return output::data(&value.bytes);
            }
            let version = value.version;
            output::json(&match std::str::from_utf8(&value.bytes) {
                Ok(text) => json!({ "key": key, "version": version, "value": text }),
                Err(_) => {
                    let coded = base64::engine::general_purpose::STANDARD.encode(&value.bytes);
                    json!({ "key": key, "version": version, "value_base64": coded })
                }
            })
        }
        What::List { group, prefix, json } => {
            let call = find::group(&client, global, group, Prefer::Leader).await?;
            let keys: StateKeys = client.get(&call.then("state").query("prefix", prefix)).await?;
            if *json {
                return output::json(&keys);
            }
            if keys.keys.is_empty() {
                return Ok(());
            }
            let lines: Vec<_> = keys.keys.iter().map(|key| output::clean(key)).collect();
            output::text(&lines.join("\n"))
        }
    }
}
