//! The counter of sequential names near its end and at it. It is the version of the parent's children, an `i32`, which no client can
//! set: the server's own snapshot is changed while it is stopped.
//!
//! What server 3.8 does, as the first test shows: it prints the counter by `%010d`, so that a negative one has a sign and ten
//! characters at least; and it only ever raises the counter. Past 2147483647 comes -2147483648, which is less, and so it gives
//! 2147483647 again and again, and refuses a name that exists. A negative counter goes on to zero. By its code, which no test here
//! stages, a request that arrives while another one is not yet carried out is given what would come next.

use anyhow::{Context, Result, bail, ensure};
use bellwether_tests::cluster::Line;
use bellwether_tests::znodes::{Refused, Znodes};
use bellwether_tests::zookeeper::{Options, Server};

use crate::bed::{Bed, WRITES, busy};

/// Digests have a checksum of their own in a snapshot.
fn server() -> Result<Server> {
    Server::start_with(&Options { java: vec!["-Dzookeeper.digest.enabled=false".to_owned()], ..Options::default() })
}

/// Three busy nodes that do not run, on a server where the counters stand so.
fn bed(election: i32, registry: i32) -> Result<Bed> {
    let mut bed = Bed::prepare_on(server()?, 3, busy)?;
    let group = format!("/bellwether/{WRITES}");
    let (candidates, members) = (format!("{group}/election"), format!("{group}/service_registry"));
    for path in ["/bellwether", &group, &candidates, &members] {
        bed.znodes.create(path, b"")?;
    }
    bed.zookeeper.set_counter(&candidates, election)?;
    bed.zookeeper.set_counter(&members, registry)?;
    Ok(bed)
}

/// Starts a node, and waits until it stands behind the others.
fn start(bed: &Bed, node: usize) -> Result<()> {
    bed.cluster.node(node).start()?;
    bed.cluster.wait_until("the node to stand", |cluster| {
        bed.candidate(node).is_ok() && matches!(cluster.node(node).role(WRITES).as_deref(), Some("leader" | "worker"))
    })
}

/// The suffix of a node's candidate.
fn suffix(bed: &Bed, node: usize) -> Result<String> {
    let path = bed.candidate(node)?;
    Ok(path.rsplit_once("-n_").context("no candidate's name")?.1.to_owned())
}

/// What a node says of a counter.
fn warnings(bed: &Bed, node: usize, of: &str) -> Vec<String> {
    let said = |line: &Line| line.tells(WRITES, "counter-high") && line.message().contains(of);
    let lines = bed.cluster.node(node).logged(0, said);
    lines.iter().map(|line| format!("{} {}", line.level(), line.message())).collect()
}

/// The leader gives way, and of the others `next` leads.
fn hand_over(bed: &mut Bed, from: usize, next: usize) -> Result<()> {
    let epoch = bed.epoch(from)?.context("no epoch")?;
    bed.cluster.node(from).cli(&["resign", WRITES])?.ok()?;
    bed.wait_successor(from, epoch)?;
    let leader = bed.rest()?;
    ensure!(leader == next, "n{leader} leads instead of n{next}");
    bed.work()
}

#[test]
fn a_server_counts_to_the_end_and_stays_there_and_from_below_zero_goes_on() -> Result<()> {
    let mut server = server()?;
    let znodes = Znodes::of(server.address());
    znodes.create("/q", b"")?;
    server.set_counter("/q", i32::MAX - 1)?;
    for (prefix, name) in [
        ("/q/a_", "/q/a_2147483646"),
        ("/q/b_", "/q/b_2147483647"),
        ("/q/c_", "/q/c_2147483647"),
        ("/q/d_", "/q/d_2147483647"),
    ] {
        ensure!(znodes.create_numbered(prefix, b"")? == name, "{name}");
    }
    let refused = znodes.create_numbered("/q/b_", b"").err().context("the same name was given twice")?;
    ensure!(refused.downcast_ref() == Some(&Refused::NODE_EXISTS), "{refused:#}");
    // Nor does a restart change that.
    server.restart()?;
    ensure!(znodes.create_numbered("/q/e_", b"")? == "/q/e_2147483647");
    server.set_counter("/q", i32::MIN)?;
    ensure!(znodes.create_numbered("/q/f_", b"")? == "/q/f_-2147483648");
    ensure!(znodes.create_numbered("/q/f_", b"")? == "/q/f_-2147483647");
    server.set_counter("/q", -2)?;
    for name in ["/q/g_-000000002", "/q/g_-000000001", "/q/g_0000000000"] {
        ensure!(znodes.create_numbered("/q/g_", b"")? == name, "{name}");
    }
    Ok(())
}

