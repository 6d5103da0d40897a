//! The benchmarks' command line; `tests/bench.sh` builds and runs it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is what it is for")]

use std::time::{Duration, Instant};

use anyhow::Result;
use bellwether_bench::failover::Fate;
use bellwether_bench::field::{Kind, Layout, zookeeper};
use bellwether_bench::handover::Rest;
use bellwether_bench::report::{Row, summary};
use bellwether_bench::{bare, callback, echo, failover, footprint, handover, registry, swap, tasks};
use bellwether_tests::peers_tools::Recipe;
use clap::{Parser, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The leader gives up → its successor's callback
    Handover,
    /// The leader crashes, stands still or is cut off → its successor's callback
    Failover,
    /// A member joins → whoever watches has been told
    Registry,
    /// Leader guest → worker guest → back, beside a bare gRPC echo
    Tasks,
    /// Memory, threads and time to start of one candidate, and of one node in many groups
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
    /// A bare recipe on our own client library, which does what nobody can do without; in `handover` alone
    Bare,
    /// All of them
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Befalls {
    /// SIGKILL to its process
    Kill,
    /// SIGKILL to it and to what stands beside it, as when its machine fails
    Lose,
    /// SIGSTOP
    Stop,
    /// Its link is cut
    Cut,
}

impl Befalls {
    fn fate(self) -> (&'static str, Fate) {
        match self {
            Self::Kill => ("kill -9", Fate::Killed),
            Self::Lose => ("machine lost", Fate::Lost),
            Self::Stop => ("SIGSTOP", Fate::Paused),
            Self::Cut => ("cut link", Fate::Cut),
        }
    }
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

/// Bellwether beside Curator and Kazoo, in turn, on one ZooKeeper. When nothing is named, what takes long is measured in the first round
/// only: failover, 500 candidates and more, 5000 members and more, and many groups.
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
    /// handover: how the candidates are spread, as PROCESSESxCANDIDATES; with 500 candidates and more, an eighth of the hand-overs
    #[arg(long, value_delimiter = ',', default_value = "3x1,1x1,1x10,2x50,20x50")]
    layouts: Vec<Layout>,
    /// handover: how many are measured in each round
    #[arg(long, default_value_t = 240)]
    handovers: usize,
    /// registry, swap: how many are measured in each round; tasks: ten times as many
    #[arg(long, default_value_t = 60)]
    operations: usize,
    /// handover: the rest between two, in milliseconds
    #[arg(long, default_value_t = 20)]
    pause: u64,
    /// registry: how many members there are before
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    members: Vec<usize>,
    /// failover, footprint: how many trials in each round
    #[arg(long, default_value_t = 3)]
    trials: usize,
    /// failover: what befalls the leader
    #[arg(long, value_delimiter = ',', default_value = "kill,lose,stop,cut")]
    fates: Vec<Befalls>,
    /// tasks: bytes of a piece
    #[arg(long, value_delimiter = ',', default_value = "0,1024,1048576")]
    sizes: Vec<usize>,
    /// footprint: in how many groups one node is
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    groups: Vec<usize>,
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
    /// Measures nothing, but serves the gRPC echo of `tasks`
    #[arg(long, hide = true)]
    serve_echo: bool,
    /// Measures nothing, but stands with candidates of the bare recipe: CONNECT PATH TIMEOUT_MS NAME COUNT
    #[arg(long, hide = true, num_args = 5)]
    serve_bare: Option<Vec<String>>,
}

/// A field of this many candidates is large.
const LARGE: usize = 500;
/// So is a registry of this many members.
const CROWDED: usize = 5000;

fn main() -> Result<()> {
    let options = Options::parse();
    if options.serve_echo {
        return echo::serve();
    }
    if let Some([connect, path, timeout, name, count]) = options.serve_bare.as_deref() {
        return bare::serve(connect, path, Duration::from_millis(timeout.parse()?), name, count.parse()?);
    }
    let began = Instant::now();
    let others: &[Recipe] = match options.peers {
        Peers::None | Peers::Bare => &[],
        Peers::Kazoo => &[Recipe::Kazoo],
        Peers::Curator => &[Recipe::Latch, Recipe::Selector],
        Peers::All => &[Recipe::Latch, Recipe::Selector, Recipe::Kazoo],
    };
    let kinds: Vec<Kind> =
        std::iter::once(Kind::Bellwether).chain(others.iter().map(|recipe| Kind::Other(*recipe))).collect();
    let bare = matches!(options.peers, Peers::Bare | Peers::All).then_some(Kind::Bare);
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
    let rounds = options.rounds;
    for round in 1..=usize::from(rounds) {
        let progress = |what: std::fmt::Arguments<'_>| {
            let (minutes, seconds) = (began.elapsed().as_secs() / 60, began.elapsed().as_secs() % 60);
            eprintln!("[{minutes:2}:{seconds:02}] round {round} of {rounds}: {what}");
        };
        let long = round == 1 || !options.names.is_empty();
        // A server of its own for each round, the same one for all kinds in it.
        let server = zookeeper()?;
        if wanted(Name::Handover) {
            for layout in options.layouts.iter().filter(|layout| long || layout.candidates() < LARGE) {
                let large = layout.candidates() >= LARGE;
                let operations = if large { (options.handovers / 8).max(1) } else { options.handovers };
                let warm_up = (operations / 4).min(100);
                let plan = handover::Plan { operations, warm_up, rest: Rest::Pause(pause), timeout };
                for kind in kinds.iter().chain(&bare) {
                    progress(format_args!("handover {layout}, {kind}"));
                    let measured = handover::run(*kind, *layout, &server, &plan)?;
                    tell(Row::handover(*layout, round, *kind, &measured));
                }
            }
        }
        if wanted(Name::Failover) && long {
            for (name, fate) in options.fates.iter().map(|befalls| befalls.fate()) {
                for kind in &kinds {
                    progress(format_args!("failover {name}, {kind}"));
                    let trials = failover::run(*kind, &server, timeout, fate, options.trials)?;
                    tell(Row::failover(name, round, *kind, timeout, &trials));
                }
            }
        }
        if wanted(Name::Registry) {
            for members in options.members.iter().filter(|members| long || **members < CROWDED) {
                let plan = registry::Plan { members: *members, joins: options.operations, storm: 500 };
                // Both of Curator's elections would have the same cache beside them, and Kazoo has none.
                for kind in kinds.iter().filter(|kind| matches!(kind, Kind::Bellwether | Kind::Other(Recipe::Latch))) {
                    progress(format_args!("registry {members}, {kind}"));
                    let measured = registry::run(*kind, &server, &format!("{members}"), plan)?;
                    tell(Row::registry(*members, round, *kind, &measured));
                }
            }
        }
        if wanted(Name::Tasks) {
            let program = std::env::current_exe()?;
            for bytes in &options.sizes {
                progress(format_args!("tasks of {bytes} bytes"));
                let plan = tasks::Plan::new(*bytes, options.operations * 10);
                let measured = tasks::bellwether(&server, &bytes.to_string(), &plan)?;
                tell(Row::tasks(*bytes, round, Kind::Bellwether, &measured));
                tell(Row::tasks(*bytes, round, Kind::Echo, &tasks::echoed(&program, &plan)?));
            }
        }
        if wanted(Name::Swap) {
            progress(format_args!("swap"));
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
            progress(format_args!("callback"));
            for (how, apart) in [("on one thread", false), ("across threads", true)] {
                tell(Row::callback(how, round, &callback::run(&[0, 1, 100, 1000], apart, 200_000)?));
            }
        }
        if wanted(Name::Footprint) {
            for kind in &kinds {
                progress(format_args!("footprint, {kind}"));
                let found = footprint::run(*kind, &server, timeout, options.trials)?;
                tell(Row::footprint(round, *kind, &found));
            }
            for groups in options.groups.iter().filter(|_| long) {
                progress(format_args!("footprint, {groups} groups"));
                tell(Row::many(*groups, round, &footprint::many(&server, timeout, *groups)?));
            }
        }
    }
    if !options.json {
        println!("{}", summary(&rows));
    }
    Ok(())
}
