//! Rollouts that end well.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::{Context, Result};
use bellwether_tests::cluster::{Line, Node};
use serde_json::Value;

use crate::bed::{Bed, Components, GROUP, PATIENCE, PROBATION, call, deploy, planned_digest, rollout};

/// Pieces of work in a batch.
const BATCH: u64 = 6;

/// Work flows all the time; each piece makes a file.
fn working(components: &Components) -> String {
    let done = components.folder().join("done");
    format!(
        "config = {{ \"on-tick\" = \"numbered {BATCH} 20000 /done\" }}\n[group.tick]\nevery = \"20ms\"\n[group.limits]\ncallback = \"30s\"\n\
         [[group.grants.folders]]\nhost = {done:?}\nguest = \"/done\"\nmode = \"write\"\n"
    )
}

fn complaints(node: &Node) -> Vec<String> {
    let lines = node.logged(0, |line| line.guest("numbered").is_some());
    lines.iter().map(|line| line.message().to_owned()).collect()
}

#[test]
fn a_leader_that_is_killed_in_the_middle_leaves_nobody_behind_and_loses_no_task_but_those_in_its_hand() -> Result<()> {
    let components = |components: &Components| {
        // The folder must be there when the manifests are checked.
        std::fs::create_dir_all(components.folder().join("done")).ok();
        working(components)
    };
    let bed = Bed::start(5, components)?;
    let done = bed.components.folder().join("done");
    let files = || -> Result<BTreeSet<String>> {
        std::fs::read_dir(&done)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    bed.cluster.wait_until("work to flow", |_| files().is_ok_and(|files| files.len() > 50))?;
    let leader = bed.cluster.wait_leader(GROUP)?;
    let asked = bed.worker()?;
    let next = bed.components.variant("probe", 2)?.display().to_string();

    let waited = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| call(asked, &["deploy", GROUP, &next, "--wait", "--json"]));
        let admitted = |document: &Value| {
            let admitted = document["rollout"]["admitted"].as_array().map_or(0, Vec::len);
            (admitted >= 2 || waiting.is_finished()).then_some(admitted)
        };
        let admitted = bed.wait_document("the middle of the rollout", admitted);
        bed.cluster.node(leader).kill();
        let admitted = admitted?;
        anyhow::ensure!(
            (2..5).contains(&admitted),
            "the leader was to die in the middle, and not with {admitted} admitted"
        );
        waiting.join().map_err(|_| anyhow::anyhow!("the caller has panicked"))?
    })?;
    let out = waited.ok()?;
    let planned: Value = serde_json::from_str(out.lines().next().context("nothing was said")?)?;
    assert_eq!(planned["waves"][4][0], bed.cluster.node(leader).id(), "the leader would have been the last: {planned}");
    let past = bed.wait_end(1)?;
    assert_eq!(past["outcome"], "done", "{past}");
    bed.assert_all_run(planned_digest(&planned)?)?;
    let successor = bed.cluster.wait_successor(GROUP, leader)?;

    let so_far = files()?.len();
    bed.cluster.wait_until("work to flow on", |_| files().is_ok_and(|files| files.len() > so_far + 50))?;
    std::fs::write(done.join("stop"), "")?;
    let called = || bed.cluster.node(successor).group(GROUP).ok()?["callbacks"]["called"].as_u64();
    let then = called().context("no count of callbacks")?;
    bed.cluster.wait_until("the last batch to end", |_| called().is_some_and(|now| now >= then + 2))?;

    let reserved = bed.cluster.node(successor).state(GROUP, "next")?.context("nothing was reserved")?.parse::<u64>()?;
    let mut files = files()?;
    files.remove("stop");
    let missing: Vec<u64> = (0..reserved).filter(|piece| !files.remove(&piece.to_string())).collect();
    assert!(files.is_empty(), "done twice, or by nobody's order: {files:?}");
    let batches: BTreeSet<u64> = missing.iter().map(|piece| piece / BATCH).collect();
    assert!(batches.len() <= 1, "more than what the dead leader had in hand was lost: {missing:?}");
    for node in bed.cluster.nodes().iter().filter(|node| node.is_awake()) {
        assert_eq!(complaints(node), Vec::<String>::new(), "{}", node.id());
        let group = node.group(GROUP)?;
        assert_eq!(group["callbacks"]["failed"], 0, "{}: {group:#}", node.id());
    }

    // Whoever was dead meanwhile takes what the group runs, whatever its manifest names.
    bed.cluster.node(leader).restart()?;
    bed.cluster.wait_ready()?;
    bed.assert_all_run(planned_digest(&planned)?)
}