#[test]
fn at_the_end_of_the_counter_one_leads_and_leadership_goes_round() -> Result<()> {
    let mut bed = bed(i32::MAX - 1, i32::MAX - 1)?;
    for node in 0..3 {
        start(&bed, node)?;
    }
    let suffixes = (0..3).map(|node| suffix(&bed, node)).collect::<Result<Vec<_>>>()?;
    ensure!(suffixes == ["2147483646", "2147483647", "2147483647"], "{suffixes:?}");
    ensure!(bed.rest()? == 0, "the oldest leads");
    bed.work()?;
    // Each of them has its turn in the order in which they came, though by then all have the same suffix.
    for (from, next) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
        hand_over(&mut bed, from, next)?;
    }
    // One that dies and comes back is the last again.
    bed.kill(1);
    bed.cluster.node(1).start()?;
    bed.cluster.wait_until("the next to lead", |cluster| cluster.leader(WRITES) == Some(2))?;
    ensure!(bed.rest()? == 2);
    let mut said = 0;
    for node in 0..3 {
        for of in ["/election has come to its end", "/service_registry has come to its end"] {
            let warnings = warnings(&bed, node, of);
            // n1 has run twice.
            ensure!(warnings.len() <= if node == 1 { 2 } else { 1 }, "n{node} says it again and again: {warnings:?}");
            ensure!(warnings.iter().all(|text| text.starts_with("WARN") && text.contains("delete that znode")));
            said += warnings.len();
        }
    }
    ensure!(said >= 6, "every node has come upon both counters: {said} warnings");
    let summary = bed.conclude()?;
    ensure!(summary.excused == 0);
    Ok(())
}

#[test]
fn a_newcomer_from_below_zero_outranks_nobody() -> Result<()> {
    let mut bed = bed((1 << 30) - 1, 0)?;
    start(&bed, 0)?;
    start(&bed, 1)?;
    ensure!(suffix(&bed, 0)? == "1073741823" && suffix(&bed, 1)? == "1073741824");
    ensure!(warnings(&bed, 0, "").is_empty(), "there is half of it left");
    let warned = warnings(&bed, 1, "/election stands at 1073741824 of 2147483647");
    ensure!(warned.len() == 1 && warned[0].contains("delete that znode"), "{warned:?}");
    bed.cluster.wait_until("n0 to lead", |cluster| cluster.leader(WRITES) == Some(0))?;
    // As if a server before 3.6 had counted on. The sessions outlive its restarts.
    bed.zookeeper.set_counter(&format!("/bellwether/{WRITES}/election"), i32::MIN)?;
    // Writes that the new server has acknowledged: by then whatever the restarts cost the leader has been dealt with. Its status alone
    // may still be the one from before.
    bed.work()?;
    bed.cluster.wait_until("the nodes to be connected", |cluster| {
        let connected = |status: serde_json::Value| status["session"]["state"] == "connected";
        cluster.nodes().iter().take(2).all(|node| node.status().is_ok_and(connected))
    })?;
    ensure!(bed.rest()? == 0, "n0 leads again, or still");
    ensure!(suffix(&bed, 0)? == "1073741823", "its session has ended, and the test shows nothing");
    let epoch = bed.epoch(0)?;
    start(&bed, 2)?;
    ensure!(suffix(&bed, 2)? == "-2147483648");
    bed.rest()?;
    bed.work()?;
    ensure!(bed.epoch(0)? == epoch && epoch.is_some(), "the newcomer has disturbed the leader");
    let warned = warnings(&bed, 2, "/election has come to its end");
    ensure!(warned.len() == 1, "{warned:?}");
    for (from, next) in [(0, 1), (1, 2), (2, 0)] {
        hand_over(&mut bed, from, next)?;
    }
    // A claim may have used numbers of its own.
    let numbers = [suffix(&bed, 0)?, suffix(&bed, 1)?, suffix(&bed, 2)?].map(|suffix| suffix.parse::<i64>());
    let [Ok(n0), Ok(n1), Ok(n2)] = numbers else { bail!("no numbers: {numbers:?}") };
    ensure!(
        i64::from(i32::MIN) < n0 && n0 < n1 && n1 < n2 && n2 < 0,
        "not in the order of their resignations: {numbers:?}"
    );
    bed.conclude().map(drop)
}
