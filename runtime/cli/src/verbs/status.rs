use std::io::IsTerminal;
use std::time::Duration;

use bellwether_node::admin::StatusReply;

use crate::args::Global;
use crate::client::{Client, Path};
use crate::exit::Failure;
use crate::{find, output, render};

const EXAMPLES: &str = "\
Examples:
  bellwether status
  bellwether status --watch
  bellwether status --json | jq -r '.nodes[].groups[] | \"\\(.name) \\(.role)\"'
  bellwether --admin unix:/run/bellwether/admin.sock status";

/// Show what a node is doing: its session, its groups, who leads, what they run
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write JSON; with --watch, one object a line
    #[arg(long)]
    json: bool,

    /// Show it again every so many seconds, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", require_equals = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    watch: Option<u32>,
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let client = find::client(global)?;
    let Some(seconds) = args.watch else {
        let status = ask(&client, global).await?;
        return if args.json { output::json(&status) } else { show(&status, global, "") };
    };
    // Written over, on a terminal; elsewhere one below the other.
    let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J\x1b[3J" } else { "" };
    let mut every = tokio::time::interval(Duration::from_secs(seconds.into()));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut first = true;
    loop {
        every.tick().await;
        let status = ask(&client, global).await?;
        if args.json {
            output::json_line(&status)?;
        } else {
            let before = if first || !clear.is_empty() { clear } else { "\n" };
            show(&status, global, before)?;
        }
        first = false;
    }
}

async fn ask(client: &Client, global: &Global) -> Result<StatusReply, Failure> {
    match &global.node {
        Some(node) => Ok(StatusReply { nodes: vec![client.get(&Path::node(node)).await?], unanswered: Vec::new() }),
        None => Ok(client.get(&Path::new("v1").then("status")).await?),
    }
}

fn show(status: &StatusReply, global: &Global, before: &str) -> Result<(), Failure> {
    let text = render::status::status(status, global.color.on_stdout());
    output::data(format!("{before}{text}").as_bytes())
}
