//! Nodes and servers that die or stand still.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bellwether_tests::checker::{Kind, now_ns};
use bellwether_tests::guests::guest;
use bellwether_tests::settings::setting;

use crate::bed::{Bed, T, TASKS, WRITES};

/// The wait that is the fault itself, and not one for something to happen.
fn stand_still(how_long: Duration) {
    std::thread::sleep(how_long);
}

#[test]
fn a_killed_leader_is_followed_by_one_other() -> Result<()> {
    let trials = setting("BELLWETHER_FAILOVER_TRIALS", 3_usize)?;
    let mut bed = Bed::start(3)?;
    let mut multiples = Vec::new();
    for _ in 0..trials {
        let leader = bed.rest()?;
        bed.work()?;
        let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
        let at = now_ns();
        bed.kill(leader);
        let elected = bed.wait_successor(leader, epoch)?;
        multiples.push((elected - at) as f64 / T.as_nanos() as f64);
        bed.cluster.node(leader).start()?;
    }
    let summary = bed.conclude()?;
    multiples.sort_by(f64::total_cmp);
    println!(
        "kill -9 to the next on-elected, T = {T:?}, {trials} trials: median {:.2} T, all {multiples:.2?}; {summary:?}",
        multiples[multiples.len() / 2]
    );
    Ok(())
}

#[test]
fn a_leader_that_was_stopped_for_two_timeouts_does_nothing_stale() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
    let from = now_ns();
    bed.cluster.node(leader).pause()?;
    stand_still(T * 2);
    let successor = bed.wait_successor(leader, epoch)?;
    bed.work()?;
    bed.resume(leader, from)?;
    bed.wait_demoted(leader, epoch)?;
    let summary = bed.conclude()?;
    let id = bed.id(leader);
    let told = bed.history.effects().iter().any(|effect| {
        let ended = matches!(effect.kind, Kind::DemotedLeft | Kind::Stopped);
        ended && effect.node == id && effect.group == WRITES && effect.epoch == epoch && effect.at >= successor
    });
    ensure!(told, "the guest was not told on waking that it does not lead any more");
    println!(
        "SIGSTOP for 2 T: the successor was told {:.2} T after the stop; {summary:?}",
        (successor - from) as f64 / T.as_nanos() as f64
    );
    Ok(())
}

#[test]
fn a_server_that_was_away_for_longer_than_a_session_finds_the_same_nodes_and_no_ghosts() -> Result<()> {
    let mut bed = Bed::start(3)?;
    for _ in 0..2 {
        let leader = bed.rest()?;
        bed.work()?;
        let before = bed.epoch(leader)?.context("the leader has no epoch")?;
        bed.zookeeper.kill();
        let killed = Instant::now();
        bed.wait_demoted(leader, before)?;
        // Sessions that nobody heard of for longer get a fresh timeout when the server is back.
        stand_still((T * 3 / 2).saturating_sub(killed.elapsed()));
        bed.zookeeper.restart()?;
        let leader = bed.rest()?;
        ensure!(bed.epoch(leader)? > Some(before), "the epoch has not grown");
    }
    let summary = bed.conclude()?;
    ensure!(summary.excused == 0);
    println!("the server away for 1.5 T, twice: {summary:?}");
    Ok(())
}

#[test]
fn a_guest_that_takes_its_time_over_on_demoted_is_waited_for() -> Result<()> {
    let slow = "[group.config]\non-demoted = \"sleep 400\"";
    let mut bed = Bed::prepare(2, |builder| {
        let builder = builder.env("BELLWETHER_LOG", bellwether_tests::checker::LOG);
        builder.group(WRITES, guest("probe"), slow).group(TASKS, guest("probe"), "")
    })?;
    bed.cluster.nodes().iter().try_for_each(|node| node.start())?;
    let leader = bed.rest()?;
    let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
    bed.cluster.node(leader).cli(&["resign", WRITES])?.ok()?;
    let successor = bed.wait_successor(leader, epoch)?;
    let left = bed.history.terms().into_iter().find(|term| term.epoch == epoch).context("no term")?.until;
    ensure!(left <= successor);
    bed.check()?;
    let spent =
        bed.history.effects().iter().find(|effect| effect.epoch == epoch && effect.kind == Kind::DemotedEntered);
    ensure!(left - spent.context("on-demoted was not called")?.at >= 400_000_000, "the guest was cut off");
    Ok(())
}

#[test]
fn a_leader_whose_guest_refuses_sits_out_and_lets_another_lead() -> Result<()> {
    let toml = "[group.config]\non-elected = \"read /own/may-lead\"\n[[group.grants.folders]]\nhost = \"{folder}\"\nguest = \"/own\"";
    let bed = Bed::prepare(3, |builder| builder.group(WRITES, guest("probe"), toml))?;
    std::fs::write(bed.cluster.node(2).folder().join("may-lead"), "")?;
    bed.cluster.nodes().iter().try_for_each(|node| node.start())?;
    bed.cluster.wait_until("the willing node to lead", |cluster| cluster.leader(WRITES) == Some(2))?;
    for node in bed.cluster.nodes().iter().take(2) {
        let tries = node.logged(0, |line| line.tells(WRITES, "elected")).len();
        ensure!(tries <= 1, "{} was elected {tries} times, and refused each time", node.id());
    }
    Ok(())
}

#[test]
fn a_dead_workers_tasks_fail_by_its_name_and_the_others_are_done() -> Result<()> {
    let toml = "[group.tick]\nevery = \"50ms\"\n[group.config]\non-tick = \"tell scatter 3 5000\"";
    let bed = Bed::prepare(3, |builder| builder.group(WRITES, guest("probe"), toml))?;
    bed.cluster.nodes().iter().try_for_each(|node| node.start())?;
    let leader = bellwether_tests::checker::at_rest(&bed.cluster, WRITES)?;
    let [dead, alive]: [usize; 2] =
        (0..3).filter(|index| *index != leader).collect::<Vec<_>>().try_into().ok().context("three nodes")?;
    bed.cluster.node(dead).kill();
    let mark = bed.cluster.node(leader).mark();
    let line = bed.cluster.node(leader).wait_log(mark, "a task that did not reach the dead worker", |line| {
        line.guest("tell").is_some_and(|said| said.contains("Unreachable"))
    })?;
    let said = line.guest("tell").unwrap_or_default();
    ensure!(said.contains(&format!("\\\"{alive}\\\"")) && said.matches("Unreachable").count() == 1, "{said}");
    // Its member is still there: it goes with its session.
    let members = bed.znodes.below(&format!("/bellwether/{WRITES}/service_registry"))?;
    ensure!(members.values().any(|member| member.json()["id"] == bed.id(dead).as_str()), "{members:?}");
    Ok(())
}

#[test]
fn many_groups_share_one_session_and_one_connection() -> Result<()> {
    const GROUPS: usize = 30;
    let bed = Bed::prepare(3, |builder| {
        (0..GROUPS).fold(builder, |builder, n| builder.group(&format!("g{n}"), guest("minimal"), ""))
    })?;
    bed.cluster.nodes().iter().try_for_each(|node| node.start())?;
    bed.cluster.wait_ready()?;
    for (index, proxy) in bed.proxies.iter().enumerate() {
        ensure!(proxy.accepted() == 1, "n{index} has made {} connections", proxy.accepted());
    }
    let znodes = bed.znodes.children("/bellwether/nodes")?.unwrap_or_default();
    ensure!(znodes.len() == 3, "{znodes:?}");
    Ok(())
}
