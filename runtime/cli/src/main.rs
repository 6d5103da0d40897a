//! The `bellwether` binary: runs nodes, and asks the ones that run.

mod args;
mod client;
mod exit;
mod find;
mod heap;
mod keys;
mod log;
mod node;
mod output;
mod project;
mod render;
mod rollout;
mod signals;
mod source;
mod verbs;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, ColorChoice};
use exit::Failure;

fn main() -> std::process::ExitCode {
    // Help and usage errors are coloured too, and come before there are any parsed arguments.
    let color = ColorChoice::scan(std::env::args_os());
    let parsed =
        Cli::command().color(color.into()).try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody may be reading any more; there is nobody to tell of that either.
            let _ = error.print();
            return exit::code(error.exit_code());
        }
    };
    let color = cli.global.color;
    match verbs::run(cli) {
        Ok(()) => exit::code(0),
        Err(failure) => report(&failure, color),
    }
}

fn report(failure: &Failure, color: ColorChoice) -> std::process::ExitCode {
    output::report(failure, color.on_stderr());
    exit::code(failure.exit.into())
}
