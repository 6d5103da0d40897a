//! The link between a node and its server: cut both ways or one way, broken and made again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bellwether_tests::checker::{Kind, Summary};
use bellwether_tests::cluster::{Builder, Cluster, Node};
use bellwether_tests::guests::guest;
use bellwether_tests::proxy::{Flow, Link, Proxy};
use bellwether_tests::zookeeper::Server;
use serde_json::Value;

use crate::bed::{Bed, PATIENCE, T, WRITES, is_state_write};

/// The leader's link becomes `link` until somebody else leads.
fn cut(link: Link) -> Result<Summary> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
    bed.proxies[leader].set(link);
    // The registry changes: where events still arrive, one does.
    bed.znodes.create(&format!("/bellwether/{WRITES}/service_registry/foreign"), b"")?;
    bed.wait_demoted(leader, epoch)?;
    bed.wait_successor(leader, epoch)?;
    bed.proxies[leader].heal();
    let summary = bed.conclude()?;
    ensure!(summary.excused == 0, "nothing was paused, nobody meddled");
    println!("{link:?}: {summary:?}");
    Ok(summary)
}

#[test]
fn a_leader_that_is_cut_off_is_demoted_before_its_successor_is_told() -> Result<()> {
    cut(Link { up: Flow::Stall, down: Flow::Stall }).map(drop)
}

#[test]
fn a_leader_whose_bytes_are_lost_is_demoted_before_its_successor_is_told() -> Result<()> {
    cut(Link { up: Flow::Swallow, down: Flow::Swallow }).map(drop)
}

#[test]
fn a_leader_that_hears_and_is_not_heard_is_demoted_before_its_successor_is_told() -> Result<()> {
    cut(Link { up: Flow::Stall, down: Flow::Pass }).map(drop)
}

#[test]
fn a_leader_that_is_heard_and_does_not_hear_is_demoted_before_its_successor_is_told() -> Result<()> {
    cut(Link { up: Flow::Pass, down: Flow::Stall }).map(drop)
}

#[test]
fn a_reconnect_within_the_lease_changes_nothing() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let (epoch, session) = (bed.epoch(leader)?, bed.session(leader)?["id"].clone());
    let connections = bed.proxies[leader].accepted();
    for round in 0..4 {
        let accepted = bed.proxies[leader].accepted();
        if round % 2 == 0 {
            bed.proxies[leader].reset()
        } else {
            bed.proxies[leader].close()
        }
        bed.cluster.wait_until("the node to connect again", |cluster| {
            bed.proxies[leader].accepted() > accepted
                && cluster.node(leader).status().is_ok_and(|status| status["session"]["state"] == "connected")
        })?;
        bed.work()?;
    }
    // Late bytes, within what the client takes for a disconnect.
    bed.proxies[leader].cut();
    std::thread::sleep(T / 6);
    bed.proxies[leader].heal();
    bed.work()?;
    ensure!(bed.proxies[leader].accepted() >= connections + 4);
    ensure!((bed.epoch(leader)?, bed.session(leader)?["id"].clone()) == (epoch, session), "something has changed");
    let summary = bed.conclude()?;
    let elections = bed.history.effects().iter().filter(|effect| effect.kind == Kind::ElectedEntered).count();
    ensure!(elections == 2, "one for each group, and no more: {elections}");
    println!("four reconnects and a short cut: {summary:?}");
    Ok(())
}

#[test]
fn a_slow_link_costs_no_leadership() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    let epoch = bed.epoch(leader)?;
    let slow = Flow::Delay(Duration::from_millis(100));
    bed.proxies[leader].set(Link { up: slow, down: slow });
    for _ in 0..3 {
        bed.work()?;
    }
    ensure!(bed.epoch(leader)? == epoch);
    bed.proxies[leader].heal();
    bed.conclude().map(drop)
}

/// The session, and the epoch of each group; none while it is not connected, or does not lead them all.
fn terms(node: &Node) -> Option<(Value, Vec<Value>)> {
    let status = node.status().ok().filter(|status| status["session"]["state"] == "connected")?;
    let groups = status["groups"].as_array()?;
    let leads = groups.iter().all(|group| group["role"] == "leader");
    leads.then(|| (status["session"]["id"].clone(), groups.iter().map(|group| group["epoch"].clone()).collect()))
}

