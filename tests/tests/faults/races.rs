//! What changes while a node looks away: sessions that are replaced, znodes that go and come back at the wrong moment.

use anyhow::{Context, Result, ensure};
use bellwether_tests::proxy::{Flow, Link, op};

use crate::bed::{Bed, PATIENCE, T, TASKS, WRITES, busy};

/// Candidates of [`WRITES`] with the session that each lives by.
fn owners(bed: &Bed) -> Result<Vec<(String, Option<String>)>> {
    let candidates = bed.znodes.below(&format!("/bellwether/{WRITES}/election"))?;
    Ok(candidates.into_iter().map(|(name, znode)| (name, znode.owner)).collect())
}

#[test]
fn a_leader_that_dies_and_comes_back_at_once_does_not_take_its_old_candidate_for_its_own() -> Result<()> {
    let mut bed = Bed::start(3)?;
    for _ in 0..3 {
        let leader = bed.rest()?;
        bed.work()?;
        let (epoch, candidate) = (bed.epoch(leader)?.context("no epoch")?, bed.candidate(leader)?);
        bed.kill(leader);
        bed.cluster.node(leader).start()?;
        // It has the same GUID, and the old session is alive: it deletes the candidate instead of waiting for its end.
        bed.wait_successor(leader, epoch)?;
        bed.rest()?;
        ensure!(bed.znodes.get(&candidate)?.is_none(), "{candidate} is still there");
        let (id, session) = (bed.id(leader), bed.session(leader)?["id"].as_str().map(ToOwned::to_owned));
        let own: Vec<_> = owners(&bed)?.into_iter().filter(|(name, _)| name.starts_with(&format!("{id}-"))).collect();
        ensure!(own.len() == 1 && own[0].1 == session, "{session:?}: {own:?}");
    }
    let summary = bed.conclude()?;
    println!("leaders died and came back at once: {summary:?}");
    Ok(())
}

#[test]
fn a_session_that_is_replaced_without_a_word_ends_the_term() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?.context("no epoch")?;
    let session = bed.session(leader)?["id"].clone();
    let forgotten = bed.proxies[leader].forget_session();
    bed.proxies[leader].reset();
    forgotten.done(PATIENCE)?;
    bed.wait_demoted(leader, epoch)?;
    bed.rest()?;
    ensure!(bed.session(leader)?["id"] != session);
    let summary = bed.conclude()?;
    println!("a session was replaced: {summary:?}");
    Ok(())
}

#[test]
fn a_follower_that_was_away_when_its_predecessor_went_looks_again() -> Result<()> {
    let mut bed = Bed::start(2)?;
    for _ in 0..2 {
        let leader = bed.rest()?;
        let (follower, epoch) = (1 - leader, bed.epoch(leader)?.context("no epoch")?);
        bed.proxies[follower].refuse(true);
        bed.proxies[follower].reset();
        bed.cluster.node(leader).cli(&["resign", WRITES])?.ok()?;
        bed.wait_demoted(leader, epoch)?;
        bed.proxies[follower].heal();
        bed.wait_successor(leader, epoch)?;
    }
    bed.conclude().map(drop)
}

#[test]
fn a_predecessor_that_was_deleted_and_made_again_is_still_a_predecessor() -> Result<()> {
    let mut bed = Bed::start(2)?;
    let leader = bed.rest()?;
    let (follower, epoch) = (1 - leader, bed.epoch(leader)?.context("no epoch")?);
    let candidate = bed.candidate(leader)?;
    bed.proxies[follower].refuse(true);
    bed.proxies[follower].reset();
    // Neither of the two sees it happen.
    bed.proxies[leader].cut();
    bed.znodes.delete(&candidate)?;
    bed.znodes.create(&candidate, b"")?;
    bed.proxies[leader].heal();
    // The name is the leader's own and the znode is not: it is demoted, and sweeps it away. Until then nobody else leads.
    bed.wait_demoted(leader, epoch)?;
    bed.proxies[follower].heal();
    bed.rest()?;
    ensure!(bed.znodes.get(&candidate)?.is_none(), "what carries a node's GUID and is not of its session goes");
    bed.conclude().map(drop)
}

#[test]
fn a_predecessor_that_goes_between_the_list_and_the_watch_is_not_waited_for() -> Result<()> {
    let mut bed = Bed::prepare(3, busy)?;
    for index in 0..2 {
        bed.cluster.node(index).start()?;
        bed.cluster.wait_until("the nodes to stand in this order", |cluster| {
            bed.candidate(index).is_ok() && cluster.leader(WRITES) == Some(0)
        })?;
    }
    let path = format!("/bellwether/{WRITES}/election/n1-");
    let held = bed.proxies[2].hold(move |request| request.op == op::GET_DATA && request.mentions(&path));
    bed.cluster.node(2).start()?;
    held.seen(PATIENCE)?;
    bed.znodes.delete(&bed.candidate(1)?)?;
    held.release();
    bed.rest()?;
    // It stands behind the leader now: when that one goes, somebody leads.
    bed.cluster.node(0).cli(&["resign", WRITES])?.ok()?;
    bed.cluster.wait_successor(WRITES, 0)?;
    bed.conclude().map(drop)
}

