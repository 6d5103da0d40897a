//! `tasks`: a leader's guest hands out pieces of work, a worker's guest answers each with what it was given, and the leader's guest has the
//! answers. The clock is the leader's guest's own. Beside it, a bare gRPC echo.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::guest;
use bellwether_tests::zookeeper;

use crate::echo;

/// What is done once with pieces of one size.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Bytes of a piece, and of its answer.
    pub bytes: usize,
    /// Pieces that are sent one after the other, to one worker.
    pub sends: usize,
    /// To how many workers pieces are scattered, in turn; the last is the greatest number.
    pub workers: Vec<usize>,
    /// Pieces that are scattered at once.
    pub pieces: usize,
    /// How often.
    pub scatters: usize,
}

impl Plan {
    /// So much of it that it takes some tenths of a second: about `operations` small pieces, and fewer of the large ones.
    #[must_use]
    pub fn new(bytes: usize, operations: usize) -> Self {
        let (sends, pieces) = if bytes < 1 << 16 { (operations, 32) } else { ((operations / 10).max(10), 8) };
        Self { bytes, sends, workers: vec![1, 2, 4, 8], pieces, scatters: (sends / 4).max(4) }
    }

    fn most(&self) -> usize {
        self.workers.last().copied().unwrap_or(1)
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Of single pieces, the median and the 99th percentile.
    pub latency: (Duration, Duration),
    /// By the number of workers: how many pieces were answered in a second.
    pub rates: Vec<(usize, f64)>,
}

const GROUP: &str = "bench";

fn rate(plan: &Plan, total: Duration) -> f64 {
    (plan.pieces * plan.scatters) as f64 / total.as_secs_f64()
}

/// Measures a leader and its workers, each node a process of its own.
///
/// # Errors
/// When they do not come up, or a piece is not answered.
pub fn bellwether(server: &zookeeper::Server, name: &str, plan: &Plan) -> Result<Measured> {
    let bytes = plan.bytes;
    let mut orders = vec![format!("{bytes}/1/1/{}", plan.sends.div_ceil(10)), format!("{bytes}/1/1/{}", plan.sends)];
    for workers in &plan.workers {
        // Connections and instances are made by the first.
        orders.push(format!("{bytes}/{workers}/{}/1", plan.pieces));
        orders.push(format!("{bytes}/{workers}/{}/{}", plan.pieces, plan.scatters));
    }
    let config = format!(
        "tick = {{ every = \"20ms\" }}\n[group.limits]\ncallback = \"60s\"\nmemory = \"256MiB\"\n[group.config]\nerrands = \"{}\"\n",
        orders.join(" ")
    );
    let cluster = Cluster::builder(server.address())
        .nodes(plan.most() + 1)
        .root(&format!("/tasks-{name}"))
        .session_timeout(Duration::from_secs(10))
        .group(GROUP, guest("stamp"), &config)
        .start()?;
    cluster.wait_ready()?;
    let mut told: Vec<Vec<u64>> = Vec::new();
    cluster.wait_until("all errands", |cluster| {
        let lines = cluster.nodes().iter().flat_map(|node| node.logged(0, |line| line.guest("errand").is_some()));
        let numbers = |text: &str| text.split(' ').skip(1).filter_map(|number| number.parse().ok()).collect();
        told = lines.filter_map(|line| line.guest("errand").map(numbers)).collect();
        told.len() >= orders.len()
    })?;
    ensure!(told.len() == orders.len() && told.iter().all(|one| one.len() == 3), "not what was ordered: {told:?}");
    let nanos = |order: usize, which: usize| Duration::from_nanos(told[order][which]);
    let rates = plan.workers.iter().enumerate().map(|(at, workers)| (*workers, rate(plan, nanos(3 + 2 * at, 0))));
    Ok(Measured { latency: (nanos(1, 1), nanos(1, 2)), rates: rates.collect() })
}

/// Measures the echo; `program` is the benchmarks' own, which serves it.
///
/// # Errors
/// As [`bellwether`].
pub fn echoed(program: &Path, plan: &Plan) -> Result<Measured> {
    let servers = (0..plan.most()).map(|_| echo::Server::start(program)).collect::<Result<Vec<_>>>()?;
    let one = servers.get(..1).context("no server")?;
    echo::measure(one, plan.bytes, 1, plan.sends.div_ceil(10))?;
    let (latency, _) = echo::measure(one, plan.bytes, 1, plan.sends)?;
    let mut rates = Vec::with_capacity(plan.workers.len());
    for workers in &plan.workers {
        let servers = servers.get(..*workers).context("too few servers")?;
        let (_, total) = echo::measure(servers, plan.bytes, plan.pieces, plan.scatters)?;
        rates.push((*workers, rate(plan, total)));
    }
    Ok(Measured { latency: (latency.percentile(50), latency.percentile(99)), rates })
}
