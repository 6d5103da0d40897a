//! Faults on the level of packets, in a network of its own.
//!
//! A server that is cut off from the other servers and not from its clients: it goes on answering reads and pings for seconds after
//! the ensemble has let its clients' sessions expire. A leader that took these answers for its lease would overlap with its
//! successor, by about 4.7 s with these settings.

#![allow(clippy::print_stdout, reason = "figures are printed and not asserted")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::busy::{Busy, WRITES, busy};
use bellwether_tests::checker::{Kind, LOG, at_rest, now_ns};
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::guest;
use bellwether_tests::net::Net;
use bellwether_tests::zookeeper::{Ensemble, Options, Server};

const T: Duration = Duration::from_secs(6);
const TICK: Duration = Duration::from_secs(2);

#[test]
fn the_leader_at_an_isolated_follower_is_demoted_before_its_successor_is_told() -> Result<()> {
    let trials: usize = match std::env::var("BELLWETHER_ISOLATION_TRIALS") {
        Ok(text) => text.parse().context("BELLWETHER_ISOLATION_TRIALS is not a number")?,
        Err(_) => 2,
    };
    let net = Net::start(3)?;
    let options = Options {
        tick: TICK,
        min_session_timeout: TICK * 2,
        max_session_timeout: TICK * 20,
        extra: vec!["syncLimit=5".to_owned(), "initLimit=10".to_owned()],
    };
    let ensemble = Ensemble::start_on(&net, &options)?;
    let head = ensemble.leader().context("the ensemble has no leader")?;
    // One node at each follower, so that leadership moves from one to the other.
    let followers: Vec<usize> = (0..3).filter(|server| *server != head).collect();
    let addresses: Vec<String> =
        followers.iter().map(|server| ensemble.servers()[*server].address().to_string()).collect();
    let builder = Cluster::builder("").nodes(2).session_timeout(T).tick_time(TICK);
    let mut bed = Busy::new(busy(builder.connect(move |index| addresses[index].clone())).prepare()?);
    bed.start()?;
    let mut gaps = Vec::new();
    for trial in 0..trials {
        let leader = bed.rest()?;
        bed.work()?;
        let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
        let isolated = followers[leader];
        net.isolate(isolated)?;
        let elected = bed.wait_successor(leader, epoch)?;
        // This is the trap: the server has not noticed anything, and serves the former leader.
        let role = ensemble.servers()[isolated].role();
        ensure!(role.as_deref() == Some("follower"), "the trap is not set: the isolated server is {role:?}");
        let demoted = bed.wait_demoted(leader, epoch)?;
        net.heal()?;
        let gap = elected as f64 / 1e9 - demoted as f64 / 1e9;
        println!("trial {trial}: demoted {gap:.2} s before the successor was told");
        gaps.push(gap);
        bed.cluster.wait_until("the isolated server to follow again", |_| {
            ensemble.servers()[isolated].role().as_deref() == Some("follower")
        })?;
        ensure!(ensemble.leader() == Some(head), "the ensemble has another leader");
    }
    let summary = bed.conclude()?;
    let overlaps = gaps.iter().filter(|gap| **gap < 0.0).count();
    gaps.sort_by(f64::total_cmp);
    println!(
        "isolated follower, T = {T:?}, tickTime = {TICK:?}: {overlaps} overlaps in {trials} trials; gaps {gaps:.2?}; {summary:?}"
    );
    ensure!(overlaps == 0 && summary.excused == 0);
    Ok(())
}

/// The kernel sends a task again and again while the leader's process stands still. It arrives when another has led for long.
#[test]
fn a_task_that_arrives_after_the_next_leader_was_elected_is_refused_by_the_worker() -> Result<()> {
    const T: Duration = Duration::from_secs(3);
    // Nodes 1, 2 and 3 are at home on the hosts 0, 1 and 2, ZooKeeper on the last.
    let net = Net::start(4)?;
    let zookeeper = Server::start_on(&net, 3, &Options::default())?;
    let subnet = net.address(0).to_string().trim_end_matches(|digit| digit != '.').to_owned();
    let hosts: Vec<_> = (0..3).map(|host| net.enter(host)).collect();
    let every = "[group.tick]\nevery = \"50ms\"\n[group.config]\non-tick = \"send 2 5000 echo\"";
    let cluster = Cluster::builder(zookeeper.address())
        .nodes(3)
        .ids(|index| format!("{}", index + 1))
        .node(&format!("advertise = \"{subnet}{{id}}:0\"\n"))
        .wrapper(move |index| hosts[index].clone())
        .session_timeout(T)
        .group(WRITES, guest("probe"), every)
        .env("BELLWETHER_LOG", LOG)
        .prepare()?;
    let (leader, worker) = (0, 1);
    let mut bed = Busy::new(cluster);
    bed.cluster.node(leader).start()?;
    bed.cluster.wait_until("1 to lead", |cluster| cluster.leader(WRITES) == Some(leader))?;
    // In this order, so that 3 follows 1: a worker is to be left.
    bed.cluster.node(2).start()?;
    at_rest(&bed.cluster, WRITES)?;
    bed.cluster.node(worker).start()?;
    at_rest(&bed.cluster, WRITES)?;
    let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
    let accepted = |node: &str, after: u64| {
        let node = node.to_owned();
        move |history: &bellwether_tests::checker::History| {
            let mut effects = history.effects().iter();
            effects.any(|effect| effect.node == node && effect.kind == Kind::Task && effect.epoch > after)
        }
    };
    bed.wait_history("a task of the first leader", accepted("2", 0))?;
    net.drop_packets(net.address(leader), worker)?;
    bed.cluster.wait_until("a task on its way", |_| net.unacknowledged(leader, worker).is_ok_and(|bytes| bytes > 0))?;
    let from = now_ns();
    bed.cluster.node(leader).pause()?;
    bed.wait_history("a task of the next leader", accepted("2", epoch))?;
    let refused = |cluster: &Cluster| cluster.node(worker).group(WRITES).ok()?["tasks"]["refused"].as_u64();
    ensure!(refused(&bed.cluster) == Some(0));
    net.heal()?;
    bed.cluster.wait_until("the late task to be refused", |cluster| refused(cluster) > Some(0))?;
    bed.resume(leader, from)?;
    bed.wait_demoted(leader, epoch)?;
    at_rest(&bed.cluster, WRITES)?;
    let summary = bed.check()?;
    println!("late tasks refused by the worker: {:?}; {summary:?}", refused(&bed.cluster));
    Ok(())
}
