//! Nodes that come, or come back.

use anyhow::{Context, Result};

use crate::bed::{Bed, GROUP, PATIENCE, call, deploy, planned_digest};

#[test]
fn nodes_that_join_or_come_back_take_the_groups_release_and_not_their_manifests() -> Result<()> {
    let bed = Bed::prepare(4, |_| String::new())?;
    for index in 0..3 {
        bed.cluster.node(index).start()?;
    }
    bed.cluster.wait_ready()?;
    let planned = deploy(bed.leader()?, &bed.components.variant("probe", 2)?, &[])?;
    let deployed = planned_digest(&planned)?;
    bed.assert_all_run(deployed)?;

    let (back, new) = (bed.worker()?, bed.cluster.node(3));
    let mark = back.mark();
    back.restart()?;
    new.start()?;
    bed.cluster.wait_ready()?;
    bed.assert_all_run(deployed)?;
    for (node, mark) in [(back, mark), (new, 0)] {
        let group = node.group(GROUP)?;
        // Nothing else ran before it: there was nothing to swap.
        assert_eq!(group["history"].as_array().map(Vec::len), Some(0), "{}: {group:#}", node.id());
        assert!(node.logged(mark, |line| line.tells(GROUP, "swapped")).is_empty(), "{}", node.id());
    }
    bed.cluster.wait_for("both to say that they are well", PATIENCE, |_| {
        let settled = |id: &str| {
            let told = bed.told(back, id).ok()?;
            (told["report"]["state"] == "settled" && told["report"]["running"] == 1).then_some(())
        };
        settled(back.id()).and(settled(new.id()))
    })
}

#[test]
fn a_node_that_joins_in_the_middle_of_a_rollout_is_admitted_in_its_turn() -> Result<()> {
    let bed = Bed::prepare(3, |_| String::new())?;
    for index in 0..2 {
        bed.cluster.node(index).start()?;
    }
    bed.cluster.wait_ready()?;
    let next = bed.components.variant("probe", 2)?.display().to_string();
    call(bed.leader()?, &["deploy", GROUP, &next])?.ok()?;
    bed.wait_document("the canary", |document| {
        document["rollout"]["admitted"].as_array().filter(|admitted| !admitted.is_empty()).map(drop)
    })?;
    call(bed.leader()?, &["rollout", "pause", GROUP])?.ok()?;
    let late = bed.cluster.node(2);
    late.start()?;
    bed.cluster.wait_ready()?;
    bed.cluster.wait_for("the newcomer to report", PATIENCE, |_| {
        bed.told(late, late.id()).ok()?["report"].is_object().then_some(())
    })?;
    let manifest = bed.told(late, late.id())?;
    assert!(
        manifest["target"].is_null() && manifest["report"]["running"].is_null(),
        "it is not admitted yet: {manifest}"
    );
    call(late, &["rollout", "resume", GROUP, "--wait"])?.ok()?;
    let past = bed.wait_end(1)?;
    bed.assert_all_run(past["wanted"]["component"]["digest"].as_str().context("no digest")?)
}
