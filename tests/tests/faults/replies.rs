//! Replies that are lost after the server has done what it was asked for, and requests that arrive late.

use anyhow::{Context, Result, ensure};
use bellwether_tests::checker::{Kind, now_ns};
use bellwether_tests::proxy::{Flow, Link};

use crate::bed::{Bed, PATIENCE, T, TASKS, WRITES, busy, is_claim, is_state_write};

#[test]
fn a_lost_reply_to_the_create_of_a_candidate_leaves_no_ghost() -> Result<()> {
    let mut bed = Bed::prepare(3, busy)?;
    // Of both groups, one after the other: the second one's is lost with the connection that the survey of the first is on.
    let lost: Vec<_> = bed.proxies.iter().map(|proxy| proxy.lose_reply(|request| request.creates("-n_"))).collect();
    bed.cluster.nodes().iter().try_for_each(|node| node.start())?;
    lost.iter().try_for_each(|lost| lost.done(PATIENCE))?;
    bed.rest()?;
    // All in the sessions that their nodes have now, so that nothing outlives them.
    for group in [WRITES, TASKS] {
        let candidates = bed.znodes.below(&format!("/bellwether/{group}/election"))?;
        for index in 0..3 {
            let session = bed.session(index)?["id"].as_str().map(ToOwned::to_owned);
            let prefix = format!("{}-", bed.id(index));
            let own: Vec<_> = candidates.iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
            ensure!(own.len() == 1 && own[0].1.owner == session, "{session:?}: {own:?}");
        }
    }
    let summary = bed.conclude()?;
    println!("replies to creates lost: {summary:?}");
    Ok(())
}

#[test]
fn a_lost_reply_to_the_create_of_a_member_leaves_no_ghost() -> Result<()> {
    let mut bed = Bed::prepare(3, busy)?;
    let lost = bed.proxies[2].lose_reply(|request| request.creates("/service_registry/m_"));
    let starting = |index: usize| bed.cluster.node(index).start();
    starting(0)?;
    bed.cluster.wait_until("n0 to lead", |cluster| cluster.leader(WRITES) == Some(0))?;
    starting(1)?;
    starting(2)?;
    lost.done(PATIENCE)?;
    bed.conclude().map(drop)
}

#[test]
fn a_lost_reply_to_a_claim_is_followed_by_a_new_one() -> Result<()> {
    let mut bed = Bed::prepare(3, busy)?;
    let lost: Vec<_> = bed.proxies.iter().map(|proxy| proxy.lose_reply(is_claim)).collect();
    bed.cluster.node(0).start()?;
    lost[0].done(PATIENCE)?;
    bed.cluster.wait_until("n0 to lead", |cluster| cluster.leader(WRITES) == Some(0))?;
    let first = bed.epoch(0)?.context("the leader has no epoch")?;
    let claimed = bed.znodes.get(&format!("/bellwether/{WRITES}/epoch"))?.context("no epoch")?;
    ensure!(claimed.mzxid.unsigned_abs() == first, "the term is that of the claim whose reply was read");
    bed.cluster.node(1).start()?;
    bed.cluster.node(2).start()?;
    bed.rest()?;
    // The next leader's first claim is lost as well.
    bed.cluster.node(0).cli(&["resign", WRITES])?.ok()?;
    let next = bed.cluster.wait_successor(WRITES, 0)?;
    lost[next].done(PATIENCE)?;
    ensure!(bed.epoch(next)? > Some(first));
    let summary = bed.conclude()?;
    println!("replies to claims lost: {summary:?}");
    Ok(())
}

#[test]
fn a_lost_reply_to_a_write_costs_no_leadership_and_writes_nothing_twice() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    let epoch = bed.epoch(leader)?;
    for _ in 0..3 {
        bed.proxies[leader].lose_reply(is_state_write).done(PATIENCE)?;
        bed.work()?;
    }
    ensure!(bed.epoch(leader)? == epoch, "a connection that breaks costs no leadership");
    let summary = bed.conclude()?;
    println!("replies to writes lost: {summary:?}");
    Ok(())
}

#[test]
fn a_write_that_arrives_after_the_next_leader_was_elected_is_refused() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
    let held = bed.proxies[leader].hold(is_state_write);
    held.seen(PATIENCE)?;
    let from = now_ns();
    bed.znodes.delete(&bed.candidate(leader)?)?;
    let elected = bed.wait_successor(leader, epoch)?;
    // Its first write is accepted while the older one is still on its way.
    bed.wait_history("a write of the successor", |history| {
        let mut effects = history.effects().iter();
        effects.any(|effect| effect.epoch > epoch && matches!(effect.kind, Kind::Write(..)))
    })?;
    held.release();
    let demoted = bed.wait_demoted(leader, epoch)?;
    ensure!(elected - from < T.as_nanos() as u64, "the session was alive when the write arrived");
    // Who deletes a leader's znode lets two lead for as long as the news takes, here as long as the link was held up.
    bed.history.meddled(from, demoted);
    let summary = bed.conclude()?;
    let late = bed.history.effects().iter().filter(|effect| {
        effect.epoch == epoch && effect.at > elected && effect.group == WRITES && matches!(effect.kind, Kind::Write(..))
    });
    ensure!(late.count() == 0, "a write of the old term was accepted");
    println!("a write of the old term held back: {summary:?}");
    Ok(())
}

/// A node whose candidate is made, and which is told to stop before it hears so; then the link is mended by `mend`.
fn stop_amid_joining(mend: impl FnOnce(&Bed)) -> Result<Bed> {
    let bed = Bed::prepare(1, busy)?;
    let held = bed.proxies[0].hold(|request| request.creates("-n_"));
    bed.cluster.node(0).start()?;
    held.seen(PATIENCE)?;
    bed.proxies[0].set(Link { up: Flow::Pass, down: Flow::Stall });
    held.release();
    bed.cluster.wait_until("the candidate", |_| candidates(&bed) > 0)?;
    bed.cluster.node(0).terminate()?;
    bed.cluster.node(0).wait_log(0, "the stop", |line| line.message().starts_with("stopping: "))?;
    mend(&bed);
    bed.proxies[0].heal();
    ensure!(bed.cluster.node(0).wait_exit()? == 0);
    Ok(bed)
}

fn candidates(bed: &Bed) -> usize {
    let names =
        |group| bed.znodes.children(&format!("/bellwether/{group}/election")).ok().flatten().unwrap_or_default();
    names(WRITES).len() + names(TASKS).len()
}

#[test]
fn a_node_that_is_told_to_stop_amid_its_joining_leaves_nothing_behind() -> Result<()> {
    let bed = stop_amid_joining(|_| {})?;
    ensure!(candidates(&bed) == 0, "a candidate that nobody owns outranks everybody");
    Ok(())
}

#[test]
fn a_node_that_is_told_to_stop_amid_its_joining_and_loses_its_link_leaves_nothing_to_last() -> Result<()> {
    let bed = stop_amid_joining(|bed| bed.proxies[0].reset())?;
    // Nobody could tell the server; what is left goes with the session.
    bed.cluster.wait_until("the candidate to go", |_| candidates(&bed) == 0)
}