#[test]
fn news_of_an_old_session_does_not_touch_the_new_one() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let leader = bed.rest()?;
    bed.work()?;
    let epoch = bed.epoch(leader)?.context("no epoch")?;
    // The groups are led by one node or by two; only what the node with the dead session led changes hands.
    let led = [WRITES, TASKS].into_iter().filter(|group| bed.cluster.leader(group) == Some(leader)).count();
    // The session dies unheard of, and its last answers and events are delivered when the node has another one already.
    bed.proxies[leader].set(Link { up: Flow::Stall, down: Flow::Stall });
    bed.wait_successor(leader, epoch)?;
    std::thread::sleep(T / 2);
    bed.proxies[leader].set(Link { up: Flow::Pass, down: Flow::Delay(T / 10) });
    bed.rest()?;
    bed.proxies[leader].heal();
    let terms = [WRITES, TASKS].len() + led;
    let summary = bed.conclude()?;
    ensure!(summary.terms == terms, "one change of leadership in each group that it led, and no more: {summary:?}");
    Ok(())
}

#[test]
fn a_candidate_whose_znode_goes_before_its_claim_arrives_does_not_lead() -> Result<()> {
    let mut bed = Bed::start(2)?;
    let leader = bed.rest()?;
    let follower = 1 - leader;
    let epoch = bed.epoch(leader)?.context("the leader has no epoch")?;
    let claim = format!("/bellwether/{WRITES}/epoch");
    let held = bed.proxies[follower].hold(move |request| request.op == op::MULTI && request.mentions(&claim));
    bed.cluster.node(leader).cli(&["resign", WRITES])?.ok()?;
    held.seen(PATIENCE)?;
    bed.wait_demoted(leader, epoch)?;
    bed.cluster.wait_until("the former leader to stand behind", |_| bed.candidate(leader).is_ok())?;
    // Whatever list it has read says that it is the first, and was true.
    bed.znodes.delete(&bed.candidate(follower)?)?;
    bed.wait_history("the former leader to lead again", |history| {
        history.terms().iter().any(|term| term.group == WRITES && term.epoch > epoch)
    })?;
    let again = bed.epoch(leader)?;
    ensure!(again > Some(epoch), "somebody else was told: {:?}", bed.history.terms());
    held.release();
    bed.rest()?;
    ensure!(bed.epoch(leader)? == again, "the other leads on");
    bed.conclude().map(drop)
}

/// The session is replaced twice in a row, and both former ones end on the server while the present one leads or follows: their
/// candidates, members and the znode under the node's own id go, and are not the present one's.
#[test]
fn the_end_of_old_sessions_does_not_touch_the_new_one() -> Result<()> {
    let mut bed = Bed::start(3)?;
    let node = bed.rest()?;
    bed.work()?;
    let mut former = Vec::new();
    for _ in 0..2 {
        former.push(bed.session(node)?["id"].as_str().context("no session")?.to_owned());
        let forgotten = bed.proxies[node].forget_session();
        bed.proxies[node].reset();
        forgotten.done(PATIENCE)?;
        bed.cluster.wait_until("another session", |_| {
            bed.session(node).is_ok_and(|session| {
                session["state"] == "connected"
                    && session["id"].as_str().is_some_and(|id| !former.iter().any(|one| one == id))
            })
        })?;
    }
    let present = bed.session(node)?["id"].clone();
    // `dump` lists every session that the server knows.
    bed.cluster.wait_until("the former sessions to end", |_| {
        let known = bed.zookeeper.four_letter("dump").unwrap_or_default();
        let known_to_be = |id: &String| known.contains(id.as_str());
        known.contains("Session") && !former.iter().any(known_to_be)
    })?;
    let leader = bed.rest()?;
    let epoch = bed.epoch(leader)?;
    bed.work()?;
    ensure!(bed.session(node)?["id"] == present && bed.epoch(leader)? == epoch, "the end of a former session was felt");
    let id = format!("{}-", bed.id(node));
    let own: Vec<_> = owners(&bed)?.into_iter().filter(|(name, _)| name.starts_with(&id)).collect();
    ensure!(own.len() == 1 && own[0].1.as_deref() == present.as_str(), "{own:?}");
    let heartbeat = bed.znodes.get(&format!("/bellwether/nodes/{}", bed.id(node)))?.context("the node has no znode")?;
    ensure!(heartbeat.owner.as_deref() == present.as_str(), "{heartbeat:?}");
    let summary = bed.conclude()?;
    println!("two sessions replaced, and ended later: {summary:?}");
    Ok(())
}
