//! The status, for people.

use std::time::Duration;

use bellwether_node::admin::{
    GroupStatus, NodeStatus, Role, SessionState, StatusReply, SwapOutcome, SwapReport, WatchScope,
};

use super::table::Table;
use crate::output::clean;

const OFF: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";

/// The nodes, one below the other.
pub fn status(reply: &StatusReply, color: bool) -> String {
    let pen = Pen { color };
    let mut parts: Vec<_> = reply.nodes.iter().map(|status| node(status, pen)).collect();
    parts.extend(reply.unanswered.iter().map(|node| {
        let head = pen.paint(node.node.as_str(), BOLD);
        format!("{head}  {}\n", pen.paint(&format!("no answer: {}", one_line(&node.reason)), RED))
    }));
    if parts.is_empty() { "no node runs in this process any more\n".to_owned() } else { parts.join("\n") }
}

#[derive(Clone, Copy)]
struct Pen {
    color: bool,
}

impl Pen {
    fn paint(self, text: &str, with: &str) -> String {
        if self.color { format!("{with}{text}{OFF}") } else { text.to_owned() }
    }
}

fn node(status: &NodeStatus, pen: Pen) -> String {
    let mut text = format!(
        "{}  {}  up {}  version {}\n",
        pen.paint(status.node.as_str(), BOLD),
        one_line(&status.address),
        duration(status.uptime_ms),
        one_line(&status.version),
    );
    let session = &status.session;
    let state =
        pen.paint(session.state.as_str(), if session.state == SessionState::Connected { GREEN } else { YELLOW });
    let id = session.id.as_deref().map(|id| format!(" {}", one_line(id))).unwrap_or_default();
    let timeout = session.timeout_ms.map(|ms| format!(", timeout {}", duration_exact(ms))).unwrap_or_default();
    text.push_str(&format!("session{id} {state}{timeout}, {}\n", one_line(&session.coordinator)));
    if let Some(error) = &session.last_error {
        text.push_str(&pen.paint(&format!("  last error: {}\n", one_line(error)), YELLOW));
    }
    if status.groups.is_empty() {
        text.push_str("no groups\n");
        return text;
    }
    let mut table = Table::new(&["GROUP", "ROLE", "EPOCH", "LEADER", "MEMBERS", "RELEASE", "COMPONENT"]);
    for group in &status.groups {
        table.row(row(group));
    }
    let lines = table.lines();
    let (head, rows) = lines.split_first().map_or(("", &[][..]), |(head, rows)| (head.as_str(), rows));
    text.push_str(&format!("{}\n", pen.paint(head, DIM)));
    for (group, line) in status.groups.iter().zip(rows) {
        let with = match group.role {
            Role::Leader => GREEN,
            Role::Worker => "",
            _ => YELLOW,
        };
        let line = if with.is_empty() { line.clone() } else { pen.paint(line, with) };
        text.push_str(&format!("{line}\n"));
        details(&mut text, group, status.uptime_ms, pen);
    }
    text
}

fn row(group: &GroupStatus) -> Vec<String> {
    let dash = || "-".to_owned();
    // Zero would be a claim that a node which does not watch cannot make.
    let watches = group.watch == WatchScope::All || group.role == Role::Leader;
    vec![
        group.name.to_string(),
        group.role.to_string(),
        group.epoch.map_or_else(dash, |epoch| epoch.to_string()),
        group.leader.as_ref().map_or_else(dash, |leader| format!("{} ({})", leader.id, leader.epoch)),
        if watches { group.members.len().to_string() } else { dash() },
        group.release.as_ref().map_or_else(dash, |release| release.id.to_string()),
        group.release.as_ref().map_or_else(dash, |release| release.component.clone()),
    ]
}

