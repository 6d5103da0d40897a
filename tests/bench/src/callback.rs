//! `callback`: what a call from the host into a guest costs, with nothing to tell and with so many changed members.
//!
//! Without a node: an instance and whoever calls it. On one thread, which shows what the call itself costs, and with the caller on
//! another one, as the session's thread is in a node, where two changes of thread come on top.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bellwether_core::callback::Callback;
use bellwether_core::id::{Epoch, NodeId};
use bellwether_core::member::{Leader, Member, MembershipChange};
use bellwether_core::state::{StateError, StateOp, StateReply};
use bellwether_core::work::WorkError;
use bellwether_guest::host::{Assignment, ClusterError, Host, LogLevel};
use bellwether_guest::{Engine, EngineOptions, Grants, Limits};
use bellwether_tests::guests::guest_bytes;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Builder;

/// A node that has nothing to say.
struct Nobody(Arc<Member>);

impl Host for Nobody {
    fn this(&self) -> Arc<Member> {
        Arc::clone(&self.0)
    }

    fn members(&self) -> Arc<[Arc<Member>]> {
        Arc::from([])
    }

    fn leader(&self) -> BoxFuture<'_, Result<Option<Leader>, ClusterError>> {
        async { Ok(None) }.boxed()
    }

    fn epoch(&self) -> Option<Epoch> {
        None
    }

    fn resign(&self) -> Result<(), ClusterError> {
        Err(ClusterError::NotLeader)
    }

    fn send(&self, _: Assignment, _: Duration) -> BoxFuture<'_, Result<Bytes, WorkError>> {
        async { Err(WorkError::NotLeader) }.boxed()
    }

    fn state(&self, _: StateOp) -> BoxFuture<'_, Result<StateReply, StateError>> {
        async { Err(StateError::NotLeader) }.boxed()
    }

    fn log(&self, _: LogLevel, _: &str, _: &str) {}
}

fn member(number: usize) -> Result<Arc<Member>> {
    let id = NodeId::new(format!("node-{number}"))?;
    Ok(Arc::new(Member { id, address: format!("node-{number}.example:7400"), labels: BTreeMap::new() }))
}

/// The time of one call, in the mean over each of some batches: the clock itself would be seen in a single one.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Changed members.
    pub members: usize,
    /// Batches, in the order of their means.
    pub means: Vec<Duration>,
}

impl Measured {
    /// Half of the batches were faster.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.means.get(self.means.len() / 2).copied().unwrap_or_default()
    }
}

const BATCHES: usize = 20;

/// Measures calls with so many members; `apart` gives the caller another thread. About `calls` in all are made of the empty one,
/// and fewer of the larger.
///
/// # Errors
/// When a call fails.
pub fn run(members: &[usize], apart: bool, calls: usize) -> Result<Vec<Measured>> {
    let guests = Builder::new_multi_thread().thread_name("guests").enable_all().build()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        let engine = Engine::new(EngineOptions::default())?;
        let component = engine.compile(guest_bytes("minimal").into()).await?;
        let linked = component.link(&Grants::default(), &Limits::default(), BTreeMap::new())?;
        let nobody = Arc::new(Nobody(member(0)?));
        let instance = if apart {
            guests.spawn(async move { linked.instantiate(nobody).await }).await??
        } else {
            linked.instantiate(nobody).await?
        };
        let mut measured = Vec::with_capacity(members.len());
        for &count in members {
            let changed = (1..=count).map(member).collect::<Result<Vec<_>>>()?;
            let change = Arc::new(MembershipChange { version: 1, changed, ..MembershipChange::default() });
            let batch = (calls / BATCHES / (1 + count / 4)).max(1);
            let mut means = Vec::with_capacity(BATCHES);
            for round in 0..=BATCHES {
                let began = Instant::now();
                for _ in 0..batch {
                    let callback = Callback::MembersChanged(Arc::clone(&change));
                    let returned = instance.call(callback, Duration::from_secs(60)).await;
                    returned.map_err(|failure| anyhow!("on-members-changed {failure}"))?;
                }
                // The first warms up.
                if round > 0 {
                    means.push(began.elapsed() / u32::try_from(batch)?);
                }
            }
            means.sort_unstable();
            measured.push(Measured { members: count, means });
        }
        Ok(measured)
    });
    guests.shutdown_background();
    measured
}
