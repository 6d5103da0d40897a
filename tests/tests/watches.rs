//! No herd: N candidates hold N−1 watches on each other, and a departure wakes one node. Told by ZooKeeper itself.
//!
//! - `wchp` lists the watches on znodes by path, `dump` says which session a znode belongs to. `mntr` counts all watches, those on
//!   lists of children, which `wchp` leaves out, as well.
//! - `cons` counts, for each connection, the packets that the server received and sent. Each request has one answer, so what was
//!   sent beyond that are watch notifications. (The packets alone would not do: clients ping, and nodes look at their own
//!   znodes now and then.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Cluster, Node, PATIENCE};
use bellwether_tests::guests::guest;
use bellwether_tests::measure::print;
use bellwether_tests::zookeeper::Server;
use serde_json::Value;

const GROUP: &str = "crowd";
const PROCESSES: usize = 2;
const EACH: usize = 25;
const ELECTION: &str = "/bellwether/crowd/election/";

/// A candidate, as ZooKeeper has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    sequence: i64,
    node: String,
    path: String,
    session: String,
}

/// The candidates in the order of the election.
fn candidates(server: &Server) -> Result<Vec<Candidate>> {
    let dump = server.four_letter("dump")?;
    let mut session = String::new();
    let mut found = Vec::new();
    for line in dump.lines() {
        let text = line.trim();
        if let Some(id) = text.strip_suffix(':').filter(|id| id.starts_with("0x")) {
            id.clone_into(&mut session);
        } else if let Some(name) = text.strip_prefix(ELECTION) {
            // <node-id>-<guid>-n_<sequence>; the guid has 32 digits.
            let (rest, sequence) = name.rsplit_once("-n_").with_context(|| format!("a foreign znode: {name}"))?;
            let node = rest.get(..rest.len() - 33).with_context(|| format!("a foreign znode: {name}"))?.to_owned();
            found.push(Candidate {
                sequence: sequence.parse()?,
                node,
                path: text.to_owned(),
                session: session.clone(),
            });
        }
    }
    found.sort();
    Ok(found)
}

/// Who watches what: the sessions by path.
fn watches(server: &Server) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut watches = BTreeMap::<String, BTreeSet<String>>::new();
    let mut path = String::new();
    for line in server.four_letter("wchp")?.lines() {
        match line.strip_prefix('\t') {
            Some(session) => {
                watches.entry(path.clone()).or_default().insert(session.trim().to_owned());
            }
            None => line.trim().clone_into(&mut path),
        }
    }
    Ok(watches)
}

/// Watches of candidates on others: (who, whose znode), by the others' place in the line.
fn followed(candidates: &[Candidate], watches: &BTreeMap<String, BTreeSet<String>>) -> Vec<(String, String)> {
    let name = |session: &str| {
        candidates.iter().find(|one| one.session == session).map_or(session, |one| &one.node).to_owned()
    };
    candidates
        .iter()
        .flat_map(|one| {
            let by = watches.get(&one.path).into_iter().flatten().filter(|session| **session != one.session);
            by.map(|session| (name(session), one.node.clone()))
        })
        .collect()
}

/// What it must be: each candidate but the first watches the one before it.
fn line(candidates: &[Candidate]) -> Vec<(String, String)> {
    candidates.windows(2).map(|pair| (pair[1].node.clone(), pair[0].node.clone())).collect()
}

/// The notifications that each session was sent since it connected: packets sent beyond those received. A request that is on its
/// way is received and not answered yet, which makes for less, never for more: so the most of some looks counts, of those
/// that find no request waiting.
fn notifications(server: &Server) -> Result<BTreeMap<String, i64>> {
    let mut most = BTreeMap::new();
    for _ in 0..8 {
        for connection in server.four_letter("cons")?.lines() {
            let Some((_, fields)) = connection.split_once('(') else { continue };
            let fields: BTreeMap<&str, &str> =
                fields.trim_end().trim_end_matches(')').split(',').filter_map(|field| field.split_once('=')).collect();
            let number = |name: &str| fields.get(name).and_then(|value| value.parse::<i64>().ok());
            let (Some(session), Some(0)) = (fields.get("sid"), number("queued")) else { continue };
            let (sent, received) = number("sent").zip(number("recved")).context("`cons` counts no packets")?;
            let seen = most.entry((*session).to_owned()).or_insert(i64::MIN);
            *seen = (sent - received).max(*seen);
        }
    }
    Ok(most)
}

/// How many watches have fired because a znode was deleted, because it was changed, and because a list of children was: each
/// counted for each session that held one.
fn fired(server: &Server) -> Result<[u64; 3]> {
    let counters = server.mntr()?;
    let mut sums = [0; 3];
    for (sum, what) in sums.iter_mut().zip(["deleted", "changed", "children"]) {
        let name = format!("zk_sum_node_{what}_watch_count");
        *sum = counters.get(&name).with_context(|| format!("`mntr` has no {name}"))?.parse()?;
    }
    Ok(sums)
}

/// Waits until the line stands: `count` candidates, each but the first watching the one before it.
fn wait_line(cluster: &Cluster, server: &Server, count: usize) -> Result<Vec<Candidate>> {
    let mut seen = (Vec::new(), Vec::new());
    let found = cluster.wait_for("the line of candidates", PATIENCE, |_| {
        let all = candidates(server).ok()?;
        let followed = followed(&all, &watches(server).ok()?);
        let stands = all.len() == count && followed == line(&all);
        seen = (all.clone(), followed);
        stands.then_some(all)
    });
    found.with_context(|| format!("candidates and who follows whom at last: {seen:#?}"))
}