#[test]
fn no_more_nodes_than_allowed_change_at_once_and_leadership_stays() -> Result<()> {
    let bed = Bed::start(5, |_| String::new())?;
    let leader = bed.leader()?;
    let epoch = leader.group(GROUP)?["epoch"].clone();
    let next = bed.components.variant("probe", 2)?;
    let marks: Vec<usize> = bed.cluster.nodes().iter().map(Node::mark).collect();
    let planned = deploy(leader, &next, &["--canaries", "1", "--max-unavailable", "2"])?;
    let waves: Vec<usize> = planned["waves"]
        .as_array()
        .context("no waves")?
        .iter()
        .filter_map(|wave| Some(wave.as_array()?.len()))
        .collect();
    assert_eq!(waves, [1, 2, 1, 1], "{planned}");
    bed.assert_all_run(planned_digest(&planned)?)?;
    assert_eq!(bed.leader()?.group(GROUP)?["epoch"], epoch, "leadership moved");

    // A node is between releases from its swap to the end of its probation. Whoever swaps before that has ended is in the same wave.
    let mut swaps = Vec::new();
    for (node, mark) in bed.cluster.nodes().iter().zip(marks) {
        let lines = node.logged(mark, |line| line.tells(GROUP, "swapped"));
        assert_eq!(lines.len(), 1, "{}: {lines:?}", node.id());
        swaps.push((stamp(&lines[0])?, node.id().to_owned()));
    }
    swaps.sort();
    let at_once = |from: usize| {
        swaps[from..].iter().take_while(|(at, _)| *at < swaps[from].0 + PROBATION).map(|(_, id)| id).collect::<Vec<_>>()
    };
    let most = (0..swaps.len()).map(at_once).max_by_key(Vec::len).context("no swaps")?;
    assert!(most.len() <= 2, "{most:?} changed at once: {swaps:?}");
    assert_eq!(at_once(0).len(), 1, "the canary is alone: {swaps:?}");
    assert_eq!(swaps.last().map(|(_, id)| id.as_str()), Some(leader.id()), "the leader is the last: {swaps:?}");
    Ok(())
}

/// When a line was written.
fn stamp(line: &Line) -> Result<SystemTime> {
    let text = line.json["timestamp"].as_str().context("a line has no time")?;
    Ok(humantime::parse_rfc3339(text)?)
}

#[test]
fn a_configuration_alone_can_be_rolled_out_and_taken_back() -> Result<()> {
    let bed = Bed::start(2, |_| {
        "config = { \"on-tick\" = \"tell config level\" }\n[group.tick]\nevery = \"50ms\"\n".to_owned()
    })?;
    let leader = bed.leader()?;
    let before = leader.group(GROUP)?["release"].clone();
    let says = |what: &str| {
        let mark = leader.mark();
        leader.wait_log(mark, what, |line| line.guest("tell").is_some_and(|text| text.contains(what))).map(drop)
    };
    says("None")?;
    let setting = ["--config", "on-tick=tell config level", "--config", "level=two", "--wait"];
    let mut arguments = vec!["deploy", GROUP];
    arguments.extend(setting);
    call(leader, &arguments)?.ok()?;
    let after = leader.group(GROUP)?["release"].clone();
    assert_eq!((&after["digest"], after["id"] == before["id"]), (&before["digest"], false), "{after} {before}");
    says("two")?;
    let plan = call(leader, &["deploy", GROUP, "--manifest-config", "--plan"])?.ok()?;
    assert!(plan.contains("config: the manifests' again"), "{plan}");
    call(leader, &["deploy", GROUP, "--manifest-config", "--wait"])?.ok()?;
    says("None")?;
    assert_eq!(leader.group(GROUP)?["release"]["id"], before["id"], "the manifest's release, deployed");
    Ok(())
}

#[test]
fn a_group_of_one_is_rolled_out_too_and_remembers_after_a_restart() -> Result<()> {
    let bed = Bed::start(1, |_| String::new())?;
    let node = bed.leader()?;
    let planned = deploy(node, &bed.components.variant("probe", 2)?, &[])?;
    bed.assert_all_run(planned_digest(&planned)?)?;
    node.restart()?;
    bed.cluster.wait_ready()?;
    bed.assert_all_run(planned_digest(&planned)?)?;
    let settled = |status: Value| status["nodes"][0]["report"]["state"] == "settled";
    bed.cluster.wait_for("the report", PATIENCE, |_| settled(rollout(node).ok()?).then_some(()))
}