/// Trap 32: the client library cannot connect again to a session that watches paths of more than 128 KiB.
#[test]
fn a_reset_with_more_watches_than_one_session_can_hold_changes_nothing() -> Result<()> {
    const GROUPS: usize = 150;
    /// A leader watches its own znode, its members and what the group shall run.
    const WATCHES: usize = 3 * GROUPS;
    let zookeeper = Server::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    // As long as a manifest lets them be.
    let (top, name) = ("r".repeat(199), |n: usize| format!("g{n:0>63}"));
    let (root, server) = (format!("/{top}"), format!("{}/{top}", proxy.address()));
    let builder = Cluster::builder(server).root(&root).ids(|_| "n".repeat(64)).session_timeout(T);
    let add = |builder: Builder, n| builder.group(&name(n), guest("minimal"), "");
    let cluster = (0..GROUPS).fold(builder, add).start()?;
    let registry = format!("{root}{root}/{}/service_registry", name(0));
    ensure!(WATCHES * registry.len() > 128 * 1024, "one session could hold them");
    let node = cluster.node(0);
    let watched = || {
        let watches: usize = zookeeper.mntr().ok()?.get("zk_watch_count")?.parse().ok()?;
        // Some of those on members last, and servers before 3.8.1 count those twice: once as on a znode, which are told one by one.
        let znodes = zookeeper.four_letter("wchp").ok()?;
        let lasting = znodes.lines().filter(|line| line.ends_with("/service_registry")).count();
        (watches == WATCHES || watches == WATCHES + lasting).then_some(())
    };
    let settled = || cluster.wait_for("all groups to be led and watched", PATIENCE, |_| terms(node).zip(watched()));
    let (before, _) = settled()?;
    ensure!(before.1.len() == GROUPS && before.1.iter().all(Value::is_u64), "{before:?}");
    for _ in 0..3 {
        let (accepted, mark) = (proxy.accepted(), node.mark());
        proxy.reset();
        node.wait_log(mark, "the node to connect again", |line| line.what() == "reconnected")?;
        let (after, _) = settled()?;
        ensure!(after == before, "{before:?} has become {after:?}");
        ensure!(proxy.accepted() > accepted + 1, "one session holds all watches");
    }
    ensure!(node.stop()? == 0);
    Ok(())
}

/// A connection that breaks as soon as it is made, several times: each is told of, some of them twice, while writes, tasks and
/// heartbeats are under way.
#[test]
fn a_burst_of_resets_amid_requests_changes_nothing() -> Result<()> {
    const RESETS: usize = 4;
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let (epoch, session) = (bed.epoch(leader)?, bed.session(leader)?["id"].clone());
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let proxy = &bed.proxies[leader];
        // A request that the server has not seen when the first connection goes.
        let held = proxy.hold(is_state_write);
        held.seen(PATIENCE)?;
        let start = Instant::now();
        for _ in 0..RESETS {
            let accepted = proxy.accepted();
            proxy.reset();
            // By this thread's own eyes and at once: the client's next attempt is reset before much has passed through it.
            bed.cluster.wait_for("another connection", PATIENCE, |_| (proxy.accepted() > accepted).then_some(()))?;
        }
        held.release();
        fastest = fastest.min(start.elapsed());
        bed.cluster.wait_until("the node to be connected", |cluster| {
            cluster.node(leader).status().is_ok_and(|status| status["session"]["state"] == "connected")
        })?;
        bed.work()?;
    }
    ensure!((bed.epoch(leader)?, bed.session(leader)?["id"].clone()) == (epoch, session), "something has changed");
    let summary = bed.conclude()?;
    ensure!(summary.terms == 2 && summary.excused == 0, "one term in each group, and no more: {summary:?}");
    println!("three bursts of {RESETS} resets, the fastest within {fastest:?}: {summary:?}");
    Ok(())
}
