//! A three-server ensemble whose servers are restarted and lost, under load.

#![allow(clippy::print_stdout, reason = "figures are printed and not asserted")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::busy::{Busy, TASKS, WRITES, busy};
use bellwether_tests::checker::{Kind, now_ns};
use bellwether_tests::cluster::{Cluster, PATIENCE};
use bellwether_tests::relay::Relay;
use bellwether_tests::znodes::Znodes;
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

/// The candidate's znode of a node in [`WRITES`], as this server knows it.
fn candidate(server: &Znodes, node: &str) -> Result<Option<String>> {
    let parent = format!("/bellwether/{WRITES}/election");
    let names = server.children(&parent)?.unwrap_or_default();
    let name = names.into_iter().find(|name| name.starts_with(&format!("{node}-")));
    Ok(name.map(|name| format!("{parent}/{name}")))
}

/// A node is at home at a server that hears late what its leader has decided. It reads old lists, and finds itself the first of them
/// when it is not among the candidates any more.
#[test]
fn a_candidate_at_a_server_that_lags_leads_when_it_should_and_not_before() -> Result<()> {
    const T: Duration = Duration::from_secs(6);
    const LAG: Duration = Duration::from_millis(800);
    let mut ensemble = Ensemble::start()?;
    let head = ensemble.leader().context("the ensemble has no leader")?;
    let [lagging, other]: [usize; 2] =
        (0..3).filter(|server| *server != head).collect::<Vec<_>>().try_into().ok().context("three servers")?;
    let quorum = ensemble.quorum_address(head)?;
    let relay = Relay::start(quorum.ip(), quorum)?;
    ensemble.follow_by(lagging, head, relay.address())?;
    ensure!(ensemble.leader() == Some(head) && relay.accepted() > 0, "the follower does not follow by the relay");
    let address = |server: usize| ensemble.servers()[server].address().to_string();
    let (fresh, stale) = (Znodes::of(address(head)), Znodes::of(address(lagging)));
    // n1 stands behind n0, and before n2.
    let homes = [address(head), address(lagging), address(other)];
    let builder = Cluster::builder("").nodes(3).session_timeout(T).connect(move |index| homes[index].clone());
    let mut bed = Busy::new(busy(builder).prepare()?);
    for index in 0..3 {
        bed.cluster.node(index).start()?;
        bed.cluster.wait_until("the nodes to stand in this order", |cluster| {
            candidate(&fresh, &format!("n{index}")).is_ok_and(|found| found.is_some())
                && cluster.leader(WRITES) == Some(0)
        })?;
    }
    bed.rest()?;
    bed.work()?;
    relay.delay(LAG);

    // What the lagging server reads is old: that is the trap.
    let lags = |path: &str| -> Result<bool> {
        let mut session = stale.session()?;
        fresh.create(path, b"")?;
        Ok(session.get(path)?.is_none())
    };
    ensure!(lags("/seen")?, "the server does not lag");

    // First the candidate before n1 goes, then n1's own. At home, it hears of the one before the other.
    let epoch = bed.epoch(0)?.context("the leader has no epoch")?;
    let both = [candidate(&fresh, "n0")?, candidate(&fresh, "n1")?].map(|path| path.context("no candidate"));
    let from = now_ns();
    for path in both {
        fresh.delete(&path?)?;
    }
    let demoted = bed.wait_demoted(0, epoch)?;
    bed.history.meddled(from, demoted);
    bed.wait_successor(0, epoch)?;
    ensure!(bed.rest()? == 2, "n2 is the first of those that are left");
    let terms = bed.history.terms();
    let wrong = terms.iter().find(|term| term.group == WRITES && term.node == "n1");
    ensure!(wrong.is_none(), "n1 was told that it leads, from an old list: {wrong:?}");
    bed.work()?;

    // Whoever of the two others came back first is behind n2; in the end n1 is alone, and leads.
    let epoch = bed.epoch(2)?.context("the leader has no epoch")?;
    for node in [0, 2] {
        bed.kill(node);
    }
    bed.cluster.wait_for("n1 to lead", PATIENCE, |cluster| (cluster.leader(WRITES) == Some(1)).then_some(()))?;
    ensure!(bed.epoch(1)? > Some(epoch));
    for node in [0, 2] {
        bed.cluster.node(node).start()?;
    }
    bed.rest()?;
    bed.work()?;
    ensure!(bed.cluster.leader(WRITES) == Some(1), "its server lags, and it is alive");
    ensure!(lags("/seen/late")?, "the server does not lag any more");
    let summary = bed.conclude()?;
    println!("a follower that lags by {LAG:?}: {summary:?}");
    Ok(())
}
