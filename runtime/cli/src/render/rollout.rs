//! Rollouts and releases of a group, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellwether_core::release::{Numbered, Outcome, Past, Phase, Policy, Staging, Wanted};
use bellwether_node::admin::{Planned, RolloutStatus, differences};

use super::table::Table;
use crate::output::clean;

/// Text from elsewhere, on one line.
pub fn one_line(text: &str) -> String {
    clean(text.trim_end()).replace('\n', " | ")
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A release, on one line.
pub fn release(release: &Numbered) -> String {
    let wanted = &release.wanted;
    let repeats = release.repeats.map(|number| format!(", repeats {number}")).unwrap_or_default();
    format!("{}{repeats}: {}", release.number, parts(wanted))
}

fn parts(wanted: &Wanted) -> String {
    let component = |artifact: &bellwether_core::release::Artifact| {
        format!("{} ({})", one_line(&artifact.reference), short(&artifact.digest))
    };
    let mut text = component(&wanted.component);
    if let Some(worker) = &wanted.worker {
        text.push_str(&format!(", tasks by {}", component(worker)));
    }
    match wanted.config.as_ref().map(std::collections::BTreeMap::len) {
        None => {}
        Some(1) => text.push_str(", 1 setting"),
        Some(settings) => text.push_str(&format!(", {settings} settings")),
    }
    text
}

fn when(at: u64) -> String {
    let at =
        UNIX_EPOCH.checked_add(Duration::from_secs(at)).filter(|at| *at < UNIX_EPOCH + Duration::from_secs(1 << 37));
    at.map_or_else(
        || "at an unknown time".to_owned(),
        |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string(),
    )
}

fn who(release: &Numbered) -> String {
    format!("by {} at {}", one_line(&release.by), when(release.at))
}

/// How a rollout has ended.
pub fn ended(number: u64, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => format!("release {number} runs on every node"),
        Outcome::Failed { reason } => {
            format!("release {number} failed, and the group runs the release before: {}", one_line(reason))
        }
        Outcome::Aborted { by } => {
            format!("release {number} was aborted by {}, and the group runs the release before", one_line(by))
        }
    }
}

/// A release that was deployed, and what became of it.
pub fn past(past: &Past) -> String {
    let outcome = match &past.outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Failed { reason } => format!("failed ({})", one_line(reason)),
        Outcome::Aborted { by } => format!("aborted by {}", one_line(by)),
    };
    format!("{}; {outcome}; {}", release(&past.release), who(&past.release))
}

fn policy(policy: &Policy) -> String {
    let settle = match policy.settle {
        Duration::ZERO => "the end of its probation".to_owned(),
        settle => format!("{} of good health", humantime::format_duration(settle)),
    };
    format!(
        "{} first, then {} at a time; each wave waits for {settle}; a node has {}; if one fails: {}",
        policy.canaries,
        policy.max_unavailable,
        humantime::format_duration(policy.patience),
        match policy.on_failure {
            bellwether_core::release::OnFailure::Back => "go back",
            bellwether_core::release::OnFailure::Halt => "halt",
        }
    )
}

/// A rollout that has begun, or would.
pub fn planned(group: &str, planned: &Planned) -> String {
    let current = planned.current.as_ref();
    let verb = if planned.plan { "would be" } else { "is being" };
    let mut text = format!("{group}: release {} {verb} rolled out\n", planned.to.number);
    text.push_str(&format!("  from     {}\n", current.map_or_else(|| "each node's manifest".to_owned(), release)));
    text.push_str(&format!("  to       {}\n", release(&planned.to)));
    let changes = differences(current.map(|current| &current.wanted), &planned.to.wanted);
    text.push_str(&format!("  changes  {}\n", one_line(&changes.join(", "))));
    text.push_str(&format!("  policy   {}\n", policy(&planned.policy)));
    for (n, wave) in planned.waves.iter().enumerate() {
        let nodes: Vec<String> =
            wave.iter()
                .map(|node| {
                    if planned.leader.as_ref() == Some(node) {
                        format!("{node} (the leader)")
                    } else {
                        node.to_string()
                    }
                })
                .collect();
        text.push_str(&format!("  wave {:<3} {}\n", n + 1, nodes.join(", ")));
    }
    if planned.plan {
        text.push_str("  nothing was written\n");
    }
    text
}

