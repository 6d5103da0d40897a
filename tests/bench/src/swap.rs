//! `swap`: for how long a swap holds callbacks up, and what callers notice while a new release is compiled.
//!
//! One node leads alone and ticks, and callers hand it tasks all the time. The pause is what the node itself reports: from when the
//! old release is between two callbacks until the new one has taken everything (its state, `on-elected`, the members), and the next
//! callback may be made.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::{guest, guest_bytes, language};
use bellwether_tests::load;
use bellwether_tests::measure::{Figures, boottime};
use bellwether_tests::zookeeper::Server;

use crate::big::grown;
use crate::callers::Callers;

const GROUP: &str = "bench";

/// What is swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// A guest in Rust whose state has so many bytes.
    State(usize),
    /// The sums in another language, with a component of megabytes and a state of some bytes.
    Language(&'static str),
}

impl std::fmt::Display for Swapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::State(bytes) => write!(f, "{} KiB", bytes >> 10),
            Self::Language(language) => f.write_str(language),
        }
    }
}

/// What is done once.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What is swapped.
    pub what: Swapped,
    /// How many swaps.
    pub swaps: usize,
    /// The rest between two, in which callbacks and tasks flow.
    pub rest: Duration,
    /// Tasks a second.
    pub rate: u64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Measured {
    /// For how long each swap held callbacks up.
    pub pauses: Figures,
    /// What callers waited while nothing was swapped, and while swaps were.
    pub callers: [Figures; 2],
    /// Why calls failed, and how many.
    pub failed: BTreeMap<String, usize>,
}

/// A node that leads alone. Its queue takes what a machine that stands still for a second leaves behind: nothing shall be refused that
/// a swap had nothing to do with.
fn alone(server: &Server, name: &str, what: Swapped) -> Result<Cluster> {
    let (component, config) = match what {
        Swapped::State(bytes) => (guest("stamp"), format!("state-bytes = {bytes}\n")),
        Swapped::Language(name) => (language(name), String::new()),
    };
    let group = format!(
        "[group.config]\n{config}[group.tick]\nevery = \"10ms\"\n[group.probation]\nlasts = \"0s\"\n[group.worker]\nqueue = 4096\n"
    );
    let cluster = Cluster::builder(server.address())
        .root(&format!("/swap-{name}"))
        .session_timeout(Duration::from_secs(6))
        .group(GROUP, component, &group)
        .start()?;
    cluster.wait_ready()?;
    Ok(cluster)
}

/// Measures swaps between two releases of one component, which is compiled already.
///
/// # Errors
/// When a swap is not committed.
pub fn run(server: &Server, name: &str, plan: &Plan) -> Result<Measured> {
    let cluster = alone(server, name, plan.what)?;
    let node = cluster.node(0);
    let callers = Callers::start(node, GROUP, plan.rate)?;
    std::thread::sleep(plan.rest * 5);
    let begun = boottime();
    // As long as the swaps will take, or so.
    std::thread::sleep(plan.rest * u32::try_from(plan.swaps)?);
    let from = boottime();
    let mut pauses = Figures::default();
    for turn in 0..plan.swaps {
        std::thread::sleep(plan.rest);
        pauses.push(load::swapped(node, GROUP, None, &[("turn", &turn.to_string())])?);
    }
    let until = boottime();
    let calls = callers.stop()?;
    let state = node.group(GROUP)?;
    ensure!(state["callbacks"]["failed"] == 0, "callbacks failed: {state:#}");
    Ok(Measured { pauses, callers: [calls.within(begun, from), calls.within(from, until)], failed: calls.failed })
}

/// What callers notice of a compilation.
#[derive(Debug, Clone)]
pub struct Compiling {
    /// What they waited while nothing was compiled, and while something was.
    pub callers: [Figures; 2],
    /// How long it took to compile.
    pub took: Duration,
    /// Why calls failed, and how many.
    pub failed: BTreeMap<String, usize>,
}

/// Measures what callers wait while a component with so many bytes of code is compiled and swapped in.
///
/// # Errors
/// When it is not.
pub fn compile(server: &Server, name: &str, rate: u64, bytes: usize, quiet: Duration) -> Result<Compiling> {
    let cluster = alone(server, &format!("compile-{name}"), Swapped::State(0))?;
    let node = cluster.node(0);
    let file = cluster.folder().join("big.wasm");
    // Another one each time, since what was compiled once is kept.
    std::fs::write(&file, grown(&guest_bytes("stamp"), bytes, boottime().as_nanos() as u64))?;
    let callers = Callers::start(node, GROUP, rate)?;
    std::thread::sleep(quiet / 5);
    let begun = boottime();
    std::thread::sleep(quiet);
    let from = boottime();
    // Not by the command, whose start takes the processor as well: it need not run on this machine.
    load::swapped(node, GROUP, Some(&file), &[])?;
    let until = boottime();
    let calls = callers.stop()?;
    let last = node.group(GROUP)?["last_swap"]["steps"].take();
    let step = |name: &str| last.as_array()?.iter().find(|step| step["step"] == name)?["took_us"].as_u64();
    let took = Duration::from_micros(step("compile").context("nothing was compiled")?);
    Ok(Compiling { callers: [calls.within(begun, from), calls.within(from, until)], took, failed: calls.failed })
}
