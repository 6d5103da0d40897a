use bellwether_node::admin::{GroupStatus, Members, Role, WatchScope};

use crate::args::Global;
use crate::exit::Failure;
use crate::find::{self, Prefer};
use crate::output;
use crate::render::table::Table;

const EXAMPLES: &str = "\
Examples:
  bellwether members wordcount
  bellwether members wordcount --json | jq -r '.members[].address'

A node that does not watch the registry (watch = \"leader\", and it does not lead) knows of no members.";

/// List a group's workers, as the node knows them
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The group
    group: String,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let client = find::client(global)?;
    let call = find::group(&client, global, &args.group, Prefer::Leader).await?;
    let members: Members = client.get(&call.then("members")).await?;
    if args.json {
        return output::json(&members);
    }
    if members.members.is_empty() {
        let status: GroupStatus = client.get(&call).await?;
        if status.watch == WatchScope::Leader && status.role != Role::Leader {
            output::note("this node does not lead, and in this group only the leader knows the members: ask that one");
        }
    }
    let mut table = Table::new(&["ID", "ADDRESS", "LABELS"]);
    for member in &members.members {
        let labels: Vec<_> = member.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.row([member.id.to_string(), member.address.clone(), labels.join(" ")]);
    }
    output::text(&table.lines().join("\n"))
}
