//! What is cleared away when a process dies, and when not. Sessions here would last for a long time: whoever follows earlier owes it
//! to a reaper.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::checker::now_ns;
use bellwether_tests::cluster::{Builder, Line};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

use crate::bed::{Bed, PATIENCE, TASKS, WRITES, busy};

/// Longer than anything here may take, and shorter than the patience of those who wait in vain.
const T: Duration = Duration::from_secs(40);
/// By now it was no session's end.
const AT_MOST: Duration = Duration::from_secs(20);

fn reaped(builder: Builder) -> Builder {
    busy(builder).session_timeout(T).node("reaper = true")
}

fn start(nodes: usize) -> Result<Bed> {
    let bed = Bed::prepare(nodes, reaped)?;
    bed.start()?;
    Ok(bed)
}

/// Kills the leader of [`WRITES`] and says how long it took until its successor's guest was told.
fn kill_leader(bed: &mut Bed, kill: impl FnOnce(&mut Bed, usize) -> Result<()>) -> Result<(usize, Duration)> {
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
    let at = now_ns();
    kill(bed, leader)?;
    let elected = bed.wait_successor(leader, epoch)?;
    let took = Duration::from_nanos(elected - at);
    ensure!(took < AT_MOST, "{took:?} is what the end of a session takes");
    Ok((leader, took))
}

fn dies(bed: &mut Bed, leader: usize) -> Result<()> {
    bed.kill(leader);
    Ok(())
}

fn arguments(pid: i32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// Waits until there is one reaper, other than `former`, that was told of the node's session.
fn reaper(bed: &Bed, node: usize, former: Option<Pid>) -> Result<Pid> {
    bed.cluster.wait_for("a reaper", PATIENCE, |_| match bed.cluster.node(node).reapers().ok()?.as_slice() {
        [one] if Some(*one) != former => Some(*one),
        _ => None,
    })
}

fn says_reaped(line: &Line) -> bool {
    line.json["fields"]["what"] == "reaped"
}

#[test]
fn a_killed_leader_is_followed_at_once() -> Result<()> {
    let mut bed = start(3)?;
    let mut took = Vec::new();
    for _ in 0..3 {
        let (leader, time) = kill_leader(&mut bed, dies)?;
        took.push(time);
        bed.cluster.node(leader).start()?;
    }
    let summary = bed.conclude()?;
    println!("kill -9 to the next on-elected with a reaper, T = {T:?}: {took:?}; {summary:?}");
    Ok(())
}

#[test]
fn a_killed_worker_leaves_the_registry_at_once() -> Result<()> {
    let mut bed = start(3)?;
    let leader = bed.rest()?;
    let epoch = bed.epoch(leader)?;
    let worker = (leader + 1) % 3;
    let at = now_ns();
    bed.kill(worker);
    // At rest, a leader knows those that are there and only them.
    ensure!(bed.rest()? == leader && bed.epoch(leader)? == epoch, "leadership has nothing to do with it");
    ensure!(Duration::from_nanos(now_ns() - at) < AT_MOST, "the end of a session took it away");
    bed.cluster.node(worker).start()?;
    bed.conclude().map(drop)
}

#[test]
fn a_paused_process_is_not_dead() -> Result<()> {
    let mut bed = start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?;
    let from = now_ns();
    bed.cluster.node(leader).pause()?;
    // The pause is the fault itself, and not a wait for something.
    std::thread::sleep(Duration::from_secs(2));
    bed.resume(leader, from)?;
    ensure!(bed.rest()? == leader && bed.epoch(leader)? == epoch, "a pause shorter than the lease changes nothing");
    let summary = bed.conclude()?;
    ensure!(summary.terms == 2 && summary.excused == 0, "{summary:?}");
    Ok(())
}

#[test]
fn a_node_that_leaves_takes_its_reaper_with_it() -> Result<()> {
    let bed = start(1)?;
    let pid = reaper(&bed, 0, None)?;
    ensure!(bed.cluster.node(0).stop()? == 0);
    bed.cluster.wait_until("the reaper to be gone", |_| test_kill_process(pid).is_err())?;
    ensure!(bed.cluster.node(0).logged(0, says_reaped).is_empty(), "there was nothing to do");
    Ok(())
}

#[test]
fn signals_to_all_processes_stop_the_node_and_not_its_reaper() -> Result<()> {
    let bed = start(1)?;
    let pid = reaper(&bed, 0, None)?;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        kill_process_group(pid, signal)?;
    }
    ensure!(test_kill_process(pid).is_ok() && reaper(&bed, 0, None)? == pid, "it is the same");
    ensure!(bed.cluster.node(0).stop()? == 0);
    Ok(())
}