/// What a group runs as a whole.
pub fn status(group: &str, status: &RolloutStatus) -> String {
    let document = &status.document;
    let current = document.current.as_ref();
    let runs = current.map_or_else(|| "each node's manifest's release".to_owned(), release);
    let mut text = format!("{group} runs {runs}\n");
    match &document.rollout {
        None => text.push_str("no rollout is under way\n"),
        Some(rollout) => {
            let why = match &rollout.phase {
                Phase::Back { reason } | Phase::Halted { reason } => format!(": {}", one_line(reason)),
                Phase::Running | Phase::Paused => String::new(),
            };
            text.push_str(&format!(
                "the rollout of {} is {}; {}\n",
                release(&rollout.to),
                rollout.phase.name(),
                who(&rollout.to)
            ));
            if !why.is_empty() {
                text.push_str(&format!("  because{why}\n"));
            }
            text.push_str(&format!("  policy: {}\n", policy(&rollout.policy)));
        }
    }
    if let Some(last) = document.history.last() {
        text.push_str(&format!("last rollout: {}\n", past(last)));
    }
    let mut table = Table::new(&["NODE", "ROLE", "SHALL RUN", "RUNS", "STATE", "COMPONENT"]);
    let number = |number: Option<u64>| number.map_or_else(|| "manifest".to_owned(), |number| number.to_string());
    for node in &status.nodes {
        let role = if status.leader.as_ref() == Some(&node.node) { "leader" } else { "worker" };
        let report = node.report.as_ref();
        let state = match report.map(|report| &report.state) {
            None => "-".to_owned(),
            Some(Staging::Staging) => "staging".to_owned(),
            Some(Staging::Proving) => "on probation".to_owned(),
            Some(Staging::Settled) => "settled".to_owned(),
            Some(Staging::Failed { number, reason }) => format!("failed {number}: {}", one_line(reason)),
        };
        table.row([
            node.node.to_string(),
            role.to_owned(),
            number(node.target),
            report.map_or_else(|| "-".to_owned(), |report| number(report.running)),
            state,
            report.map_or_else(|| "-".to_owned(), |report| short(&report.digest).to_owned()),
        ]);
    }
    text.push_str(&table.lines().join("\n"));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use bellwether_core::id::NodeId;
    use bellwether_core::release::{Artifact, Document, Report};
    use bellwether_node::admin::NodeReport;

    use super::*;

    fn wanted(digest: &str, config: Option<&str>) -> Wanted {
        let component = Artifact { reference: format!("file:/srv/{digest}.wasm"), digest: digest.repeat(16) };
        let config = config.map(|value| BTreeMap::from([("level".to_owned(), value.to_owned())]));
        Wanted { component, worker: None, config }
    }

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn document() -> Document {
        let first = Document::default().deploy(wanted("aaaa", None), Policy::default(), "ada".into(), 1_700_000_000);
        let first = first.unwrap().end(&BTreeSet::new());
        let next = first.deploy(wanted("aaaa", Some("hidden")), Policy::default(), "bob\x1b".into(), 1_700_000_100);
        next.unwrap().admit([node("n1")].into(), BTreeSet::new())
    }

    #[test]
    fn a_plan_says_what_changes_where_and_in_which_order() {
        let document = document();
        let plan = Planned {
            plan: true,
            current: document.current.clone(),
            to: document.rollout.unwrap().to,
            policy: Policy::default(),
            waves: vec![vec![node("n1")], vec![node("n2")]],
            leader: Some(node("n2")),
        };
        let expected = "\
g: release 2 would be rolled out
  from     1: file:/srv/aaaa.wasm (aaaaaaaaaaaa)
  to       2: file:/srv/aaaa.wasm (aaaaaaaaaaaa), 1 setting
  changes  config: 1 setting in place of the manifests'
  policy   1 first, then 1 at a time; each wave waits for the end of its probation; a node has 5m; if one fails: go back
  wave 1   n1
  wave 2   n2 (the leader)
  nothing was written
";
        assert_eq!(planned("g", &plan), expected);
    }

    #[test]
    fn the_status_says_what_runs_what_comes_and_how_far_each_node_is() {
        let document = document().fail(node("n1"), "on-tick trapped:\n\x1b[2Jboom".into());
        let report = Report {
            running: Some(1),
            release: "r".into(),
            digest: "a".repeat(64),
            state: Staging::Failed { number: 2, reason: "on-tick trapped".into() },
            address: "h:1".into(),
        };
        let nodes = vec![
            NodeReport { node: node("n1"), target: Some(1), report: Some(report) },
            NodeReport { node: node("n2"), target: Some(1), report: None },
        ];
        let shown = status("g", &RolloutStatus { document, nodes, leader: Some(node("n2")) });
        let expected = "\
g runs 1: file:/srv/aaaa.wasm (aaaaaaaaaaaa)
the rollout of 2: file:/srv/aaaa.wasm (aaaaaaaaaaaa), 1 setting is going back; by bob\\u{1b} at 2023-11-14T22:15:00Z
  because: n1: on-tick trapped: | \\u{1b}[2Jboom
  policy: 1 first, then 1 at a time; each wave waits for the end of its probation; a node has 5m; if one fails: go back
last rollout: 1: file:/srv/aaaa.wasm (aaaaaaaaaaaa); done; by ada at 2023-11-14T22:13:20Z
NODE  ROLE    SHALL RUN  RUNS  STATE                      COMPONENT
n1    worker  1          1     failed 2: on-tick trapped  aaaaaaaaaaaa
n2    leader  1          -     -                          -
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn any_time_can_be_shown() {
        assert_eq!(when(0), "1970-01-01T00:00:00Z");
        assert_eq!(when(u64::MAX), "at an unknown time");
    }
}
