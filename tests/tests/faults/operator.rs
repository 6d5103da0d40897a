//! What operators and other programs do to the znodes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bellwether_tests::checker::{History, now_ns};
use bellwether_tests::guests::guest;
use bellwether_tests::proxy::op;
use bellwether_tests::znodes::Znodes;

use crate::bed::{Bed, PATIENCE, T, TASKS, WRITES, busy};

/// What an operator takes away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meddling {
    /// Leadership.
    Election,
    /// That, and the group's state.
    State,
}

/// Meddles with the znodes of a group at rest, and sees it come to rest again with a later epoch.
fn meddle(with: Meddling, what: impl FnOnce(&Bed, usize) -> Result<()>) -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
    let from = now_ns();
    what(&bed, leader)?;
    let last = transaction(&bed)?;
    bed.wait_demoted(leader, epoch)?;
    let leader = bed.rest()?;
    let present = bed.epoch(leader)?.context("the leader has no epoch")?;
    // Whoever claimed before the last deletion may have lost its znode to it, and the news takes a round trip and a callback to
    // arrive at each of them: until then an overlap is the operator's.
    let lost = move |history: &History| {
        let terms = history.terms().into_iter().filter(|term| term.group == WRITES);
        terms.filter(|term| term.epoch < last.min(present)).map(|term| term.until).max()
    };
    bed.wait_history("all former leaders to be told", |history| lost(history) < Some(u64::MAX))?;
    let told = lost(&bed.history).context("there was no former leader")?;
    bed.history.meddled(from, told);
    if with == Meddling::State {
        // The present leader has lost its state as well. It writes one thing after the other: of several writes that come now, the last
        // was asked for after the deletion.
        bed.work()?;
        bed.history.state_deleted(from, now_ns());
    }
    let summary = bed.conclude()?;
    let leader = bed.rest()?;
    ensure!(bed.epoch(leader)? > Some(epoch), "epochs grow, whatever is deleted");
    println!("{summary:?}");
    Ok(())
}

/// The id of a transaction that is later than all that has been done so far.
fn transaction(bed: &Bed) -> Result<u64> {
    const MARK: &str = "/mark";
    bed.znodes.create(MARK, b"")?;
    let mark = bed.znodes.get(MARK)?.context("the mark is gone")?;
    Ok(mark.mzxid.unsigned_abs())
}

#[test]
fn the_leaders_znode_is_deleted() -> Result<()> {
    meddle(Meddling::Election, |bed, leader| bed.znodes.delete(&bed.candidate(leader)?))
}

#[test]
fn the_election_is_deleted_and_its_counter_begins_anew() -> Result<()> {
    meddle(Meddling::Election, |bed, _| bed.delete_all(&format!("/bellwether/{WRITES}/election")))
}

#[test]
fn the_whole_group_is_deleted() -> Result<()> {
    meddle(Meddling::State, |bed, _| bed.delete_all(&format!("/bellwether/{WRITES}")))
}

#[test]
fn the_state_is_deleted_under_a_leader_that_leads_on() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?;
    let from = now_ns();
    bed.delete_all(&format!("/bellwether/{WRITES}/state"))?;
    // Writes are made one after the other: of several that come now, the last was asked for after the deletion.
    bed.work()?;
    bed.history.state_deleted(from, now_ns());
    bed.conclude()?;
    ensure!(bed.epoch(leader)? == epoch, "leadership has nothing to do with it");
    Ok(())
}

#[test]
fn a_followers_znode_is_deleted() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    let epoch = bed.epoch(leader)?;
    let follower = (leader + 1) % 3;
    let before = bed.candidate(follower)?;
    bed.znodes.delete(&before)?;
    bed.cluster.wait_until("the follower to join again", |_| {
        bed.candidate(follower).is_ok_and(|candidate| candidate != before)
    })?;
    let summary = bed.conclude()?;
    ensure!(bed.epoch(leader)? == epoch && summary.excused == 0, "the leader has nothing to do with it");
    Ok(())
}

#[test]
fn znodes_of_others_are_left_alone_and_outrank_nobody() -> Result<()> {
    let mut bed = Bed::prepare(3, busy)?;
    let guid = "0123456789abcdef0123456789abcdef";
    for path in ["/bellwether".to_owned(), format!("/bellwether/{WRITES}")] {
        bed.znodes.create(&path, b"")?;
    }
    let foreign = [
        ("election", "lock-0000000000".to_owned()),
        ("election", "_c_0d7e-latch-0000000000".to_owned()),
        ("election", format!("x-{guid}-n_0")),
        ("election", format!("x-{guid}-n_+000000000")),
        ("election", format!("-{guid}-n_0000000000")),
        // A candidate from after the counter's end: whoever orders by text takes it for the first.
        ("election", format!("a-{guid}-n_-2147483648")),
        // One made by hand, that no session holds.
        ("election", format!("y-{guid}-n_0000000000")),
        ("service_registry", "somebody".to_owned()),
        ("service_registry", "m_x".to_owned()),
    ];
    for part in ["election", "service_registry"] {
        bed.znodes.create(&format!("/bellwether/{WRITES}/{part}"), b"")?;
    }
    for (part, name) in &foreign {
        bed.znodes.create(&format!("/bellwether/{WRITES}/{part}/{name}"), b"not ours")?;
    }
    bed.cluster.nodes().iter().try_for_each(|node| node.start())?;
    let leader = bed.rest()?;
    bed.work()?;
    bed.cluster.node(leader).cli(&["resign", WRITES])?.ok()?;
    bed.cluster.wait_successor(WRITES, leader)?;
    bed.rest()?;
    for (part, name) in &foreign {
        let znode = bed.znodes.get(&format!("/bellwether/{WRITES}/{part}/{name}"))?;
        ensure!(znode.is_some_and(|znode| znode.version == 0), "{name} was touched");
    }
    bed.work()?;
    bed.check().map(drop)
}

