//! Guests that misbehave, in a callback and in a task, each on a real node beside a healthy group: the node keeps its session, the
//! other group goes on, the admin API answers, and the error names what happened.

use std::net::TcpListener;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Cluster, Line, Node, PATIENCE};
use bellwether_tests::guests::guest;
use bellwether_tests::measure::{Figures, print};
use bellwether_tests::zookeeper::Server;
use serde_json::Value;

/// The group whose guest misbehaves, and the healthy one.
const BAD: &str = "bad";
const GOOD: &str = "good";
/// How often the guest must misbehave while the node is watched.
const TIMES: u64 = 5;
/// How many ticks of the healthy group must be called meanwhile.
const TICKS: u64 = 50;

/// One ZooKeeper for all tests of this file, each with a root of its own. It ends with the test process.
fn zookeeper() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start().unwrap_or_else(|error| panic!("{error:#}")))
}

/// What a node must keep while a guest of its misbehaves.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    session: Option<String>,
    connected: bool,
    role: Option<String>,
    epoch: Option<u64>,
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(ToOwned::to_owned)
}

fn of<'a>(status: &'a Value, name: &str) -> Result<&'a Value> {
    let found = status["groups"].as_array().into_iter().flatten().find(|group| group["name"] == name);
    found.with_context(|| format!("no group {name} in {status}"))
}

fn kept(node: &Node) -> Result<Kept> {
    let status = node.status()?;
    let good = of(&status, GOOD)?;
    Ok(Kept {
        session: text(&status["session"]["id"]),
        connected: status["session"]["state"] == "connected",
        role: text(&good["role"]),
        epoch: good["epoch"].as_u64(),
    })
}

/// Waits until the guest has misbehaved again and again, by what `misdeeds` counts, and the healthy group ticked all the while; then
/// looks at what the node has kept. Every look is an answer of the admin API.
fn unharmed(cluster: &Cluster, node: &Node, misdeeds: impl Fn(&Node) -> u64) -> Result<()> {
    cluster.wait_until("the guest to misbehave", |_| misdeeds(node) > 0)?;
    let called = || node.group(GOOD).ok()?["callbacks"]["called"].as_u64();
    let (before, done) = (kept(node)?, misdeeds(node));
    let ticks = called().context("no count of callbacks")?;
    ensure!(before.connected && before.session.is_some(), "{before:?}");
    let mut answers = Figures::default();
    cluster.wait_for("more misdeeds, and ticks of the healthy group", PATIENCE, |_| {
        let asked = Instant::now();
        let ticked = called()? >= ticks + TICKS;
        answers.push(asked.elapsed());
        (ticked && misdeeds(node) >= done + TIMES).then_some(())
    })?;
    assert_eq!(kept(node)?, before, "the node lost something by it");
    let healthy = node.group(GOOD)?;
    assert_eq!(
        (&healthy["callbacks"]["failed"], &healthy["last_error"]),
        (&Value::from(0), &Value::Null),
        "{healthy:#}"
    );
    let lost = node.logged(0, |line| line.tells(GOOD, "demoting") || line.tells(GOOD, "guest-failed"));
    assert!(lost.is_empty(), "{lost:#?}");
    print(format_args!("the admin API answered: {answers}"));
    Ok(())
}

/// The healthy group: it ticks on every node.
const HEALTHY: &str = "[group.tick]\nevery = \"20ms\"\nwhen = \"always\"\n";

fn cluster(name: &str, nodes: usize, bad: &str) -> Result<Cluster> {
    Cluster::builder(zookeeper().address())
        .nodes(nodes)
        .root(&format!("/{name}"))
        .session_timeout(Duration::from_secs(6))
        .group(BAD, guest("probe"), bad)
        .group(GOOD, guest("probe"), HEALTHY)
        .start()
}

/// One node that leads both groups; the guest of the one follows `order` in each tick. Failures are many here: the node shall go on
/// with the guest, not give leadership up.
fn in_callbacks(name: &str, order: &str, within: &str, grants: &str) -> Result<Cluster> {
    let bad = format!(
        "[group.config]\non-tick = {order:?}\n[group.tick]\nevery = \"20ms\"\n[group.limits]\ncallback = \"{within}\"\n\
         memory = \"16MiB\"\nlog = \"4KiB\"\n[group.on_failure]\nrestarts = 1000\nbackoff = \"10ms\"\nbackoff_max = \"50ms\"\n\
         {grants}"
    );
    let cluster = cluster(&format!("callback-{name}"), 1, &bad)?;
    cluster.wait_leader(GOOD)?;
    Ok(cluster)
}

/// The guest fails in its ticks, and the status says how, in all of these words.
fn fails_in_callbacks(name: &str, order: &str, grants: &str, words: &[&str]) -> Result<()> {
    let cluster = in_callbacks(name, order, "300ms", grants)?;
    let node = cluster.node(0);
    unharmed(&cluster, node, |node| {
        node.group(BAD).ok().and_then(|group| group["callbacks"]["failed"].as_u64()).unwrap_or_default()
    })?;
    let bad = node.group(BAD)?;
    let error = bad["last_error"].as_str().context("the status has no error")?;
    assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not all in {error:?}");
    assert!(bad["callbacks"]["restarts"].as_u64() >= Some(TIMES), "fresh instances were to follow: {bad:#}");
    let logged = node
        .logged(0, |line| line.tells(BAD, "guest-failed") && words.iter().all(|word| line.message().contains(word)));
    assert!(!logged.is_empty(), "the log does not name what happened");
    Ok(())
}

