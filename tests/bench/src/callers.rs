//! Callers of a node: so many tasks a second, sent as another node's leader would send them, whether or not the last were answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bellwether_core::id::{Epoch, GroupName, NodeId};
use bellwether_core::member::Member;
use bellwether_node::peers::{PeerLimits, Peers};
use bellwether_tests::cluster::Node;
use bellwether_tests::measure::{Figures, boottime};
use bytes::Bytes;
use tokio::time::MissedTickBehavior;

/// How long a task may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A timer ticks this often; several calls are made at each tick.
const TICK: Duration = Duration::from_millis(1);
/// Calls that may be under way, a tenth of a second's worth: fewer than a link takes. When this program itself was not given the processor,
/// it makes up for the calls that were due meanwhile, and all at once they would be refused for being too many.
const MOST: usize = 200;

/// One call: when it was made, and how long it took.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// On `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// Until the answer was there.
    pub took: Duration,
}

/// What the callers have seen.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    /// Those that were answered.
    pub answered: Vec<Call>,
    /// How the others ended, and how many.
    pub failed: BTreeMap<String, usize>,
}

impl Calls {
    /// The times of the calls that were made from then on and answered by then: none that ran on beyond is left out, as all are
    /// waited for.
    #[must_use]
    pub fn within(&self, from: Duration, until: Duration) -> Figures {
        let mut figures = Figures::default();
        self.answered.iter().filter(|call| (from..until).contains(&call.at)).for_each(|call| figures.push(call.took));
        figures
    }
}

/// Calls that go on until they are stopped.
pub struct Callers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Calls>>,
}

impl Callers {
    /// Begins to call the guest of `group` on `node`, which must lead, `rate` times a second (a multiple of 1,000 is kept exactly).
    ///
    /// # Errors
    /// When the node cannot say who it is.
    pub fn start(node: &Node, group: &str, rate: u64) -> Result<Self> {
        let status = node.status()?;
        let text =
            |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned).context("a node without an address");
        let to = Member {
            id: NodeId::new(&text(&status["node"])?)?,
            address: text(&status["address"])?,
            labels: BTreeMap::new(),
        };
        let epoch = Epoch(node.group(group)?["epoch"].as_u64().context("it does not lead")?);
        let (group, stop) = (GroupName::new(group)?, Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("callers".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(call(Arc::new(to), group, epoch, rate, stopped))
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops calling, and gives what was seen once everything is answered.
    ///
    /// # Errors
    /// When the callers could not begin.
    pub fn stop(self) -> Result<Calls> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the callers have panicked"))?
    }
}

async fn call(to: Arc<Member>, group: GroupName, epoch: Epoch, rate: u64, stop: Arc<AtomicBool>) -> Result<Calls> {
    let peers = Peers::new(NodeId::new("bench")?, None, PeerLimits::default())?;
    // The sums take nothing else; the other guest takes anything.
    let payload = Bytes::from_static(b"square 7");
    let mut timer = tokio::time::interval(TICK);
    // Late ticks are made up for: so many calls a second are made, whatever happens.
    timer.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = tokio::task::JoinSet::new();
    let mut calls = Calls::default();
    let take = |calls: &mut Calls, ended: Result<(Call, Result<Bytes, String>), tokio::task::JoinError>| match ended {
        Ok((call, Ok(_))) => calls.answered.push(call),
        Ok((_, Err(error))) => *calls.failed.entry(error).or_default() += 1,
        Err(error) => *calls.failed.entry(error.to_string()).or_default() += 1,
    };
    let mut due = 0;
    while !stop.load(Ordering::Acquire) {
        timer.tick().await;
        due += rate;
        while due >= 1000 {
            due -= 1000;
            if under_way.len() >= MOST
                && let Some(ended) = under_way.join_next().await
            {
                take(&mut calls, ended);
            }
            let (peers, to, group, payload) = (peers.clone(), Arc::clone(&to), group.clone(), payload.clone());
            under_way.spawn(async move {
                let at = boottime();
                let result = peers.send(&to, &group, Some(epoch), payload, PATIENCE).await;
                (Call { at, took: boottime().saturating_sub(at) }, result.map_err(|error| error.to_string()))
            });
        }
        while let Some(ended) = under_way.try_join_next() {
            take(&mut calls, ended);
        }
    }
    while let Some(ended) = under_way.join_next().await {
        take(&mut calls, ended);
    }
    Ok(calls)
}
