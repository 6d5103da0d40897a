//! A change of configuration alone is a swap like any other, and none if nothing changes.

use anyhow::{Result, ensure};
use bellwether_tests::cluster::{Cluster, Node};
use bellwether_tests::guests::guest;
use bellwether_tests::zookeeper::Server;
use serde_json::Value;

const GROUP: &str = "g";
/// What the admin API takes at once is less than what a configuration may have: this makes the difference.
const BALLAST: usize = 250 << 10;

/// What the guest has last said of its mood, after `mark`.
fn mood(node: &Node, mark: usize, wanted: &str) -> Result<()> {
    let wanted = format!("\\\"{wanted}\\\"");
    node.wait_log(mark, &format!("the mood to be {wanted}"), |line| {
        line.guest("tell").is_some_and(|text| text.contains(&wanted))
    })
    .map(drop)
}

fn steps(report: &Value) -> Vec<&str> {
    report["steps"].as_array().into_iter().flatten().filter_map(|step| step["step"].as_str()).collect()
}

#[test]
fn a_change_of_configuration_is_a_swap_and_no_change_is_none() -> Result<()> {
    let server = Server::start()?;
    let group = format!(
        "[group.config]\nmood = \"calm\"\nballast = \"{}\"\non-tick = \"tell config mood\"\n[group.tick]\nevery = \"50ms\"\n",
        "x".repeat(BALLAST)
    );
    let cluster = Cluster::builder(server.address()).group(GROUP, guest("probe"), &group).start()?;
    cluster.wait_leader(GROUP)?;
    let node = cluster.node(0);
    mood(node, 0, "calm")?;
    let (first, session) = (node.group(GROUP)?, node.status()?["session"]["id"].clone());

    let mark = node.mark();
    let report = node.cli(&["swap", GROUP, "--config", "mood=lively", "--json"])?.json()?;
    assert_eq!((&report["outcome"], &report["from"]), (&"committed".into(), &first["release"]["id"]), "{report:#}");
    mood(node, mark, "lively")?;
    let lively = node.group(GROUP)?;
    assert_ne!(lively["release"]["id"], first["release"]["id"], "another release");
    assert_eq!(lively["release"]["digest"], first["release"]["digest"], "of the same component");
    assert_eq!(lively["release"]["component"], first["release"]["component"]);
    assert_eq!(lively["epoch"], first["epoch"]);
    let history = lively["history"].as_array().cloned().unwrap_or_default();
    assert_eq!(steps(&history[0]), ["check", "instantiate", "snapshot", "restore", "present"], "nothing is compiled");

    // The same again, and with the component named: what runs is not swapped.
    let (mark, probe) = (node.mark(), guest("probe").display().to_string());
    for same in [&["swap", GROUP, "--config", "mood=lively"][..], &["swap", GROUP, &probe, "--config", "mood=lively"]] {
        let said = node.cli(same)?.ok()?;
        ensure!(said.contains("runs already, nothing was swapped"), "{said}");
    }
    assert_eq!(node.group(GROUP)?["release"], lively["release"]);
    let heard = node.logged(mark, |line| line.guest("on-elected").or(line.guest("on-demoted")).is_some());
    assert_eq!(heard.len(), 0, "the guest heard nothing: {heard:?}");

    // Too much of it is refused, and the old one goes on.
    let large = format!("more={}", "y".repeat(8 << 10));
    let refused = node.cli(&["swap", GROUP, "--config", &large])?;
    assert_eq!(refused.code(), Some(1), "{}", refused.stderr);
    ensure!(
        refused.stderr.contains("the configuration has") && refused.stderr.contains("the most is 262144"),
        "{}",
        refused.stderr
    );
    assert_eq!(node.group(GROUP)?["release"], lively["release"]);

    // Each swap begins with the manifest's configuration: nothing is left of what another one changed.
    let mark = node.mark();
    let report = node.cli(&["swap", GROUP, "--config", "other=1", "--json"])?.json()?;
    assert_eq!(report["outcome"], "committed", "{report:#}");
    mood(node, mark, "calm")?;
    let report = node.cli(&["swap", GROUP, &probe, "--json"])?.json()?;
    assert_eq!((&report["outcome"], &report["release"]), (&"committed".into(), &first["release"]["id"]), "{report:#}");
    assert_eq!(node.status()?["session"]["id"], session);
    assert_eq!(node.group(GROUP)?["epoch"], first["epoch"]);
    Ok(())
}