/// Two nodes; the leader of the bad group has the other one follow `order` in tasks. Gives the cluster, the worker and the leader.
fn in_tasks(name: &str, order: &str, within: &str, grants: &str) -> Result<(Cluster, usize, usize)> {
    let bad = format!(
        "[group.config]\non-tick = {:?}\n[group.tick]\nevery = \"20ms\"\n[group.limits]\ncallback = \"60s\"\ntask = \"{within}\"\n\
         memory = \"16MiB\"\nlog = \"4KiB\"\n{grants}",
        format!("tell each 30000 {order}")
    );
    let cluster = cluster(&format!("task-{name}"), 2, &bad)?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader(BAD)?;
    Ok((cluster, 1 - leader, leader))
}

/// The guest fails in tasks, and the leader's guest is told how, in all of these words.
fn fails_in_tasks(name: &str, order: &str, grants: &str, words: &[&str]) -> Result<()> {
    let (cluster, worker, leader) = in_tasks(name, order, "300ms", grants)?;
    unharmed(&cluster, cluster.node(worker), |node| {
        node.group(BAD).ok().and_then(|group| group["tasks"]["failed"].as_u64()).unwrap_or_default()
    })?;
    let told = |line: &Line| line.guest("tell").is_some_and(|text| words.iter().all(|word| text.contains(word)));
    cluster.node(leader).wait_log(0, &format!("an answer with {words:?}"), told)?;
    Ok(())
}

/// How often the runtime cut a flood of log lines.
fn floods(node: &Node, part: &str) -> u64 {
    let cut = |line: &Line| {
        let text = line.guest("runtime").unwrap_or_default();
        line.json["fields"]["part"] == part
            && text.contains("more log lines")
            && text.contains("`log` under [group.limits]")
    };
    node.logged(0, cut).len() as u64
}

/// An address where connections are taken and never answered, and the grant to connect to it. It lasts as long as the listener.
fn silent() -> Result<(TcpListener, String, String)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let grants = format!("[group.grants]\nconnect = [{address:?}]\n");
    Ok((listener, address, grants))
}

#[test]
fn a_callback_that_loops_is_stopped() -> Result<()> {
    fails_in_callbacks("loop", "loop", "", &["on-tick did not return within 300 ms"])
}

#[test]
fn a_callback_that_traps_is_named_with_its_reason() -> Result<()> {
    fails_in_callbacks("trap", "panic the moon is full", "", &["on-tick trapped", "the moon is full"])?;
    fails_in_callbacks("recursion", "recurse 0", "", &["on-tick trapped", "stack"])
}

#[test]
fn a_callback_that_exhausts_memory_meets_its_limit() -> Result<()> {
    fails_in_callbacks("memory", "allocate", "", &["on-tick went over its limit", "memory", "16 MiB"])
}

#[test]
fn a_callback_that_floods_the_log_is_cut_short() -> Result<()> {
    let cluster = in_callbacks("flood", "flood 5000", "30s", "")?;
    let node = cluster.node(0);
    unharmed(&cluster, node, |node| floods(node, "callbacks"))?;
    // A flood is no failure: the guest goes on, and leads.
    let bad = node.group(BAD)?;
    assert_eq!((&bad["callbacks"]["failed"], &bad["role"]), (&Value::from(0), &Value::from("leader")), "{bad:#}");
    Ok(())
}

#[test]
fn a_callback_that_blocks_in_a_host_call_is_stopped() -> Result<()> {
    fails_in_callbacks("sleep", "sleep 3600000", "", &["on-tick did not return within 300 ms"])?;
    let (_listener, address, grants) = silent()?;
    fails_in_callbacks("connect", &format!("connect {address}"), &grants, &["on-tick did not return within 300 ms"])
}

#[test]
fn a_task_that_loops_is_stopped() -> Result<()> {
    fails_in_tasks("loop", "loop", "", &["Failed", "did not return within 300 ms"])
}

#[test]
fn a_task_that_traps_is_named_with_its_reason() -> Result<()> {
    fails_in_tasks("trap", "panic the moon is full", "", &["Failed", "trapped", "the moon is full"])?;
    fails_in_tasks("recursion", "recurse 0", "", &["Failed", "trapped", "stack"])
}

#[test]
fn a_task_that_exhausts_memory_meets_its_limit() -> Result<()> {
    fails_in_tasks("memory", "allocate", "", &["Failed", "over its limit", "memory", "16 MiB"])
}

#[test]
fn a_task_that_floods_the_log_is_cut_short() -> Result<()> {
    let (cluster, worker, _) = in_tasks("flood", "flood 5000", "30s", "")?;
    let node = cluster.node(worker);
    unharmed(&cluster, node, |node| floods(node, "tasks"))?;
    let tasks = &node.group(BAD)?["tasks"];
    assert!(tasks["failed"] == 0 && tasks["done"].as_u64() >= Some(TIMES), "a flood is no failure: {tasks}");
    Ok(())
}

#[test]
fn a_task_that_blocks_in_a_host_call_is_stopped() -> Result<()> {
    fails_in_tasks("sleep", "sleep 3600000", "", &["Failed", "did not return within 300 ms"])?;
    let (_listener, address, grants) = silent()?;
    fails_in_tasks("connect", &format!("connect {address}"), &grants, &["Failed", "did not return within 300 ms"])
}
