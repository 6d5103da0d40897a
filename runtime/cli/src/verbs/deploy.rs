use std::path::PathBuf;
use std::time::Duration;

use bellwether_core::release::OnFailure;
use bellwether_node::admin::{DeployRequest, ErrorKind, Planned, PolicyRequest};
use clap::ValueEnum;

use crate::args::Global;
use crate::client::{CallError, Client, Path};
use crate::exit::{Exit, Failure};
use crate::find::{self, Prefer};
use crate::rollout::{Show, Wish, follow};
use crate::{output, render, source};

const EXAMPLES: &str = "\
Examples:
  bellwether deploy wordcount v2.wasm --plan                 what would change, where and in which order
  bellwether deploy wordcount v2.wasm --wait                 one node first, then the others one by one, the leader last
  bellwether deploy wordcount --config level=2 --wait        the same component with another configuration
  bellwether deploy wordcount v2.wasm --canaries 2 --max-unavailable 3 --settle 30s

What is not named stays as it is deployed; before the first deployment, as the manifest of the node that is asked has it. A release
that fails on any node takes all of them back to the release before. `--config` and `--config-file` give the whole configuration, which
the coordinator holds for everybody who may read there: no secrets. A deployed release counts for nodes that join or restart as well.";

/// Roll a release out across a group: a canary first, then wave by wave, the leader last
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The group
    group: String,

    /// The component: a file, oci://REGISTRY/NAME:TAG, https://… with a digest, or sha256:…, which one node at least can have
    source: Option<String>,

    /// Another component for the tasks
    #[arg(long, value_name = "SOURCE", conflicts_with = "no_worker")]
    worker: Option<String>,

    /// The component does the tasks itself
    #[arg(long)]
    no_worker: bool,

    /// A setting of the guest's whole configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = source::setting)]
    config: Vec<(String, String)>,

    /// A TOML file with the guest's whole configuration
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,

    /// The configuration is each node's manifest's again
    #[arg(long, conflicts_with_all = ["config", "config_file"])]
    manifest_config: bool,

    #[command(flatten)]
    way: Way,
}

/// How a release makes its way, and how that is shown.
#[derive(Debug, clap::Args)]
pub struct Way {
    /// So many nodes run it first [default: 1]
    #[arg(long, value_name = "N")]
    canaries: Option<u32>,

    /// So many nodes change at once after that [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_unavailable: Option<u32>,

    /// A wave must have been well for so long before the next begins, after its probation [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    settle: Option<Duration>,

    /// A node that is not well after so long fails the rollout [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    patience: Option<Duration>,

    /// What is done when a node fails [default: back]
    #[arg(long, value_name = "WHAT")]
    on_failure: Option<Then>,

    /// Show what would be done, and write nothing
    #[arg(long, conflicts_with = "wait")]
    plan: bool,

    /// Follow the rollout to its end
    #[arg(long)]
    wait: bool,

    /// Write JSON; with --wait, one object a line
    #[arg(long)]
    json: bool,
}

/// What is done when a node fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Then {
    /// Every node goes back to the release before
    Back,
    /// Nothing, until somebody says so
    Halt,
}

impl Way {
    /// As the admin API takes it.
    pub fn policy(&self) -> PolicyRequest {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        PolicyRequest {
            canaries: self.canaries,
            max_unavailable: self.max_unavailable,
            settle_ms: self.settle.map(ms),
            patience_ms: self.patience.map(ms),
            on_failure: self.on_failure.map(|then| match then {
                Then::Back => OnFailure::Back,
                Then::Halt => OnFailure::Halt,
            }),
        }
    }

    /// Whether nothing is to be written.
    pub fn plan(&self) -> bool {
        self.plan
    }

    /// Shows what has begun, and follows it if that is wished for.
    pub async fn show(&self, client: &Client, call: &Path, group: &str, planned: &Planned) -> Result<(), Failure> {
        match (self.json, self.wait) {
            (true, true) => output::json_line(planned)?,
            (true, false) => output::json(planned)?,
            (false, _) => output::text(&render::rollout::planned(group, planned))?,
        }
        if !self.wait {
            return Ok(());
        }
        let show = if self.json { Show::Json } else { Show::People };
        follow(client, call, planned.to.number, show, Wish::Done).await
    }
}

/// Who asks, for people who look later.
pub fn by() -> Option<String> {
    let name = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    name("SUDO_USER").or_else(|| name("USER")).or_else(|| name("LOGNAME"))
}

pub async fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let request = DeployRequest {
        component: args.source.as_deref().map(source::reference).transpose()?,
        worker: args.worker.as_deref().map(source::reference).transpose()?,
        no_worker: args.no_worker,
        config: source::config(args.config_file.as_deref(), &args.config)?,
        manifest_config: args.manifest_config,
        policy: args.way.policy(),
        by: by(),
        plan: args.way.plan(),
    };
    let client = find::client(global)?;
    let call = find::group(&client, global, &args.group, Prefer::Leader).await?;
    let planned = client.post_long::<Planned>(&call.then("deploy"), &request).await.map_err(unusable)?;
    args.way.show(&client, &call, &args.group, &planned).await
}

/// A component that cannot be used is told apart from everything else that may fail.
fn unusable(error: CallError) -> Failure {
    let component = matches!(&error, CallError::Refused(body)
        if body.kind == ErrorKind::Failed && body.step.as_deref() != Some("release"));
    let failure = Failure::from(error);
    if component { Failure { exit: Exit::Component, ..failure }.help("nothing was written") } else { failure }
}