#[test]
fn a_node_that_may_not_says_so_once_and_ends() -> Result<()> {
    let bed = Bed::prepare(1, busy)?;
    let owner = Znodes::of(bed.zookeeper.address()).with_credentials("somebody:else");
    bed.znodes.create("/bellwether", b"")?;
    owner.create_private(&format!("/bellwether/{WRITES}"), b"")?;
    bed.cluster.node(0).start()?;
    ensure!(bed.cluster.node(0).wait_exit()? == 5);
    let said = bed.cluster.node(0).logged(0, |line| line.level() == "ERROR" && line.message().contains("NoAuth"));
    ensure!(!said.is_empty() && said.len() <= 2, "{said:?}");
    ensure!(said[0].message().contains(&format!("/bellwether/{WRITES}")), "{said:?}");
    let asked = bed.proxies[0].requests(op::CREATE) + bed.proxies[0].requests(op::CREATE2);
    ensure!(asked < 40, "{asked} creates look like a loop of retries");
    Ok(())
}

#[test]
fn a_thousand_members_at_once_cost_one_read_each_and_few_callbacks() -> Result<()> {
    const MEMBERS: usize = 1000;
    let bed = Bed::prepare(1, |builder| builder.group(WRITES, guest("probe"), ""))?;
    bed.cluster.node(0).start()?;
    bed.cluster.wait_ready()?;
    let (reads, called) = (bed.proxies[0].requests(op::GET_DATA), callbacks(&bed)?);
    let took = join_at_once(&bed.znodes, MEMBERS)?;
    bed.cluster.wait_for("the leader to know them all", PATIENCE, |cluster| {
        (cluster.node(0).group(WRITES).ok()?["members"].as_array()?.len() == MEMBERS).then_some(())
    })?;
    let read = bed.proxies[0].requests(op::GET_DATA) - reads;
    let called = callbacks(&bed)? - called;
    println!("{MEMBERS} members within {took:?}: {read} reads, {called} callbacks");
    ensure!(read < MEMBERS as u64 * 3 / 2, "{read} reads for {MEMBERS} members");
    ensure!(called < MEMBERS as u64, "{called} callbacks for {MEMBERS} members");
    Ok(())
}

/// Makes so many members, many at a time, and says how long that took.
fn join_at_once(znodes: &Znodes, members: usize) -> Result<Duration> {
    const HANDS: usize = 16;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let hands = (0..HANDS).map(|hand| {
            scope.spawn(move || {
                (hand..members).step_by(HANDS).try_for_each(|n| {
                    let member = serde_json::json!({ "id": format!("m{n}"), "address": "127.0.0.1:1", "labels": {} });
                    let path = format!("/bellwether/{WRITES}/service_registry/m_{n:010}");
                    znodes.create(&path, member.to_string().as_bytes())
                })
            })
        });
        let hands: Vec<_> = hands.collect();
        hands.into_iter().try_for_each(|hand| hand.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    Ok(start.elapsed())
}

fn callbacks(bed: &Bed) -> Result<u64> {
    bed.cluster.node(0).group(WRITES)?["callbacks"]["called"].as_u64().context("no count of callbacks")
}

#[test]
fn a_node_whose_id_is_taken_waits_and_disturbs_nobody() -> Result<()> {
    let mut bed = Bed::prepare(3, |builder| busy(builder.ids(|index| format!("n{}", index.min(1)))))?;
    bed.cluster.node(0).start()?;
    bed.cluster.node(1).start()?;
    bed.cluster.wait_ready()?;
    let leader = bed.cluster.wait_leader(WRITES)?;
    let epoch = bed.epoch(leader)?;
    bed.cluster.node(2).start()?;
    bed.cluster.node(2).wait_log(0, "an id that is taken", |line| line.what() == "duplicate-node-id")?;
    std::thread::sleep(T);
    ensure!(bed.epoch(leader)? == epoch);
    for group in [WRITES, TASKS] {
        let candidates = bed.znodes.children(&format!("/bellwether/{group}/election"))?.unwrap_or_default();
        ensure!(candidates.len() == 2, "{candidates:?}");
    }
    bed.check().map(drop)
}
