//! Whether leader and successor overlap, measured again and again in the same way: when the leader's server is cut off, when its
//! link is, when its process stands still, and when it is killed; and faults on the level of packets, in a network of its own.
//!
//! A server that is cut off from the other servers and not from its clients: it goes on answering reads and pings for seconds after
//! the ensemble has let its clients' sessions expire. A leader that took these answers for its lease would overlap with its
//! successor, by about 4.7 s with these settings.

#![allow(clippy::print_stdout, reason = "figures are printed and not asserted")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::busy::{Busy, TASKS, WRITES, busy};
use bellwether_tests::checker::{History, Kind, LOG, Summary, at_rest, now_ns};
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::guest;
use bellwether_tests::net::Net;
use bellwether_tests::overlap::{Trial, Trials, in_lanes};
use bellwether_tests::proxy::{Flow, Link, Proxy};
use bellwether_tests::settings::setting;
use bellwether_tests::zookeeper::{Ensemble, Options, Server};

const T: Duration = Duration::from_secs(6);
const TICK: Duration = Duration::from_secs(2);

fn options() -> Options {
    Options {
        tick: TICK,
        min_session_timeout: TICK * 2,
        max_session_timeout: TICK * 20,
        extra: vec!["syncLimit=5".to_owned(), "initLimit=10".to_owned()],
        ..Options::default()
    }
}

/// Two busy nodes, one of several such pairs on one ensemble. The first leads.
fn pair(lane: usize, addresses: [String; 2]) -> Result<Busy> {
    let builder = Cluster::builder("").nodes(2).session_timeout(T).tick_time(TICK).root(&format!("/lane{lane}"));
    let bed = Busy::new(busy(builder.connect(move |index| addresses[index].clone())).prepare()?);
    bed.cluster.node(0).start()?;
    for group in [WRITES, TASKS] {
        bed.cluster.wait_until("the first node to lead", |cluster| cluster.leader(group) == Some(0))?;
    }
    bed.cluster.node(1).start()?;
    bed.rest()?;
    Ok(bed)
}

/// One line for a person, and the judgement.
fn conclude(what: &str, trials: usize, overlaps: &Trials, summaries: &[Summary]) -> Result<()> {
    let count = |of: fn(&Summary) -> usize| summaries.iter().map(of).sum::<usize>();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{what}, T = {T:?}, tickTime = {TICK:?}: {overlaps}; {} terms, {} writes, {} tasks accepted, none of them stale; load {}",
        count(|one| one.terms),
        count(|one| one.writes),
        count(|one| one.tasks),
        load.split(' ').next().unwrap_or_default()
    );
    overlaps.none(trials)
}

#[test]
fn the_leader_at_an_isolated_follower_is_demoted_before_its_successor_is_told() -> Result<()> {
    let trials = setting("BELLWETHER_ISOLATION_TRIALS", 2_usize)?;
    let net = Net::start(3)?;
    let ensemble = Ensemble::start_on(&net, &options())?;
    let head = ensemble.leader().context("the ensemble has no leader")?;
    // One node of each pair at each follower, so that leadership moves from one to the other, in all pairs at once.
    let followers: Vec<usize> = (0..3).filter(|server| *server != head).collect();
    let address = |follower: usize| ensemble.servers()[followers[follower]].address().to_string();
    let lanes = setting("BELLWETHER_OVERLAP_LANES", 2_usize)?.clamp(1, trials.max(1));
    let mut beds = (0..lanes).map(|lane| pair(lane, [address(0), address(1)])).collect::<Result<Vec<_>>>()?;
    let mut overlaps = Trials::default();
    for round in 0..trials.div_ceil(lanes) {
        let leader = round % 2;
        let mut epochs = Vec::new();
        for bed in &mut beds {
            ensure!(bed.rest()? == leader, "leadership has moved by itself");
            bed.work()?;
            epochs.push(bed.epoch(leader)?.context("the leader has no epoch")?);
        }
        let isolated = followers[leader];
        net.isolate(isolated)?;
        for (bed, epoch) in beds.iter_mut().zip(epochs) {
            let told = bed.wait_successor(leader, epoch)?;
            // This is the trap: the server has not noticed anything, and serves the former leader.
            let role = ensemble.servers()[isolated].role();
            ensure!(role.as_deref() == Some("follower"), "the trap is not set: the isolated server is {role:?}");
            overlaps.extend([Trial { ended: bed.wait_demoted(leader, epoch)?, told }]);
        }
        net.heal()?;
        beds[0].cluster.wait_until("the isolated server to follow again", |_| {
            ensemble.servers()[isolated].role().as_deref() == Some("follower")
        })?;
        ensure!(ensemble.leader() == Some(head), "the ensemble has another leader");
    }
    let summaries = beds.iter_mut().map(Busy::conclude).collect::<Result<Vec<_>>>()?;
    ensure!(summaries.iter().all(|summary| summary.excused == 0));
    conclude("isolated follower", trials, &overlaps, &summaries)
}

