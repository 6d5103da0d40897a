//! What operators do to a rollout: pause, resume, abort, roll back, plan.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bellwether_tests::cli::binary;
use serde_json::{Value, json};

use crate::bed::{Bed, GROUP, call, deploy, digest, planned_digest, rollout};

fn admitted(document: &Value) -> usize {
    document["rollout"]["admitted"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_rollout_can_be_paused_resumed_and_aborted() -> Result<()> {
    let bed = Bed::start(3, |_| String::new())?;
    let (leader, worker) = (bed.leader()?, bed.worker()?);
    let before = digest(leader)?;
    assert_eq!(call(worker, &["rollout", "pause", GROUP])?.code(), Some(9), "there is nothing to pause");
    let next = bed.components.variant("probe", 2)?.display().to_string();

    call(worker, &["deploy", GROUP, &next])?.ok()?;
    bed.wait_document("the canary", |document| (admitted(document) == 1).then_some(()))?;
    call(worker, &["rollout", "pause", GROUP])?.ok()?;
    let document = bed.document()?;
    let canary = document["rollout"]["admitted"][0].as_str().context("no canary")?.to_owned();
    bed.cluster.wait_for("the canary to settle", crate::bed::PATIENCE, |_| {
        (bed.told(leader, &canary).ok()?["report"]["state"] == "settled").then_some(())
    })?;
    // Nothing happens as long as it is paused: for a while that would do for two further waves, at the pace that was seen.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let document = bed.document()?;
        assert_eq!((admitted(&document), &document["rollout"]["phase"]), (1, &json!("paused")), "{document}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let other = call(leader, &["deploy", GROUP, &bed.components.variant("probe", 3)?.display().to_string()])?;
    assert_eq!(other.code(), Some(9), "one rollout at a time: {}", other.stderr);
    assert_eq!(call(leader, &["rollout", "pause", GROUP])?.code(), Some(9), "it is paused already");

    let ran = call(leader, &["rollout", "abort", GROUP, "--wait"])?;
    assert_eq!(ran.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(bed.wait_end(1)?["outcome"], json!({"aborted": {"by": "ada"}}));
    bed.assert_all_run(&before)?;

    // The same release again, as it did not fail: paused at once, and let go.
    call(worker, &["deploy", GROUP, &next])?.ok()?;
    call(worker, &["rollout", "pause", GROUP])?.ok()?;
    let ran = call(worker, &["rollout", "resume", GROUP, "--wait"])?;
    assert_eq!(ran.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    let past = bed.wait_end(2)?;
    assert_eq!(past["outcome"], "done", "{past}");
    bed.assert_all_run(past["wanted"]["component"]["digest"].as_str().context("no digest")?)
}

#[test]
fn who_waits_for_a_release_is_told_that_it_was_aborted() -> Result<()> {
    let bed = Bed::start(3, |_| String::new())?;
    let (leader, worker) = (bed.leader()?, bed.worker()?);
    let next = bed.components.variant("probe", 2)?.display().to_string();
    let waited = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| call(leader, &["deploy", GROUP, &next, "--wait"]));
        let begun = bed.wait_document("the canary", |document| (admitted(document) > 0).then_some(()));
        let aborted = begun.and_then(|()| call(worker, &["rollout", "abort", GROUP])?.ok());
        let waited = waiting.join().map_err(|_| anyhow::anyhow!("the caller has panicked"))?;
        aborted.and(waited)
    })?;
    assert_eq!(waited.code(), Some(10), "{}{}", waited.stdout, waited.stderr);
    assert!(waited.stderr.contains("aborted by ada"), "{}", waited.stderr);
    Ok(())
}

#[test]
fn a_rollout_is_a_bar_on_a_terminal_and_lines_elsewhere() -> Result<()> {
    let bed = Bed::start(2, |_| String::new())?;
    let leader = bed.leader()?;
    let next = bed.components.variant("probe", 2)?.display().to_string();
    let lines = call(leader, &["deploy", GROUP, &next, "--wait"])?.ok()?;
    assert!(lines.contains(&format!("\n{} runs release 1\n", leader.id())) && !lines.contains('\x1b'), "{lines:?}");

    let next = bed.components.variant("probe", 3)?.display().to_string();
    let command = format!("{} deploy {GROUP} {next} --wait", binary().display());
    let on_terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("BELLWETHER_ADMIN", leader.admin())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()?;
    let shown = String::from_utf8_lossy(&on_terminal.stdout);
    assert!(on_terminal.status.success(), "{shown}");
    for part in ["release 2 [", "/2 nodes", "\x1b["] {
        assert!(shown.contains(part), "{part:?} is not in {shown:?}");
    }
    Ok(())
}

#[test]
fn an_earlier_release_can_be_rolled_out_again() -> Result<()> {
    let bed = Bed::start(2, |_| String::new())?;
    let leader = bed.leader()?;
    let epoch = leader.group(GROUP)?["epoch"].clone();
    let none = call(leader, &["rollback", GROUP])?;
    assert_eq!(none.code(), Some(9), "there is no earlier release: {}", none.stderr);
    let first = deploy(leader, &bed.components.variant("probe", 2)?, &[])?;
    let second = deploy(leader, &bed.components.variant("probe", 3)?, &[])?;
    bed.assert_all_run(planned_digest(&second)?)?;

    let unknown = call(leader, &["rollback", GROUP, "--to", "7"])?;
    assert_eq!(unknown.code(), Some(9), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("there are 1, 2"), "{}", unknown.stderr);
    let ran = call(leader, &["rollback", GROUP, "--to", "1", "--wait", "--json"])?.ok()?;
    let back: Value = serde_json::from_str(ran.lines().next().context("nothing was said")?)?;
    assert_eq!((&back["to"]["number"], &back["to"]["repeats"]), (&json!(3), &json!(1)), "{back}");
    bed.assert_all_run(planned_digest(&first)?)?;
    // Without a number: what ran before.
    call(bed.worker()?, &["rollback", GROUP, "--wait"])?.ok()?;
    bed.assert_all_run(planned_digest(&second)?)?;
    assert_eq!(leader.group(GROUP)?["epoch"], epoch, "leadership moved");
    let history = call(leader, &["history", GROUP, "--json"])?.json()?;
    let numbers: Vec<_> =
        history[0]["releases"].as_array().context("no releases")?.iter().map(|past| past["number"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    Ok(())
}

#[test]
fn a_plan_writes_nothing_and_what_runs_already_is_refused() -> Result<()> {
    let bed = Bed::start(3, |_| String::new())?;
    let leader = bed.leader()?;
    let before = bed.release()?;
    let next = bed.components.variant("probe", 2)?;
    let text = next.display().to_string();
    let plan = call(leader, &["deploy", GROUP, &text, "--plan"])?.ok()?;
    for part in
        ["release 1 would be rolled out", "wave 3", &format!("{} (the leader)", leader.id()), "nothing was written"]
    {
        assert!(plan.contains(part), "{part:?} is not in\n{plan}");
    }
    assert_eq!(bed.release()?, before, "a plan was written");
    assert_eq!(bed.znodes.below(&format!("/bellwether/{GROUP}/running"))?.len(), 0, "nobody reports yet");

    let planned = deploy(leader, &next, &[])?;
    let after = bed.release()?;
    for arguments in [&["deploy", GROUP, &text][..], &["deploy", GROUP], &["deploy", GROUP, &text, "--plan"]] {
        let ran = call(leader, arguments)?;
        assert_eq!(ran.code(), Some(9), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("runs this release already, as number 1"), "{}", ran.stderr);
    }
    assert_eq!(bed.release()?, after, "what was refused was written");
    assert_eq!(rollout(bed.worker()?)?["document"]["current"]["number"], planned["to"]["number"]);

    // One node cannot leave the group's release by itself.
    let swap = call(leader, &["swap", GROUP, &bed.components.variant("probe", 3)?.display().to_string()])?;
    assert_eq!(swap.code(), Some(9), "{}{}", swap.stdout, swap.stderr);
    assert!(swap.stderr.contains("deploy"), "it says what to do instead: {}", swap.stderr);
    bed.assert_all_run(planned_digest(&planned)?)
}
