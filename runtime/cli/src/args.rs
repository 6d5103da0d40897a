//! The command line.

use std::ffi::OsString;
use std::io::IsTerminal;

use bellwether_node::admin::AdminAddress;
use clap::{Args, Parser, ValueEnum};

use crate::verbs::Verb;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  tried and failed (a swap was rolled back, a node does not lead, …)
  2  the command line makes no sense
  3  the manifest cannot be used
  4  a component cannot be used
  5  the coordinator does not answer, or refuses
  6  something on this machine is missing, taken or not allowed (an address, a folder)
  7  no node answers
  8  a rollout failed: the group went back to the release before, or is halted
  9  refused, and nothing was written: the release runs already, another rollout is under way, …
  10 a rollout was aborted
  130, 143  a second SIGINT or SIGTERM cut a graceful stop short

Examples:
  bellwether new hello --lang rust            a guest to begin from
  bellwether dev --nodes 3                    three nodes in one process, no server needed
  bellwether run /etc/bellwether/node.toml    one node of a cluster
  bellwether status --watch                   what it does
  bellwether swap wordcount v2.wasm           new logic, while it runs
  bellwether deploy wordcount v2.wasm         the same on all nodes of the group, wave by wave";

// Not a doc comment: rustdoc would take the brackets for a link.
const ADMIN: &str = "The node's admin API: unix:PATH, 127.0.0.1:PORT or [::1]:PORT. Otherwise that of ./bellwether.toml, or \
                     the one socket below ./.bellwether";

/// Leader election, a service registry and WebAssembly components that run on them.
#[derive(Debug, Parser)]
#[command(name = "bellwether", version, after_help = EXIT_CODES, max_term_width = 110)]
#[command(disable_help_subcommand = true, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub struct Cli {
    /// Options that every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Global {
    /// The node's admin API.
    #[arg(long, global = true, value_name = "ADDRESS", env = "BELLWETHER_ADMIN", help = ADMIN)]
    pub admin: Option<AdminAddress>,

    /// Which node is meant, where one process runs several (bellwether dev)
    #[arg(long, global = true, value_name = "ID")]
    pub node: Option<String>,

    /// The form of the log on stderr; auto: for people on a terminal, otherwise JSON
    #[arg(long, global = true, value_name = "FORMAT", default_value = "auto")]
    pub log_format: LogFormat,

    /// What is logged, as in "info,bellwether_node=debug"
    #[arg(long = "log", global = true, value_name = "FILTER", env = "BELLWETHER_LOG", default_value = "info")]
    pub log: String,

    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people if stderr is a terminal, otherwise JSON
    Auto,
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl ColorChoice {
    /// The choice among these arguments, before they are parsed.
    pub fn scan(arguments: impl Iterator<Item = OsString>) -> Self {
        let mut arguments = arguments.take_while(|argument| argument != "--");
        let mut choice = Self::Auto;
        while let Some(argument) = arguments.next() {
            let value = match argument.to_str() {
                Some("--color") => arguments.next(),
                Some(text) => text.strip_prefix("--color=").map(OsString::from),
                None => None,
            };
            if let Some(value) = value.as_ref().and_then(|value| value.to_str()) {
                choice = Self::from_str(value, false).unwrap_or(choice);
            }
        }
        choice
    }

    fn on(self, terminal: bool) -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        }
    }

    /// Whether stdout is coloured.
    pub fn on_stdout(self) -> bool {
        self.on(std::io::stdout().is_terminal())
    }

    /// Whether stderr is coloured.
    pub fn on_stderr(self) -> bool {
        self.on(std::io::stderr().is_terminal())
    }
}

impl From<ColorChoice> for clap::ColorChoice {
    fn from(choice: ColorChoice) -> Self {
        match choice {
            ColorChoice::Auto => Self::Auto,
            ColorChoice::Always => Self::Always,
            ColorChoice::Never => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_examples() {
        let mut command = Cli::command();
        for verb in command.get_subcommands_mut() {
            let name = verb.get_name().to_owned();
            let help = verb.render_long_help().to_string();
            assert!(help.contains("Example"), "{name}:\n{help}");
            assert!(help.contains(&format!("bellwether {name}")), "{name}:\n{help}");
        }
    }

    #[test]
    fn global_options_may_stand_after_the_verb() {
        let cli =
            Cli::try_parse_from(["bellwether", "status", "--json", "--admin", "unix:a.sock", "--node", "n"]).unwrap();
        assert_eq!(cli.global.admin, Some(AdminAddress::Unix("a.sock".into())));
        assert_eq!(cli.global.node.as_deref(), Some("n"));
    }

    #[test]
    fn an_address_that_others_can_reach_is_a_usage_error() {
        let error = Cli::try_parse_from(["bellwether", "status", "--admin", "0.0.0.0:80"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("not a loopback address"), "{error}");
    }

    #[test]
    fn the_colour_is_found_before_parsing() {
        let scan = |arguments: &[&str]| ColorChoice::scan(arguments.iter().map(OsString::from));
        assert_eq!(scan(&["b", "--color", "never", "status"]), ColorChoice::Never);
        assert_eq!(scan(&["b", "status", "--color=always"]), ColorChoice::Always);
        assert_eq!(scan(&["b", "status", "--color=pink"]), ColorChoice::Auto);
        assert_eq!(scan(&["b", "--", "--color=always"]), ColorChoice::Auto);
    }
}