#[test]
fn a_reaper_that_dies_is_replaced_and_told_everything() -> Result<()> {
    let mut bed = start(2)?;
    let leader = bed.rest()?;
    for _ in 0..2 {
        let former = reaper(&bed, leader, None)?;
        let mark = bed.cluster.node(leader).mark();
        kill_process(former, Signal::KILL)?;
        bed.cluster
            .node(leader)
            .wait_log(mark, "another reaper", |line| line.json["fields"]["what"] == "reaper-back")?;
        ensure!(reaper(&bed, leader, Some(former))? != former);
    }
    let (killed, _) = kill_leader(&mut bed, dies)?;
    bed.cluster.node(killed).start()?;
    bed.conclude().map(drop)
}

#[test]
fn a_node_that_comes_back_at_once_keeps_what_is_its_own() -> Result<()> {
    let mut bed = start(3)?;
    for _ in 0..3 {
        kill_leader(&mut bed, |bed, leader| {
            bed.kill(leader);
            // It has the GUID of the dead one, and the reaper is at work.
            bed.cluster.node(leader).start()
        })?;
    }
    // At rest with no ghosts: nothing of the present sessions was taken, and nothing of the former ones is left.
    bed.conclude().map(drop)
}

#[test]
fn a_reaper_goes_on_trying_while_there_is_no_server() -> Result<()> {
    let mut bed = start(2)?;
    kill_leader(&mut bed, |bed, leader| {
        bed.proxies[leader].refuse(true);
        let before = bed.proxies[leader].refused();
        bed.proxies[leader].reset();
        bed.kill(leader);
        bed.cluster.wait_until("the reaper to be turned away", |_| bed.proxies[leader].refused() > before + 2)?;
        bed.proxies[leader].heal();
        Ok(())
    })?;
    Ok(())
}

#[test]
fn the_password_is_in_no_argument_and_no_variable_and_the_reaper_has_it() -> Result<()> {
    const PASSWORD: &str = "correct-horse-battery";
    let auth = "[coordination.auth]\nscheme = \"digest\"\nuser = \"bw\"\npassword_file = \"{folder}/password\"\n";
    let mut bed = Bed::prepare(2, |builder| reaped(builder).coordination(auth))?;
    for node in bed.cluster.nodes() {
        std::fs::write(node.folder().join("password"), PASSWORD)?;
    }
    bed.start()?;
    let leader = bed.rest()?;
    let pid = reaper(&bed, leader, None)?.as_raw_nonzero().get();
    let shown = arguments(pid).concat() + &String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ"))?);
    ensure!(!shown.contains(PASSWORD), "the password can be seen by others");
    // What it deletes is what this user alone may delete.
    let (killed, _) = kill_leader(&mut bed, dies)?;
    bed.cluster.wait_until("the reaper's word", |cluster| !cluster.node(killed).logged(0, says_reaped).is_empty())?;
    let everything: String =
        bed.cluster.nodes().iter().flat_map(|node| node.log()).map(|line| line.text.clone()).collect();
    ensure!(!everything.contains(PASSWORD), "the password is in a log");
    Ok(())
}

#[test]
fn groups_are_followed_one_by_one() -> Result<()> {
    let mut bed = start(3)?;
    let both = |bed: &Bed| [WRITES, TASKS].map(|group| bed.cluster.leader(group));
    let leader = bed.rest()?;
    if both(&bed)[1] != Some(leader) {
        let other = both(&bed)[1].context("nobody leads")?;
        bed.cluster.node(other).cli(&["resign", TASKS])?.ok()?;
        bed.rest()?;
    }
    let (killed, _) = kill_leader(&mut bed, dies)?;
    bed.rest()?;
    ensure!(
        both(&bed).iter().all(|leader| leader.is_some_and(|leader| leader != killed)),
        "the dead one leads nothing"
    );
    bed.cluster.node(killed).start()?;
    bed.conclude().map(drop)
}
