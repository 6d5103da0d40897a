//! Runs seeds, or replays one.

#![expect(clippy::print_stdout, reason = "this is a program for people")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bellwether_simulation::history::History;
use bellwether_simulation::{Missing, Options, run};
use clap::Parser;

/// Simulates Bellwether clusters under faults. Each seed is one run; the same seed gives the same run.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Stop after so many steps of all runs together, whatever the number of seeds.
    #[arg(long)]
    steps: Option<u64>,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many simulated seconds faults go on.
    #[arg(long, default_value_t = 60)]
    trouble: u64,
    /// Take a safeguard away: proof, lease, told, owner, suffix-order, admission, waves, relist or worker-fence.
    #[arg(long)]
    without: Option<Missing>,
    /// Deploy releases in every run, again and again.
    #[arg(long)]
    rollouts: bool,
    /// Say what happens, step by step.
    #[arg(long)]
    trace: bool,
}

/// The time that simulating takes is not part of the simulation.
fn now() -> Instant {
    Instant::now()
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        nodes: args.nodes,
        trouble: Duration::from_secs(args.trouble),
        rollouts: args.rollouts,
        trace: args.trace,
        missing: args.without,
        ..Options::default()
    };
    let started = now();
    let (mut seeds, mut steps) = (0_u64, 0_u64);
    let mut total = History::default();
    let mut slowest = Duration::ZERO;
    for seed in args.from.. {
        if args.steps.map_or(seeds >= args.seeds, |most| steps >= most) {
            break;
        }
        match run(seed, options) {
            Ok(world) => {
                seeds += 1;
                steps += world.step;
                let history = world.history;
                total.elections += history.elections;
                total.writes += history.writes;
                total.fenced += history.fenced;
                total.tasks += history.tasks;
                total.refused += history.refused;
                total.swaps += history.swaps;
                total.rollbacks += history.rollbacks;
                total.rollouts.add(&history.rollouts);
                total.faults += history.faults;
                slowest = slowest.max(history.rest_after.unwrap_or_default());
            }
            Err(violation) => {
                println!("{violation}");
                let named = |missing| Missing::ALL.iter().find(|(_, known)| *known == missing).map(|(name, _)| *name);
                let without = args.without.and_then(named).map(|name| format!(" --without {name}"));
                println!(
                    "replay: tests/simulate.sh --from {seed} --seeds 1 --nodes {} --trouble {}{}{} --trace",
                    args.nodes,
                    args.trouble,
                    if args.rollouts { " --rollouts" } else { "" },
                    without.unwrap_or_default()
                );
                return ExitCode::FAILURE;
            }
        }
    }
    let took = started.elapsed();
    let per_minute = 60.0 / took.as_secs_f64().max(0.001);
    println!(
        "{seeds} seeds and {steps} steps in {took:.1?} ({:.0} seeds and {:.0} steps a minute): {} faults, {} elections, {} writes accepted and {} fenced off, {} tasks \
         accepted and {} refused, {} swaps and {} rolled back, {} rollouts done, {} failed and {} aborted; at rest after {slowest:?} at most; every invariant held",
        seeds as f64 * per_minute,
        steps as f64 * per_minute,
        total.faults,
        total.elections,
        total.writes,
        total.fenced,
        total.tasks,
        total.refused,
        total.swaps,
        total.rollbacks,
        total.rollouts.done,
        total.rollouts.failed,
        total.rollouts.aborted,
    );
    ExitCode::SUCCESS
}
