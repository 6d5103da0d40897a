use bellwether_core::release::Past;
use bellwether_node::admin::{NodeStatus, RolloutStatus, StatusReply, SwapReport};
use serde::Serialize;

use crate::args::Global;
use crate::client::{Client, Path};
use crate::exit::{Exit, Failure};
use crate::{find, output, render};

const EXAMPLES: &str = "\
Examples:
  bellwether history wordcount
  bellwether --node node-2 history wordcount
  bellwether history wordcount --json | jq '.[].swaps[] | select(.rollback)'

The releases are the group's: what was deployed, by number, and how its rollout ended; they are kept in the coordinator. The swaps are
each node's own: what it was asked for, by a rollout or by itself, and the times at which it went back; it forgets them when it restarts.";

/// Show a group's numbered releases, and the last swaps on each node that the admin API serves: outcome, reason, time of each step
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The group
    group: String,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// The swaps of one node, and the group's releases as it reads them.
#[derive(Debug, Serialize)]
struct History {
    node: String,
    swaps: Vec<SwapReport>,
    /// None if the coordinator cannot be asked now.
    releases: Option<Vec<Past>>,
}

/// The releases that were deployed to the group, oldest first.
async fn releases(client: &Client, node: &str, group: &str) -> Result<Vec<Past>, Failure> {
    let call = Path::node(node).then("groups").then(group).then("rollout");
    Ok(client.get::<RolloutStatus>(&call).await?.document.history)
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let client = find::client(global)?;
    let nodes: Vec<NodeStatus> = match &global.node {
        Some(node) => vec![client.get(&Path::node(node)).await?],
        None => client.get::<StatusReply>(&Path::new("v1").then("status")).await?.nodes,
    };
    let mut histories = Vec::new();
    let mut unknown = None;
    for node in nodes {
        let Some(group) = node.groups.into_iter().find(|group| group.name.as_str() == args.group) else { continue };
        let node = node.node.to_string();
        let releases = releases(&client, &node, &args.group).await.map_err(|failure| unknown = Some(failure.what)).ok();
        histories.push(History { node, swaps: group.history, releases });
    }
    if histories.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("no node here has a group {:?}", args.group)));
    }
    if args.json {
        return output::json(&histories);
    }
    let mut lines = vec![format!("releases of the group {}", args.group)];
    match (histories.iter().find_map(|history| history.releases.as_ref()), unknown) {
        (Some(releases), _) if releases.is_empty() => {
            lines.push("  none was ever deployed: each node runs its manifest's".to_owned());
        }
        (Some(releases), _) => lines.extend(releases.iter().map(|past| format!("  {}", render::rollout::past(past)))),
        (None, why) => lines.push(format!("  not known now: {}", render::rollout::one_line(&why.unwrap_or_default()))),
    }
    for history in &histories {
        lines.push(format!("swaps on {}", history.node));
        if history.swaps.is_empty() {
            lines.push("  no swaps since the node started".to_owned());
        }
        lines.extend(history.swaps.iter().map(|report| format!("  {}", render::status::history(report))));
    }
    output::text(&lines.join("\n"))
}
