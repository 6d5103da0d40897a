//! The probe's load, as its leader writes it down (`guests/testing/probe/src/load.rs`), and swaps while it flows.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Node};

/// What the leader writes down after each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Batches that ended.
    pub batches: u64,
    /// Pieces handed out.
    pub issued: u64,
    /// Pieces that a worker says it has done.
    pub answered: u64,
    /// Pieces that came back with an error.
    pub failed: u64,
    /// The term in which this was written.
    pub epoch: u64,
}

impl Tally {
    /// The last that was written; none before the first.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn read(node: &Node, group: &str) -> Result<Option<Self>> {
        let Some(text) = node.state(group, "load")? else { return Ok(None) };
        let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [batches, issued, answered, failed, epoch] = numbers[..] else {
            anyhow::bail!("the leader's counts are {text:?}");
        };
        Ok(Some(Self { batches, issued, answered, failed, epoch }))
    }

    /// Waits for one with more batches.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn beyond(cluster: &Cluster, node: &Node, group: &str, batches: u64) -> Result<Self> {
        cluster.wait_for("tasks to flow", Duration::from_secs(60), |_| {
            Self::read(node, group).ok().flatten().filter(|tally| tally.batches > batches)
        })
    }
}

/// Asks for a swap by the admin API, and waits for the report: of one that was committed or rolled back.
///
/// # Errors
/// When there is none.
pub fn swap(node: &Node, group: &str, component: Option<&Path>, config: &[(&str, &str)]) -> Result<Value> {
    let config: serde_json::Map<String, Value> =
        config.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let request = match component {
        Some(component) => json!({ "component": component, "config": config }),
        None => json!({ "config": config }),
    };
    let path = format!("/v1/nodes/{}/groups/{group}/swap", node.id());
    let (code, body) = node.http("POST", &path, &request.to_string())?;
    let answer: Value = serde_json::from_str(&body)?;
    let report = if code == 200 { answer } else { answer["error"]["report"].clone() };
    ensure!(report.is_object(), "{} has no report: {code} {body}", node.id());
    Ok(report)
}

/// Swaps to another release, which must take over; gives the pause of callbacks that the node reports.
///
/// # Errors
/// When it does not.
pub fn swapped(node: &Node, group: &str, component: Option<&Path>, config: &[(&str, &str)]) -> Result<Duration> {
    let report = swap(node, group, component, config)?;
    ensure!(report["outcome"] == "committed" && report["release"] != report["from"], "{}: {report}", node.id());
    let pause = report["pause_us"].as_u64().with_context(|| format!("{}: no pause in {report}", node.id()))?;
    Ok(Duration::from_micros(pause))
}

/// The sessions of all nodes.
///
/// # Errors
/// When one has none.
pub fn sessions(cluster: &Cluster) -> Result<Vec<String>> {
    let id = |node: &Node| Ok(node.status()?["session"]["id"].as_str().context("no session")?.to_owned());
    cluster.nodes().iter().map(id).collect()
}