/// Trials on one ensemble, several at a time: `trial` does something to the leader (and undoes it), and gives what came of it.
/// Each pair of nodes has proxies of its own before a server.
fn trials(
    what: &str,
    trials: usize,
    trial: impl Fn(&mut Busy, &[Proxy], usize, u64) -> Result<Trial> + Sync,
) -> Result<()> {
    let ensemble = Ensemble::start_with(&options())?;
    let server = ensemble.servers()[0].address();
    let lanes = in_lanes(trials, |lane, count| {
        let proxies = [Proxy::start(server)?, Proxy::start(server)?];
        let mut bed = pair(lane, [&proxies[0], &proxies[1]].map(|proxy| proxy.address().to_string()))?;
        let mut overlaps = Vec::new();
        for _ in 0..count {
            let leader = bed.rest()?;
            bed.work()?;
            let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
            overlaps.push(trial(&mut bed, &proxies, leader, epoch)?);
        }
        Ok((overlaps, bed.conclude()?))
    })?;
    let mut overlaps = Trials::default();
    let mut summaries = Vec::new();
    for (lane, summary) in lanes {
        overlaps.extend(lane);
        summaries.push(summary);
    }
    conclude(what, trials, &overlaps, &summaries)
}

#[test]
fn a_leader_whose_link_is_swallowed_is_demoted_before_its_successor_is_told() -> Result<()> {
    trials("link swallowed both ways", setting("BELLWETHER_CUT_TRIALS", 2)?, |bed, proxies, leader, epoch| {
        proxies[leader].set(Link { up: Flow::Swallow, down: Flow::Swallow });
        let told = bed.wait_successor(leader, epoch)?;
        let ended = bed.wait_demoted(leader, epoch)?;
        proxies[leader].heal();
        Ok(Trial { ended, told })
    })
}

/// The writes of one term, or of all later ones, in [`WRITES`]: the version that each left, and when it was acknowledged.
fn versions(history: &History, epoch: u64, later: bool) -> Vec<(u64, u64)> {
    let effects = history.effects().iter().filter(|effect| effect.group == WRITES);
    let effects = effects.filter(|effect| if later { effect.epoch > epoch } else { effect.epoch == epoch });
    let version = |kind: &Kind| if let Kind::Write(_, version) = kind { *version } else { None };
    effects.filter_map(|effect| Some((version(&effect.kind)?, effect.at))).collect()
}

/// What a guest believes that stands still, or is no more, is nobody's business; what it does is. Its term ended at `from`, unless
/// one of its writes took effect after the first one of its successor. The order of the versions says so, for an acknowledgement
/// may lie unread in the socket until the process wakes. (Tasks, too, are judged by `check`.)
fn after(bed: &mut Busy, epoch: u64, from: u64, told: u64) -> Result<Trial> {
    // By then, whatever the former leader had under way has arrived.
    bed.rest()?;
    bed.work()?;
    bed.check()?;
    let later = versions(&bed.history, epoch, true).into_iter();
    let first = later.map(|(version, _)| version).min().context("the successor has written nothing")?;
    let stale = versions(&bed.history, epoch, false).into_iter().filter(|(version, _)| *version > first);
    Ok(Trial { ended: stale.map(|(_, at)| at).max().unwrap_or(from), told })
}

#[test]
fn a_leader_that_stands_still_for_two_timeouts_has_no_effect_after_its_successor_was_told() -> Result<()> {
    trials("SIGSTOP for 2 T", setting("BELLWETHER_STOP_TRIALS", 2)?, |bed, _, leader, epoch| {
        let from = now_ns();
        bed.cluster.node(leader).pause()?;
        // The wait that is the fault itself.
        std::thread::sleep(T * 2);
        let told = bed.wait_successor(leader, epoch)?;
        // There must be something for the former leader's writes to be stale against.
        bed.wait_history("a write of the successor", |history| !versions(history, epoch, true).is_empty())?;
        bed.resume(leader, from)?;
        bed.wait_demoted(leader, epoch)?;
        after(bed, epoch, from, told)
    })
}

#[test]
fn a_killed_leader_has_no_effect_after_its_successor_was_told() -> Result<()> {
    trials("kill -9", setting("BELLWETHER_KILL_TRIALS", 2)?, |bed, _, leader, epoch| {
        bed.kill(leader);
        let from = now_ns();
        let told = bed.wait_successor(leader, epoch)?;
        bed.wait_history("a write of the successor", |history| !versions(history, epoch, true).is_empty())?;
        bed.cluster.node(leader).start()?;
        after(bed, epoch, from, told)
    })
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
        move |history: &History| {
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
