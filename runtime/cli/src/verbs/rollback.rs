use bellwether_node::admin::{Planned, RollbackRequest};

use super::deploy::{Way, by};
use crate::args::Global;
use crate::exit::Failure;
use crate::find::{self, Prefer};

const EXAMPLES: &str = "\
Examples:
  bellwether rollback wordcount --wait            to the release before
  bellwether rollback wordcount --to 3 --wait     to release 3 of `bellwether history wordcount`
  bellwether rollback wordcount --plan            what would change

It is a rollout as any other, of what was deployed then, under a new number. To end a rollout that is under way, use
`bellwether rollout abort`.";

/// Roll an earlier release of a group out again
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The group
    group: String,

    /// The number of the release; otherwise the last one before that was rolled out to its end
    #[arg(long, value_name = "N")]
    to: Option<u64>,

    #[command(flatten)]
    way: Way,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let request = RollbackRequest { to: args.to, policy: args.way.policy(), by: by(), plan: args.way.plan() };
    let client = find::client(global)?;
    let call = find::group(&client, global, &args.group, Prefer::Leader).await?;
    let planned = client.post_long::<Planned>(&call.then("rollback"), &request).await?;
    args.way.show(&client, &call, &args.group, &planned).await
}
