//! Releases that fail.

use anyhow::{Context, Result};

use crate::bed::{Bed, Components, GROUP, call, deploy, digest, planned_digest, rollout};

/// Every node ticks: a release that fails at its ticks fails wherever it runs.
fn ticking(_: &Components) -> String {
    "[group.tick]\nevery = \"50ms\"\nwhen = \"always\"\n".to_owned()
}

#[test]
fn a_bad_release_runs_on_the_canary_alone_and_everybody_is_back() -> Result<()> {
    let bed = Bed::start(3, ticking)?;
    let before = digest(bed.leader()?)?;
    let epoch = bed.leader()?.group(GROUP)?["epoch"].clone();
    let bad = bed.components.variant("faulty", 1)?.display().to_string();
    let ran = call(bed.leader()?, &["deploy", GROUP, &bad, "--wait"])?;
    assert_eq!(ran.code(), Some(8), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("on-tick") && ran.stderr.contains("a fault that shows only"), "{}", ran.stderr);

    let past = bed.wait_end(1)?;
    let reason = past["outcome"]["failed"]["reason"].as_str().context("no reason")?;
    assert!(reason.contains("on-tick"), "{past}");
    bed.assert_all_run(&before)?;
    assert_eq!(bed.leader()?.group(GROUP)?["epoch"], epoch, "leadership moved");
    let (canary, _) = reason.split_once(':').context("the reason names nobody")?;
    assert_ne!(canary, bed.leader()?.id(), "the leader is no canary");
    for node in bed.cluster.nodes() {
        let swaps = node.group(GROUP)?["history"].as_array().map_or(0, Vec::len);
        assert_eq!(swaps > 0, node.id() == canary, "{} has {swaps} swaps, and the canary is {canary}", node.id());
    }
    let history = call(bed.worker()?, &["history", GROUP])?.ok()?;
    assert!(
        history.contains("faulty-1.wasm (") && history.contains("failed (") && history.contains("by ada"),
        "{history}"
    );

    // What failed is no obstacle to what is good.
    let good = deploy(bed.leader()?, &bed.components.variant("probe", 2)?, &[])?;
    assert_eq!(good["to"]["number"], 2, "{good}");
    bed.assert_all_run(planned_digest(&good)?)
}

#[test]
fn a_component_that_a_node_cannot_have_fails_the_rollout_there() -> Result<()> {
    let bed = Bed::start(2, |_| String::new())?;
    let before = digest(bed.leader()?)?;
    let next = bed.components.variant("probe", 2)?;
    let plan = call(bed.leader()?, &["deploy", GROUP, &next.display().to_string(), "--plan", "--json"])?.json()?;
    // What lies there when the canary looks is not what was deployed: the document is written as the node would.
    let mut wanted = plan["to"].clone();
    wanted["wanted"]["component"]["digest"] = "0".repeat(64).into();
    let document = serde_json::json!({
        "format": 1, "last": 1,
        "rollout": {"to": wanted, "policy": plan["policy"], "phase": "running", "admitted": [], "settled": []},
    });
    bed.znodes.set(&format!("/bellwether/{GROUP}/release"), document.to_string().as_bytes())?;
    let past = bed.wait_end(1)?;
    let reason = past["outcome"]["failed"]["reason"].as_str().context("no reason")?;
    assert!(
        reason.contains("it was replaced, cut short or tampered with") && reason.contains("probe-2.wasm"),
        "{past}"
    );
    bed.assert_all_run(&before)
}

#[test]
fn a_release_that_does_not_link_with_the_grants_is_refused_before_anything_is_written() -> Result<()> {
    let components = Components::new()?;
    let minimal = components.variant("minimal", 1)?;
    let bed = Bed::with(2, components, |builder| {
        builder.group(GROUP, &minimal, "[group.grants]\nworkers = false\nstate = \"none\"\n")
    })?;
    bed.cluster.nodes().iter().try_for_each(bellwether_tests::cluster::Node::start)?;
    bed.cluster.wait_ready()?;
    let before = bed.release()?;
    let probe = bed.components.variant("probe", 1)?.display().to_string();
    let ran = call(bed.leader()?, &["deploy", GROUP, &probe])?;
    assert_eq!(ran.code(), Some(4), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stderr.contains("which is not granted") && ran.stderr.contains("nothing was written"),
        "{}",
        ran.stderr
    );
    let garbage = bed.components.folder().join("garbage.wasm");
    std::fs::write(&garbage, b"no component")?;
    let ran = call(bed.leader()?, &["deploy", GROUP, &garbage.display().to_string()])?;
    assert_eq!(ran.code(), Some(4), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(bed.release()?, before, "something was written");
    assert!(rollout(bed.leader()?)?["document"]["rollout"].is_null());
    Ok(())
}

#[test]
fn a_rollout_that_shall_halt_waits_for_an_operator() -> Result<()> {
    let bed = Bed::start(2, ticking)?;
    let before = digest(bed.leader()?)?;
    let bad = bed.components.variant("faulty", 1)?.display().to_string();
    let ran = call(bed.leader()?, &["deploy", GROUP, &bad, "--wait", "--on-failure", "halt"])?;
    assert_eq!(ran.code(), Some(8), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("is halted"), "{}", ran.stderr);
    let status = call(bed.worker()?, &["rollout", "status", GROUP])?.ok()?;
    assert!(status.contains("halted") && status.contains("on-tick"), "{status}");
    let ran = call(bed.worker()?, &["rollout", "abort", GROUP, "--wait"])?;
    assert_eq!(ran.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(bed.wait_end(1)?["outcome"]["aborted"]["by"], "ada");
    bed.assert_all_run(&before)
}
