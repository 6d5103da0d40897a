use bellwether_node::admin::{NodeStatus, StatusReply, SwapReport};
use serde::Serialize;

use crate::args::Global;
use crate::client::Path;
use crate::exit::{Exit, Failure};
use crate::{find, output, render};

const EXAMPLES: &str = "\
Examples:
  bellwether history wordcount
  bellwether --node node-2 history wordcount
  bellwether history wordcount --json | jq '.[].swaps[] | select(.rollback)'

A node remembers its last swaps until it restarts: what was asked for, and the times at which it went back by itself.";

/// Show the last swaps of a group, on each node that the admin API serves: outcome, reason, and the time of each step
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The group
    group: String,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// The swaps of one node.
#[derive(Debug, Serialize)]
struct History {
    node: String,
    swaps: Vec<SwapReport>,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let client = find::client(global)?;
    let nodes: Vec<NodeStatus> = match &global.node {
        Some(node) => vec![client.get(&Path::node(node)).await?],
        None => client.get::<StatusReply>(&Path::new("v1").then("status")).await?.nodes,
    };
    let histories: Vec<History> = nodes
        .into_iter()
        .filter_map(|node| {
            let group = node.groups.into_iter().find(|group| group.name.as_str() == args.group)?;
            Some(History { node: node.node.to_string(), swaps: group.history })
        })
        .collect();
    if histories.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("no node here has a group {:?}", args.group)));
    }
    if args.json {
        return output::json(&histories);
    }
    let mut lines = Vec::new();
    for history in &histories {
        lines.push(history.node.clone());
        if history.swaps.is_empty() {
            lines.push("  no swaps since the node started".to_owned());
        }
        lines.extend(history.swaps.iter().map(|report| format!("  {}", render::status::history(report))));
    }
    output::text(&lines.join("\n"))
}
