//! The benchmarks' command line; `tests/bench.sh` builds and runs it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is what it is for")]

use std::time::Duration;

use anyhow::Result;
use bellwether_bench::failover::Fate;
use bellwether_bench::field::{Kind, Layout, zookeeper};
use bellwether_bench::handover::Rest;
use bellwether_bench::report::{Row, summary};
use bellwether_bench::{callback, failover, footprint, handover, registry, swap};
use bellwether_tests::peers_tools::Recipe;
use clap::{Parser, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The leader gives up → its successor's callback
    Handover,
    /// The leader crashes or stands still → its successor's callback
    Failover,
    /// A member joins → whoever watches has been told
    Registry,
    /// Memory, threads and time to start of one candidate
    Footprint,
    /// For how long a swap holds callbacks up, and what callers notice of compiling
    Swap,
    /// What a call into a guest costs
    Callback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peers {
    /// Only Bellwether
    None,
    /// Kazoo's Election
    Kazoo,
    /// Curator's LeaderLatch and LeaderSelector
    Curator,
    /// All of them
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// QuickJS
    Javascript,
    /// CPython, 18 MB
    Python,
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Javascript => "javascript",
            Self::Python => "python",
        }
    }
}

/// Bellwether beside Curator and Kazoo, in turn, on one ZooKeeper.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure; everything if nothing is named
    names: Vec<Name>,
    /// Whom to compare with
    #[arg(long, default_value = "all")]
    peers: Peers,
    /// How often everything is done, all kinds in turn in each round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Results as JSON, one object a line
    #[arg(long)]
    json: bool,
    /// handover: how the candidates are spread, as PROCESSESxCANDIDATES
    #[arg(long, value_delimiter = ',', default_value = "3x1,1x1,1x10,2x50")]
    layouts: Vec<Layout>,
    /// handover: how many are measured in each round
    #[arg(long, default_value_t = 200)]
    operations: usize,
    /// handover: the rest between two, in milliseconds
    #[arg(long, default_value_t = 20)]
    pause: u64,
    /// registry: how many members there are before
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    members: Vec<usize>,
    /// failover, footprint: how many trials in each round
    #[arg(long, default_value_t = 5)]
    trials: usize,
    /// swap: what the state has, in KiB
    #[arg(long, value_delimiter = ',', default_value = "0,64,1024")]
    states: Vec<usize>,
    /// swap: guests in these languages too, which guests/LANGUAGE/build.sh builds; a tenth as many tasks a second
    #[arg(long, value_delimiter = ',')]
    languages: Vec<Language>,
    /// swap: tasks a second
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// swap: the code of the component that is compiled, in KiB
    #[arg(long, default_value_t = 4096)]
    code: usize,
    /// The session timeout T, in milliseconds; ZooKeeper's tickTime is 200
    #[arg(long, default_value_t = 3000)]
    timeout: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let others: &[Recipe] = match options.peers {
        Peers::None => &[],
        Peers::Kazoo => &[Recipe::Kazoo],
        Peers::Curator => &[Recipe::Latch, Recipe::Selector],
        Peers::All => &[Recipe::Latch, Recipe::Selector, Recipe::Kazoo],
    };
    let kinds: Vec<Kind> =
        std::iter::once(Kind::Bellwether).chain(others.iter().map(|recipe| Kind::Other(*recipe))).collect();
    let wanted = |name| options.names.is_empty() || options.names.contains(&name);
    let timeout = Duration::from_millis(options.timeout);
    let pause = Duration::from_millis(options.pause);
    let mut rows: Vec<Row> = Vec::new();
    let mut tell = |row: Row| {
        if options.json {
            println!("{}", row.json());
        } else {
            // The nodes' last lines, which the clusters print, are on stderr.
            println!("{}", row.line());
        }
        rows.push(row);
    };
    for round in 1..=usize::from(options.rounds) {
        // A server of its own for each round, the same one for all kinds in it.
        let server = zookeeper()?;
        if wanted(Name::Handover) {
            for layout in &options.layouts {
                let plan = handover::Plan {
                    operations: options.operations,
                    warm_up: (options.operations / 4).min(50),
                    rest: Rest::Pause(pause),
                    timeout,
                };
                for kind in &kinds {
                    let measured = handover::run(*kind, *layout, &server, &plan)?;
                    tell(Row::handover(*layout, round, *kind, &measured));
                }
            }
        }
        if wanted(Name::Failover) {
            for (name, fate) in [("kill -9", Fate::Killed), ("SIGSTOP", Fate::Paused)] {
                for kind in &kinds {
                    let trials = failover::run(*kind, &server, timeout, fate, options.trials)?;
                    tell(Row::failover(name, round, *kind, timeout, &trials));
                }
            }
        }
        if wanted(Name::Registry) {
            for members in &options.members {
                let plan = registry::Plan { members: *members, joins: options.operations, storm: 500 };
                // Both of Curator's elections would have the same cache beside them, and Kazoo has none.
                for kind in kinds.iter().filter(|kind| matches!(kind, Kind::Bellwether | Kind::Other(Recipe::Latch))) {
                    let measured = registry::run(*kind, &server, &format!("{members}"), plan)?;
                    tell(Row::registry(*members, round, *kind, &measured));
                }
            }
        }
        if wanted(Name::Swap) {
            let (rate, rest) = (options.rate, pause);
            let states = options.states.iter().map(|kib| swap::Swapped::State(kib << 10));
            for what in states.chain(options.languages.iter().map(|language| swap::Swapped::Language(language.name())))
            {
                // Interpreters do fewer tasks a second.
                let rate = if matches!(what, swap::Swapped::Language(_)) { rate / 10 } else { rate };
                let plan = swap::Plan { what, swaps: options.operations, rest, rate };
                let measured = swap::run(&server, &what.to_string().replace(' ', "-"), &plan)?;
                tell(Row::swap(what, round, &measured));
                measured.failed.iter().for_each(|(why, calls)| eprintln!("{calls} calls failed: {why}"));
            }
            let quiet = Duration::from_secs(5);
            let measured = swap::compile(&server, "big", rate, options.code << 10, quiet)?;
            tell(Row::compile(round, &measured));
            measured.failed.iter().for_each(|(why, calls)| eprintln!("{calls} calls failed: {why}"));
        }
        if wanted(Name::Callback) {
            for (how, apart) in [("on one thread", false), ("across threads", true)] {
                tell(Row::callback(how, round, &callback::run(&[0, 1, 100, 1000], apart, 200_000)?));
            }
        }
        if wanted(Name::Footprint) {
            for kind in &kinds {
                let found = footprint::run(*kind, &server, timeout, options.trials)?;
                tell(Row::footprint(round, *kind, &found));
            }
        }
    }
    if !options.json {
        println!("{}", summary(&rows));
    }
    Ok(())
}
