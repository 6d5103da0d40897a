//! Components are compiled in a process of their own, which is not the node's end when it goes wrong, and ends with the node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Cluster, Node};
use bellwether_tests::components::too_much_for_the_compiler;
use bellwether_tests::guests::{guest, guest_bytes};
use bellwether_tests::load::swap;
use bellwether_tests::zookeeper::Server;
use rustix::process::{Pid, Signal, kill_process};

/// The compiler's process, while a node has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Compiler(i32);

impl Compiler {
    fn of(node: &Node) -> Option<Self> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", node.pid().ok()?)).ok()?.flatten();
        let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<i32> =
            children.flat_map(|text| text.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
        // Once it has confined itself.
        children.into_iter().map(Self).find(|child| child.read("oom_score_adj").is_ok_and(|text| text.trim() == "1000"))
    }

    fn read(self, file: &str) -> Result<String> {
        Ok(std::fs::read_to_string(Path::new("/proc").join(self.0.to_string()).join(file))?)
    }

    fn signal(self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_raw(self.0).context("no process")?, signal)?)
    }

    /// Whether it is there, and not only its remains.
    fn runs(self) -> bool {
        self.read("stat").is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
    }

    /// How far it stands back for others.
    fn nice(self) -> Result<i32> {
        nice(&self.read("stat")?)
    }

    /// What the kernel holds it to.
    fn limit(self, name: &str) -> Result<String> {
        let limits = self.read("limits")?;
        let line =
            limits.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}: {limits}"))?;
        Ok(line[name.len()..].split_whitespace().next().unwrap_or_default().to_owned())
    }
}

/// How far a process or thread stands back, by its `stat`.
fn nice(stat: &str) -> Result<i32> {
    let fields = stat.rsplit(") ").next().context("no fields")?;
    Ok(fields.split(' ').nth(16).context("no priority")?.parse()?)
}

/// The names of a node's threads that do not stand back, and of those that do.
fn threads(node: &Node) -> Result<[Vec<String>; 2]> {
    let mut names = [Vec::new(), Vec::new()];
    let own = nice(&std::fs::read_to_string("/proc/self/stat")?)?;
    for thread in std::fs::read_dir(format!("/proc/{}/task", node.pid()?))?.flatten() {
        // It may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(thread.path().join("stat")) else { continue };
        let Ok(name) = std::fs::read_to_string(thread.path().join("comm")) else { continue };
        names[usize::from(nice(&stat)? > own)].push(name.trim().to_owned());
    }
    Ok(names)
}

/// A node that leads, and a component whose compilation takes some seconds and comes to nothing.
fn bed() -> Result<(Server, Cluster, PathBuf)> {
    let server = Server::start()?;
    let cluster = Cluster::builder(server.address())
        .session_timeout(Duration::from_secs(6))
        .env("SECRET", "of the node")
        .group("g", guest("probe"), "")
        .start()?;
    cluster.wait_leader("g")?;
    let component = cluster.folder().join("heavy.wasm");
    std::fs::write(&component, too_much_for_the_compiler(&guest_bytes("probe")))?;
    Ok((server, cluster, component))
}

#[test]
fn a_compiler_is_confined_and_can_be_lost() -> Result<()> {
    let (_server, cluster, heavy) = bed()?;
    let node = cluster.node(0);
    let before = node.group("g")?["release"].clone();
    let report = std::thread::scope(|scope| {
        let asked = scope.spawn(|| swap(node, "g", Some(&heavy), &[]));
        let found =
            cluster.wait_for("a compiler", Duration::from_secs(60), |_| Compiler::of(node)).and_then(|compiler| {
                compiler.signal(Signal::STOP)?;
                ensure!(compiler.nice()? == 10, "it does not stand back");
                let [others, back] = threads(node)?;
                ensure!(
                    ["background", "guest-compile"].iter().all(|name| back.iter().any(|it| it == name)),
                    "{back:?}"
                );
                for serving in ["session", "bellwether", "guests", "guest-epoch"] {
                    ensure!(others.iter().any(|name| name == serving), "{serving} stands back, or is not there");
                    ensure!(back.iter().all(|name| name != serving), "{serving} stands back");
                }
                ensure!(!compiler.read("environ")?.contains("SECRET"), "it knows what the node was told");
                for (name, most) in [("Max data size", 1 << 30), ("Max cpu time", 600), ("Max core file size", 0)] {
                    let limit = compiler.limit(name)?;
                    ensure!(limit.parse::<u64>().is_ok_and(|limit| limit <= most), "{name} is {limit}");
                }
                // The node serves while its compiler stands still, and hears of its end.
                ensure!(node.role("g").as_deref() == Some("leader"), "it does not lead any more");
                compiler.signal(Signal::KILL)
            });
        let asked = asked.join().map_err(|_| anyhow::anyhow!("the caller has panicked"))?;
        found.and(asked)
    })?;
    ensure!(report["outcome"] == "rolled-back" && report["step"] == "compile", "{report:#}");
    let reason = report["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("the compiler was killed"), "{report:#}");
    ensure!(node.group("g")?["release"] == before, "another release runs");
    Ok(())
}

#[test]
fn a_compiler_ends_with_its_node() -> Result<()> {
    let (_server, cluster, heavy) = bed()?;
    let node = cluster.node(0);
    // Asked for and not waited for.
    let body = serde_json::json!({ "component": heavy }).to_string();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| node.http("POST", &format!("/v1/nodes/{}/groups/g/swap", node.id()), &body));
        let compiler = cluster.wait_for("a compiler", Duration::from_secs(60), |_| Compiler::of(node))?;
        // One that does nothing more by itself.
        compiler.signal(Signal::STOP)?;
        node.kill();
        cluster.wait_until("the compiler to be gone", |_| !compiler.runs())?;
        // The connection was cut off.
        ensure!(asked.join().is_ok_and(|answer| answer.is_err()), "a dead node has answered");
        Ok(())
    })
}
