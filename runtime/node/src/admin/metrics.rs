//! The status in Prometheus' text format.

use std::fmt::Write as _;

use super::status::{GroupStatus, NodeStatus, Role, SessionState};

/// The content type of the text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One labelled value.
struct Sample<'a> {
    labels: Vec<(&'static str, &'a str)>,
    value: f64,
}

/// Renders the metrics of these nodes.
pub(super) fn render(nodes: &[NodeStatus]) -> String {
    let mut text = String::new();
    node_metrics(&mut text, nodes);
    group_metrics(&mut text, nodes);
    text
}

fn node_metrics(text: &mut String, nodes: &[NodeStatus]) {
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&NodeStatus) -> f64| {
        let samples =
            nodes.iter().map(|node| Sample { labels: vec![("node", node.node.as_str())], value: value(node) });
        write_family(text, name, kind, help, samples);
    };
    family("bellwether_uptime_seconds", "gauge", "Time since the node's start.", &|node| seconds_of_ms(node.uptime_ms));
    family("bellwether_session_connected", "gauge", "1 while the coordinator answers.", &|node| {
        flag(node.session.state == SessionState::Connected)
    });
    family("bellwether_ready", "gauge", "1 while the node is registered, or leads, in every group.", &|node| {
        flag(node.is_ready())
    });
    let info = nodes.iter().map(|node| Sample {
        labels: vec![("node", node.node.as_str()), ("version", node.version.as_str())],
        value: 1.0,
    });
    write_family(text, "bellwether_info", "gauge", "The node's version, as a label.", info);
}

fn group_metrics(text: &mut String, nodes: &[NodeStatus]) {
    let groups = || nodes.iter().flat_map(|node| node.groups.iter().map(move |group| (node, group)));
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&GroupStatus) -> Option<f64>| {
        let samples = groups().filter_map(|(node, group)| {
            let labels = vec![("node", node.node.as_str()), ("group", group.name.as_str())];
            Some(Sample { labels, value: value(group)? })
        });
        write_family(text, name, kind, help, samples);
    };
    family("bellwether_leading", "gauge", "1 while the node leads the group.", &|group| {
        Some(flag(group.role == Role::Leader))
    });
    family("bellwether_registered", "gauge", "1 while the node is registered in the group, or leads it.", &|group| {
        Some(flag(group.is_ready()))
    });
    family("bellwether_epoch", "gauge", "The epoch of the last leader that the node knows of.", &|group| {
        group.epoch.or_else(|| group.leader.as_ref().map(|leader| leader.epoch)).map(|epoch| epoch.0 as f64)
    });
    family("bellwether_members", "gauge", "The workers that the node knows of.", &|group| {
        Some(group.members.len() as f64)
    });
    family("bellwether_tasks_in_flight", "gauge", "Tasks being done or waiting.", &|group| {
        Some(group.tasks.in_flight as f64)
    });
    family("bellwether_callbacks_total", "counter", "Callbacks made.", &|group| Some(group.callbacks.called as f64));
    family("bellwether_callbacks_failed_total", "counter", "Callbacks that failed.", &|group| {
        Some(group.callbacks.failed as f64)
    });
    family("bellwether_restarts_total", "counter", "Instances replaced because they failed.", &|group| {
        Some(group.callbacks.restarts as f64)
    });
    family("bellwether_last_swap_pause_seconds", "gauge", "For how long the last swap held callbacks up.", &|group| {
        group.last_swap.as_ref().and_then(|swap| swap.pause_us).map(|us| us as f64 / 1e6)
    });

    let releases = groups().filter_map(|(node, group)| {
        group.release.as_ref().map(|release| Sample {
            labels: vec![("node", node.node.as_str()), ("group", group.name.as_str()), ("release", &*release.id.0)],
            value: 1.0,
        })
    });
    write_family(text, "bellwether_release_info", "gauge", "What the group runs, as a label.", releases);
    let tasks = groups().flat_map(|(node, group)| {
        let counts = [("done", group.tasks.done), ("failed", group.tasks.failed), ("refused", group.tasks.refused)];
        counts.map(|(result, count)| Sample {
            labels: vec![("node", node.node.as_str()), ("group", group.name.as_str()), ("result", result)],
            value: count as f64,
        })
    });
    write_family(text, "bellwether_tasks_total", "counter", "Tasks that ended, by their result.", tasks);
}

fn write_family<'a>(text: &mut String, name: &str, kind: &str, help: &str, samples: impl Iterator<Item = Sample<'a>>) {
    // Writing to a String cannot fail.
    let mut samples = samples.peekable();
    if samples.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for sample in samples {
        let labels: Vec<_> = sample.labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let _ = writeln!(text, "{name}{{{}}} {}", labels.join(","), sample.value);
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

fn seconds_of_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let mut text = String::new();
        let sample = Sample { labels: vec![("a", "x\"} 1\nb\\")], value: 2.5 };
        write_family(&mut text, "n", "gauge", "h", std::iter::once(sample));
        assert_eq!(text, "# HELP n h\n# TYPE n gauge\nn{a=\"x\\\"} 1\\nb\\\\\"} 2.5\n");
    }

    #[test]
    fn a_family_without_samples_is_left_out() {
        let mut text = String::new();
        write_family(&mut text, "n", "gauge", "h", std::iter::empty());
        assert_eq!(text, "");
    }
}
