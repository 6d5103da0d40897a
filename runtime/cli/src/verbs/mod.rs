//! The verbs, one a file.

mod check;
mod compile;
mod completions;
mod deploy;
mod dev;
mod history;
mod keygen;
mod kill;
mod members;
mod new;
mod reaper;
mod resign;
mod rollback;
mod rollout;
mod run;
mod schema;
mod sign;
mod state;
mod status;
mod store;
mod swap;
mod test;

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::find::MANIFEST;
use crate::heap;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    New(new::Args),
    Run(run::Args),
    Dev(dev::Args),
    Check(check::Args),
    Test(test::Args),
    Status(status::Args),
    Members(members::Args),
    Swap(swap::Args),
    Deploy(deploy::Args),
    Rollout(rollout::Args),
    Rollback(rollback::Args),
    History(history::Args),
    Resign(resign::Args),
    State(state::Args),
    Kill(kill::Args),
    Keygen(keygen::Args),
    Sign(sign::Args),
    Store(store::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Compile(compile::Args),
    #[command(hide = true)]
    Reaper(reaper::Args),
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let global = &cli.global;
    match cli.verb {
        Verb::New(args) => new::run(&args),
        Verb::Run(args) => run::run(args, global),
        Verb::Dev(args) => dev::run(args, global),
        Verb::Check(args) => check::run(&args, global),
        Verb::Test(args) => test::run(args, global),
        Verb::Status(args) => ask(status::run(&args, global)),
        Verb::Members(args) => ask(members::run(&args, global)),
        Verb::Swap(args) => ask(swap::run(&args, global)),
        Verb::Deploy(args) => ask(deploy::run(&args, global)),
        Verb::Rollout(args) => ask(rollout::run(&args, global)),
        Verb::Rollback(args) => ask(rollback::run(&args, global)),
        Verb::History(args) => ask(history::run(&args, global)),
        Verb::Resign(args) => ask(resign::run(&args, global)),
        Verb::State(args) => ask(state::run(&args, global)),
        Verb::Kill(args) => ask(kill::run(&args, global)),
        Verb::Keygen(args) => keygen::run(&args),
        Verb::Sign(args) => sign::run(&args),
        Verb::Store(args) => store::run(&args, global),
        Verb::Schema(args) => schema::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Compile(args) => compile::run(&args),
        Verb::Reaper(args) => reaper::run(&args, global),
    }
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::new(Exit::Local, "cannot start the async runtime").why(error)
}

/// Runs a verb that asks a node: one thread is plenty.
fn ask(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)?.block_on(work)
}

/// Runs a verb that is a node itself.
fn serve<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    heap::keep_freed();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("bellwether").build();
    let runtime = runtime.map_err(no_runtime)?;
    let result = runtime.block_on(work);
    // The node has stopped; a compilation that nobody waits for any more must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The manifest as given, or the one of this folder.
fn manifest(given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| PathBuf::from(MANIFEST))
}
