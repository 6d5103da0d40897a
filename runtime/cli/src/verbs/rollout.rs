use bellwether_node::admin::{RolloutStatus, SteerRequest};
use clap::Subcommand;

use super::deploy::by;
use crate::args::Global;
use crate::client::{Client, Path};
use crate::exit::Failure;
use crate::find::{self, Prefer};
use crate::rollout::{Show, Wish, follow};
use crate::{output, render};

const EXAMPLES: &str = "\
Examples:
  bellwether rollout status wordcount             what runs, what comes, and how far each node is
  bellwether rollout status wordcount --wait      the same, then follow it to its end
  bellwether rollout pause wordcount              the nodes that run the new release keep it; no further one changes
  bellwether rollout resume wordcount
  bellwether rollout abort wordcount --wait       every node goes back to the release before";

/// Look at a group's rollout, or say how it shall go on
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what the group runs, what comes, and how far each node is
    Status(Which),
    /// Let no further node change
    Pause(Which),
    /// Let nodes change again
    Resume(Which),
    /// Take every node back to the release before
    Abort(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The group
    group: String,

    /// Write JSON; with --wait, one object a line
    #[arg(long)]
    json: bool,

    /// Follow the rollout to its end
    #[arg(long)]
    wait: bool,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let (which, steer, wish) = match &args.what {
        What::Status(which) => (which, None, Wish::Done),
        What::Pause(which) => (which, Some("pause"), Wish::Done),
        What::Resume(which) => (which, Some("resume"), Wish::Done),
        What::Abort(which) => (which, Some("abort"), Wish::Aborted),
    };
    let client = find::client(global)?;
    let call = find::group(&client, global, &which.group, Prefer::Leader).await?;
    let status: RolloutStatus = match steer {
        None => client.get(&call.then("rollout")).await?,
        Some(steer) => client.post_long(&call.then("rollout").then(steer), &SteerRequest { by: by() }).await?,
    };
    show(which, &client, &call, &status, wish).await
}

async fn show(which: &Which, client: &Client, call: &Path, status: &RolloutStatus, wish: Wish) -> Result<(), Failure> {
    match (which.json, which.wait) {
        (true, true) => output::json_line(status)?,
        (true, false) => output::json(status)?,
        (false, _) => output::text(&render::rollout::status(&which.group, status))?,
    }
    let Some(rollout) = status.document.rollout.as_ref().filter(|_| which.wait) else { return Ok(()) };
    let show = if which.json { Show::Json } else { Show::People };
    follow(client, call, rollout.to.number, show, wish).await
}
