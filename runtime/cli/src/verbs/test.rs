use std::path::PathBuf;

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::{log, node, output};

const SCENARIOS: &str = "scenarios.toml";

const EXAMPLES: &str = "\
Examples:
  bellwether test                                     the scenarios of this folder
  bellwether test tests/scenarios.toml --filter swap
  bellwether test --component target/wasm32-wasip2/release/guest.wasm --verbose

A scenario is a sequence of events (elect, join, tick, task, swap, …) with what the guest is to do about each. No coordinator
and no other node is needed: the members' tasks are done by instances of the same component, unless the scenario answers for
them. Exit codes: 1 if a scenario failed, 3 for a bad file of scenarios, 4 for a bad component.";

/// Play scenarios against a component, and compare what it does with what is expected
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The scenarios; otherwise ./scenarios.toml
    #[arg(value_name = "SCENARIOS")]
    file: Option<PathBuf>,

    /// The component, instead of the one that the scenarios name
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,

    /// The component for the members' tasks, instead of the scenarios'
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,

    /// Only the scenarios whose names contain this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Show what the guest asked for and logged in each step, also where all is well
    #[arg(long, short)]
    verbose: bool,

    /// Write the results as JSON
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
}

pub fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let _log = log::install(global)?;
    let file = args.file.unwrap_or_else(|| PathBuf::from(SCENARIOS));
    let tested = super::serve(node::test(&file, args.component, args.worker, args.filter, args.verbose))?;
    if args.json {
        output::json(&tested.json)?
    } else {
        output::text(&output::clean(&tested.text))?
    }
    if tested.good {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("{}: not every scenario went as expected", file.display()))
        .why("the findings on stdout say which step, and how"))
}