fn details(text: &mut String, group: &GroupStatus, now_ms: u64, pen: Pen) {
    let (tasks, calls) = (group.tasks, group.callbacks);
    let counts = format!(
        "  tasks: {} done, {} failed, {} refused, {} in flight; callbacks: {} made, {} failed; restarts: {}\n",
        tasks.done, tasks.failed, tasks.refused, tasks.in_flight, calls.called, calls.failed, calls.restarts
    );
    text.push_str(&pen.paint(&counts, DIM));
    if let Some(report) = &group.last_swap {
        let with = if report.outcome == SwapOutcome::RolledBack { YELLOW } else { DIM };
        let ago = duration(now_ms.saturating_sub(report.at_ms));
        text.push_str(&pen.paint(&format!("  last swap: {}, {ago} ago\n", swap(report)), with));
    }
    if group.probation {
        text.push_str(
            &pen.paint("  the release is on probation: if it fails, the node goes back to the one before\n", YELLOW),
        );
    }
    if let Some(error) = &group.last_error {
        text.push_str(&pen.paint(&format!("  last error: {}\n", one_line(error)), YELLOW));
    }
}

/// A swap that has ended, on one line, with the times of its steps.
pub fn history(report: &SwapReport) -> String {
    let steps: Vec<String> =
        report.steps.iter().map(|step| format!("{} {:.1} ms", step.step, step.took_us as f64 / 1000.0)).collect();
    let by_itself = if report.rollback { "went back by itself: " } else { "" };
    let at = duration(report.at_ms);
    let steps = if steps.is_empty() { String::new() } else { format!(" ({})", steps.join(", ")) };
    format!("{at} after the start: {by_itself}{}{steps}", swap(report))
}

/// A swap, on one line.
pub fn swap(report: &SwapReport) -> String {
    let name = |release: Option<&bellwether_core::id::ReleaseId>| {
        release.map_or_else(|| "nothing".to_owned(), |release| release.short().to_owned())
    };
    if report.outcome == SwapOutcome::Committed && report.from.is_some() && report.from == report.release {
        return format!("{} runs already, nothing was swapped", name(report.release.as_ref()));
    }
    let mut text = format!("{} to {} {}", name(report.from.as_ref()), name(report.release.as_ref()), report.outcome);
    if report.outcome == SwapOutcome::RolledBack {
        let step = report.step.map(|step| format!(" at {step}")).unwrap_or_default();
        let reason = report.reason.as_deref().map(|reason| format!(" ({})", one_line(reason))).unwrap_or_default();
        text.push_str(&format!("{step}{reason}"));
    }
    if report.rollback
        && report.outcome == SwapOutcome::Committed
        && let Some(why) = &report.reason
    {
        text.push_str(&format!(" because {}", one_line(why)));
    }
    if let Some(us) = report.pause_us {
        text.push_str(&format!(", callbacks waited {:.2} ms", us as f64 / 1e3));
    }
    text
}

/// Whole seconds, as "2h 3m 4s".
fn duration(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms / 1000)).to_string()
}

fn duration_exact(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

fn one_line(text: &str) -> String {
    clean(text.trim_end()).replace('\n', " | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> StatusReply {
        serde_json::from_str(include_str!("testdata/status.json")).unwrap()
    }

    #[test]
    fn the_status_looks_like_this() {
        let shown = status(&reply(), false);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/render/testdata/status.txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(path).unwrap(), "BLESS=1 rewrites the expected text");
    }

    #[test]
    fn colours_change_nothing_but_colour() {
        let mut colored = status(&reply(), true);
        assert!(colored.contains('\x1b'));
        while let Some(start) = colored.find('\x1b') {
            let end = start + colored[start..].find('m').unwrap();
            colored.replace_range(start..=end, "");
        }
        assert_eq!(colored, status(&reply(), false));
    }

    #[test]
    fn a_swap_to_the_same_release_says_so() {
        let mut report = reply().nodes[0].groups[0].last_swap.clone().unwrap();
        report.outcome = SwapOutcome::Committed;
        assert_eq!(swap(&report), "0123456789ab to aaaaaaaaaaaa committed, callbacks waited 0.25 ms");
        report.from = report.release.clone();
        assert_eq!(swap(&report), "aaaaaaaaaaaa runs already, nothing was swapped");
    }

    #[test]
    fn an_empty_process_says_so() {
        let none = StatusReply { nodes: vec![], unanswered: vec![] };
        assert_eq!(status(&none, false), "no node runs in this process any more\n");
    }
}
