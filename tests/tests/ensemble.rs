//! A three-server ensemble whose servers are restarted and lost, under load.

#![allow(clippy::print_stdout, reason = "figures are printed and not asserted")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::busy::{Busy, TASKS, busy};
use bellwether_tests::checker::{Kind, now_ns};
use bellwether_tests::cluster::Cluster;
use bellwether_tests::zookeeper::{Ensemble, Server};

/// What a task can end with that is nobody's intention. (That a node hands a task to itself is refused as `Other`.)
const FAILURES: [&str; 7] =
    ["Unreachable", "TimedOut", "StaleEpoch", "NotLeader", "Overloaded", "Failed", "UnknownMember"];

fn start(ensemble: &Ensemble, timeout: Duration) -> Result<Busy> {
    // As many as the leader hands tasks to, so that none is unknown.
    let cluster = Cluster::builder(ensemble.connect_string()).nodes(5).session_timeout(timeout);
    let bed = Busy::new(busy(cluster).prepare()?);
    bed.start()?;
    Ok(bed)
}

fn elections(bed: &mut Busy) -> usize {
    bed.history.read(&bed.cluster);
    bed.history.effects().iter().filter(|effect| effect.kind == Kind::ElectedEntered).count()
}

#[test]
fn a_rolling_restart_of_the_ensemble_moves_no_leadership_and_fails_no_task() -> Result<()> {
    const T: Duration = Duration::from_secs(6);
    let mut ensemble = Ensemble::start()?;
    let mut bed = start(&ensemble, T)?;
    let leader = bed.rest()?;
    bed.work()?;
    let before = elections(&mut bed);
    let marks: Vec<usize> = bed.cluster.nodes().iter().map(|node| node.mark()).collect();
    let (epoch, session) = (bed.epoch(leader)?, bed.session(leader)?["id"].clone());
    // The leader of the ensemble last, as operators do it.
    let last = ensemble.leader().context("the ensemble has no leader")?;
    let order: Vec<usize> = (0..3).filter(|server| *server != last).chain([last]).collect();
    for server in order {
        ensemble.server(server).restart()?;
        bed.cluster
            .wait_until("all servers to serve", |_| ensemble.servers().iter().all(|one| one.role().is_some()))?;
        bed.cluster.wait_until("all nodes to be connected", |cluster| {
            let connected = |status: serde_json::Value| status["session"]["state"] == "connected";
            cluster.nodes().iter().all(|node| node.status().is_ok_and(connected))
        })?;
        bed.work()?;
    }
    ensure!((bed.epoch(leader)?, bed.session(leader)?["id"].clone()) == (epoch, session));
    let summary = bed.conclude()?;
    ensure!(elections(&mut bed) == before, "leadership has moved");
    let mut told = 0;
    for (node, mark) in bed.cluster.nodes().iter().zip(marks) {
        for line in node.logged(mark, |line| line.group() == TASKS && line.guest("tell").is_some()) {
            told += 1;
            let failed = FAILURES.iter().find(|failure| line.text.contains(**failure));
            ensure!(failed.is_none(), "a task failed: {}", line.text);
        }
    }
    println!("rolling restart: leadership moved 0 times, {told} rounds of tasks without a failure; {summary:?}");
    ensure!(told > 0);
    Ok(())
}

#[test]
fn a_lost_quorum_demotes_in_time_and_one_leads_when_it_is_back() -> Result<()> {
    const T: Duration = Duration::from_secs(3);
    let mut ensemble = Ensemble::start()?;
    let mut bed = start(&ensemble, T)?;
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
    let last = ensemble.leader().context("the ensemble has no leader")?;
    let lost: Vec<usize> = (0..3).filter(|server| *server != last).collect();
    let at = now_ns();
    lost.iter().for_each(|server| ensemble.server(*server).kill());
    let demoted = bed.wait_demoted(leader, epoch)?;
    let after = Duration::from_nanos(demoted - at);
    // Nothing can be acknowledged after `at`, so that T after it is later than the promise.
    ensure!(after < T, "the guest was demoted only {after:?} after the quorum was lost");
    std::thread::sleep((T * 3).saturating_sub(Duration::from_nanos(now_ns() - at)));
    // Both at once: one alone makes no quorum to wait for.
    let mut servers: Vec<&mut Server> = ensemble.servers_mut().iter_mut().collect();
    std::thread::scope(|scope| {
        let starts: Vec<_> = servers
            .iter_mut()
            .enumerate()
            .filter(|(server, _)| lost.contains(server))
            .map(|(_, server)| scope.spawn(move || server.restart()))
            .collect();
        starts.into_iter().try_for_each(|start| start.join().map_err(|_| anyhow::anyhow!("a start panicked"))?)
    })?;
    let summary = bed.conclude()?;
    ensure!(summary.excused == 0);
    println!("no quorum for 3 T: demoted after {:.2} T; {summary:?}", after.as_secs_f64() / T.as_secs_f64());
    Ok(())
}
