//! A release that fails after it took over: the node goes back by itself.

use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_tests::cluster::Cluster;
use bellwether_tests::guests::guest;
use bellwether_tests::zookeeper::Server;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// The numbers that the probe counted, tick by tick, in the order of the log.
fn counted(cluster: &Cluster, from: usize) -> Vec<u64> {
    let lines = cluster.node(0).logged(from, |line| line.guest("tell").is_some());
    lines
        .iter()
        .filter_map(|line| {
            line.guest("tell").and_then(|text| text.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok())
        })
        .collect()
}

#[test]
fn a_release_that_fails_on_probation_is_taken_back_with_the_state_it_was_given() -> Result<()> {
    let zookeeper = Server::start()?;
    let group = "config = { \"on-tick\" = \"tell count\" }\n[group.tick]\nevery = \"50ms\"\n";
    let cluster = Cluster::builder(zookeeper.address()).group("g", guest("probe"), group).start()?;
    cluster.wait_leader("g")?;
    let node = cluster.node(0);
    cluster.wait_until("some ticks were counted", |cluster| counted(cluster, 0).len() > 5)?;
    let before = node.group("g")?;
    let session = node.status()?["nodes"][0]["session"]["id"].clone();

    let faulty = guest("faulty").display().to_string();
    let swap = node.cli(&["swap", "g", &faulty, "--json"])?.json()?;
    assert_eq!(swap["outcome"], "committed", "{swap}");
    let at = node.mark();
    let back = cluster.wait_for("the node has gone back", PATIENCE, |cluster| {
        let group = cluster.node(0).group("g").ok()?;
        let last = group["history"].as_array()?.last()?.clone();
        (last["rollback"] == true && last["outcome"] == "committed").then_some(group)
    })?;
    assert_eq!(back["release"]["id"], before["release"]["id"]);
    assert_eq!(back["epoch"], before["epoch"], "leadership stays");
    assert_eq!(node.status()?["nodes"][0]["session"]["id"], session, "the session stays");
    assert!(node.logged(0, |line| line.what() == "demoting").is_empty(), "nobody was demoted");

    // The state of before the swap goes on. The probe counts every callback and every order: two a tick, and one for the
    // `on-elected` with cause swap that the instance after the rollback is told.
    cluster.wait_until("it counts again", |cluster| counted(cluster, at).len() > 3)?;
    let steps: Vec<u64> = counted(&cluster, 0).windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.iter().all(|step| *step == 2 || *step == 3), "{steps:?}");
    assert_eq!(steps.iter().filter(|step| **step == 3).count(), 1, "{steps:?}");

    let again = node.cli(&["swap", "g", &faulty, "--json"])?;
    assert_eq!(again.code(), Some(1));
    let history = node.cli(&["history", "g", "--json"])?.json()?;
    let last = history[0]["swaps"].as_array().and_then(|swaps| swaps.last()).context("no history")?.clone();
    assert_eq!(last["step"], "probation", "{last}");
    assert!(last["reason"].as_str().is_some_and(|reason| reason.contains("failed its probation")), "{last}");
    let steps = |swap: &Value| swap["steps"].as_array().map_or(0, Vec::len);
    assert!(steps(&history[0]["swaps"][0]) >= 5, "each step has its time: {}", history[0]["swaps"][0]);
    assert_eq!(node.stop()?, 0);
    Ok(())
}