/// The process that runs a candidate.
fn process<'a>(cluster: &'a Cluster, candidate: &Candidate) -> Result<&'a Node> {
    let process = candidate.node.split('-').next().and_then(|id| cluster.nodes().iter().find(|node| node.id() == id));
    process.with_context(|| format!("no process has the node {}", candidate.node))
}

/// How many watches there are on lists of children alone.
fn on_lists(server: &Server) -> Result<usize> {
    let all: usize = server.mntr()?.get("zk_watch_count").context("`mntr` counts no watches")?.parse()?;
    let on_znodes: usize = watches(server)?.values().map(BTreeSet::len).sum();
    Ok(all.saturating_sub(on_znodes))
}

/// Who watches the members, for as long as they last.
fn on_members(server: &Server) -> Result<usize> {
    Ok(watches(server)?.get(&format!("/bellwether/{GROUP}/service_registry")).map_or(0, BTreeSet::len))
}

/// Waits until everybody stands where it belongs, the first in line leads and knows all others as members, and one session
/// watches the members, which is how it knows. Nothing is on its way then.
fn settle(cluster: &Cluster, server: &Server, count: usize) -> Result<Vec<Candidate>> {
    let standing = wait_line(cluster, server, count)?;
    let leader = &standing[0];
    let path = format!("/v1/nodes/{}/groups/{GROUP}", leader.node);
    cluster.wait_until("the leader to know all others", |cluster| {
        let answer = process(cluster, leader).and_then(|process| process.http("GET", &path, ""));
        let group: Option<Value> = answer.ok().and_then(|(_, body)| serde_json::from_str(&body).ok());
        let knows = group.and_then(|group| group["members"].as_array().map(Vec::len)) == Some(count - 1);
        knows && on_members(server).is_ok_and(|watches| watches == 1)
    })?;
    Ok(standing)
}

/// Kills the node of `departing`; gives the nodes that were sent a notification until the line stands again, and the watches that
/// fired (see [`fired`]).
fn departure(
    cluster: &Cluster,
    server: &Server,
    line: &[Candidate],
    departing: &Candidate,
) -> Result<(Vec<String>, [u64; 3])> {
    let (before, counted) = (notifications(server)?, fired(server)?);
    let (code, body) = process(cluster, departing)?.http("POST", &format!("/v1/nodes/{}/kill", departing.node), "")?;
    ensure!(code == 204, "{} was not killed: {code} {body}", departing.node);
    settle(cluster, server, line.len() - 1)?;
    let (after, now) = (notifications(server)?, fired(server)?);
    let woken = line.iter().filter(|one| one.session != departing.session).filter(|one| {
        let (before, after) = (before.get(&one.session), after.get(&one.session));
        before.zip(after).is_none_or(|(before, after)| after > before)
    });
    let woken: Vec<String> = woken.map(|one| one.node.clone()).collect();
    let fired = [now[0] - counted[0], now[1] - counted[1], now[2] - counted[2]];
    print(format_args!(
        "{} of {} candidates left: woken {woken:?}; watches that fired for a deletion, a change, a list: {fired:?}",
        departing.node,
        line.len()
    ));
    Ok((woken, fired))
}

#[test]
fn fifty_candidates_hold_forty_nine_watches_and_a_departure_wakes_one_node() -> Result<()> {
    let server = Server::start()?;
    // Several nodes a process, each with a session of its own, as `bellwether dev` runs them.
    let several = format!(r#"exec "$0" "$1" "$2" dev --nodes {EACH} "$4""#);
    let cluster = Cluster::builder(server.address())
        .nodes(PROCESSES)
        .session_timeout(Duration::from_secs(6))
        .wrapper(move |_| ["sh", "-c", &several].map(String::from).to_vec())
        .group(GROUP, guest("minimal"), "")
        .start()?;
    cluster.wait_until("all nodes to be ready", |cluster| cluster.nodes().iter().all(|node| node.is_ready()))?;
    let all = PROCESSES * EACH;
    let standing = settle(&cluster, &server, all)?;
    let leader = &standing[0];
    let watching = watches(&server)?;
    let others = followed(&standing, &watching);
    assert_eq!(others.len(), all - 1, "{others:?}");
    let own = standing.iter().filter(|one| watching.get(&one.path).is_some_and(|by| by.contains(&one.session)));
    let own: Vec<&str> = own.map(|one| one.node.as_str()).collect();
    assert_eq!(own, [&leader.node], "only the leader watches its own znode");
    // Each other's, the leader's own znode, the members, and on every node the group's release: there is no other watch at all.
    // (Servers before 3.8.1 count a lasting watch once more, as one on a list.)
    assert_eq!(watching.values().map(BTreeSet::len).sum::<usize>(), all - 1 + 2 + all, "{watching:?}");
    assert!(on_lists(&server)? <= 1);
    print(format_args!("{all} candidates: {} watches on each other's znodes (wchp)", others.len()));

    // The leader: the next in line is woken, and nobody else.
    let (woken, fired) = departure(&cluster, &server, &standing, leader)?;
    assert_eq!((woken, fired), (vec![standing[1].node.clone()], [1, 0, 0]));

    // One in the middle: who stands behind it is woken. The leader is too, by its watch on the members: it follows nobody, and its own
    // znode is where it was. (Twice in the counters of servers before 3.8.1.)
    let standing = settle(&cluster, &server, all - 1)?;
    let middle = standing.len() / 2;
    let (woken, fired) = departure(&cluster, &server, &standing, &standing[middle])?;
    assert_eq!(woken, [standing[0].node.clone(), standing[middle + 1].node.clone()]);
    assert!(matches!(fired, [2 | 3, 0, 0]), "{fired:?}");
    Ok(())
}
