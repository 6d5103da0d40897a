//! The sums (`guests/README.md`) on real nodes and a real ZooKeeper: groups whose members are written in different languages, and
//! releases swapped from each language to each other. What each guest does by itself is in `runtime/guest/tests/languages.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Builder, Cluster, Node};
use bellwether_tests::guests::{LANGUAGES, folder, language};
use bellwether_tests::zookeeper::Server;
use serde_json::{Value, json};

const GROUP: &str = "sums";
/// Python's component alone takes ten seconds and more.
const COMPILING: Duration = Duration::from_secs(240);

/// The key `total`, as it is written down.
#[derive(Debug)]
struct Total {
    language: String,
    next: u64,
}

impl Total {
    /// Reads it, and checks that each job before the next one is counted once, or waits to be done again.
    fn read(node: &Node) -> Result<Option<Self>> {
        let Some(text) = node.state(GROUP, "total")? else { return Ok(None) };
        let fields: Vec<&str> = text.split(' ').collect();
        let ["1", language, numbers @ ..] = &fields[..] else { anyhow::bail!("the total is {text:?}") };
        let numbers: Vec<u64> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
        let [next, total, again @ ..] = &numbers[..] else { anyhow::bail!("the total is {text:?}") };
        let done: u64 = (1..*next).filter(|job| !again.contains(job)).map(|job| job * job).sum();
        assert_eq!(*total, done, "a job was lost, or counted twice: {text}");
        Ok(Some(Self { language: (*language).to_owned(), next: *next }))
    }
}

/// Has all languages compiled, by a node of one group each, unless a run before this one left the result: a swap waits for no more than
/// the admin API's time-out in these tests, which is less than Python's component may take.
fn compile(server: &Server) -> Result<()> {
    static COMPILED: OnceLock<Result<(), String>> = OnceLock::new();
    let all = || -> Result<()> {
        let groups = LANGUAGES.iter().fold(Cluster::builder(server.address()).root("/compiling"), |all, name| {
            all.group(name, language(name), "")
        });
        let cluster = start(groups)?;
        let node = cluster.node(0);
        cluster.wait_for("all languages to be compiled", COMPILING, |_| {
            LANGUAGES.iter().all(|name| node.role(name).as_deref() == Some("leader")).then_some(())
        })?;
        keep(node)
    };
    let compiled = COMPILED.get_or_init(|| all().map_err(|error| format!("{error:#}")));
    compiled.clone().map_err(anyhow::Error::msg)
}

/// Starts the nodes with what earlier runs have compiled.
fn start(builder: Builder) -> Result<Cluster> {
    let cluster = builder.env("BELLWETHER_LOG", "info,guest=debug").prepare()?;
    let kept = folder().join("target/languages/compiled");
    for node in cluster.nodes() {
        copy_compiled(&kept, &node.folder().join("data/compiled"))?;
        node.start()?;
    }
    Ok(cluster)
}

/// Copies compiled components; what another version of the runtime made is ignored by the node, by its name. One that is being
/// written has another name until it is whole.
fn copy_compiled(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    for folder in [from, to] {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if path.extension().is_some_and(|extension| extension == "cwasm") && !to.join(&name).exists() {
            // Renamed when it is whole: others may copy from there at the same time.
            let aside = tempfile::NamedTempFile::with_prefix_in(".copy-", to)?;
            // Whoever made room there may have removed it meanwhile: then it is compiled again.
            if std::fs::copy(&path, aside.path()).is_ok() {
                aside.persist(to.join(&name))?;
            }
        }
    }
    Ok(())
}

/// Keeps for the next run what a node has compiled.
fn keep(node: &Node) -> Result<()> {
    copy_compiled(&node.folder().join("data/compiled"), &folder().join("target/languages/compiled"))
}

fn members(node: &Node) -> usize {
    node.group(GROUP).ok().and_then(|group| group["members"].as_array().map(Vec::len)).unwrap_or_default()
}

/// The jobs that a leader has given out since `mark`, tick by tick, and the total after each tick.
fn ticks(node: &Node, mark: usize) -> Result<Vec<(Vec<u64>, u64)>> {
    let lines = node.logged(mark, |line| line.guest("sums").is_some_and(|text| text.starts_with("jobs ")));
    let parse = |text: &str| -> Result<(Vec<u64>, u64)> {
        let (jobs, total) = text.split_once(": total ").with_context(|| text.to_owned())?;
        let jobs = jobs.split(' ').skip(1).map(|job| Ok(job.parse()?)).collect::<Result<_>>()?;
        Ok((jobs, total.parse()?))
    };
    lines.iter().filter_map(|line| line.guest("sums").map(parse)).collect()
}

#[test]
fn a_leader_in_each_language_has_workers_in_all_others_and_takes_the_sums_over() -> Result<()> {
    let server = Server::start()?;
    compile(&server)?;
    let components: Vec<PathBuf> = LANGUAGES.iter().map(|name| language(name)).collect();
    // Nothing fails here because a machine is slow.
    let group = "config = { timeout_ms = 60000 }\n[group.tick]\nevery = \"50ms\"\n[group.limits]\ncallback = \"90s\"\ntask = \"90s\"\n";
    let builder = Cluster::builder(server.address())
        .nodes(LANGUAGES.len())
        .ids(|index| LANGUAGES[index].to_owned())
        .session_timeout(Duration::from_secs(6))
        .group(GROUP, components[0].with_file_name("{id}.wasm"), group);
    let cluster = start(builder)?;
    cluster.wait_ready()?;

    let mut led = BTreeSet::new();
    let mut reached = 0;
    // Who resigns stands behind all others: each has its turn.
    for _ in LANGUAGES {
        let leader = cluster.node(cluster.wait_leader(GROUP)?);
        cluster.wait_until("all others to be members", |_| members(leader) == LANGUAGES.len() - 1)?;
        assert!(led.insert(leader.id().to_owned()), "{} leads again before others: {led:?}", leader.id());
        // Each other one works for it, in this term.
        let marks: Vec<usize> = cluster.nodes().iter().map(|node| node.mark()).collect();
        for (node, mark) in cluster.nodes().iter().zip(&marks) {
            if node.id() == leader.id() {
                continue;
            }
            let head = format!(" for {}, epoch {}", leader.id(), leader.group(GROUP)?["epoch"]);
            node.wait_log(*mark, &format!("a square{head}"), |line| {
                line.guest("sums").is_some_and(|text| text.starts_with("square ") && text.ends_with(&head))
            })?;
        }
        let total = cluster.wait_for("the leader to have saved", Duration::from_secs(60), |_| {
            let total = Total::read(leader).ok().flatten()?;
            (total.next > reached + 8 && total.language == leader.id()).then_some(total)
        })?;
        reached = total.next;
        let (code, body) = leader.http("POST", &format!("/v1/nodes/{0}/groups/{GROUP}/resign", leader.id()), "")?;
        ensure!(code == 204, "{} did not resign: {code} {body}", leader.id());
        let former = cluster.nodes().iter().position(|node| node.id() == leader.id()).context("no such node")?;
        cluster.wait_successor(GROUP, former)?;
    }
    assert_eq!(led, LANGUAGES.iter().map(|name| (*name).to_owned()).collect());
    let leader = cluster.node(cluster.wait_leader(GROUP)?);
    cluster.wait_until("the first leader to go on where the last one was", |_| {
        Total::read(leader)
            .is_ok_and(|total| total.is_some_and(|total| total.next > reached && total.language == leader.id()))
    })?;
    for node in cluster.nodes() {
        let group = node.group(GROUP)?;
        for nothing in ["/callbacks/restarts", "/tasks/failed"] {
            assert_eq!(group.pointer(nothing), Some(&json!(0)), "{}: {nothing} of {group:#}", node.id());
        }
        assert!(node.logged(0, |line| line.tells(GROUP, "demoted")).len() <= 1, "{} was demoted twice", node.id());
    }
    Ok(())
}

fn swap(node: &Node, component: &Path) -> Result<()> {
    let request = json!({ "component": component }).to_string();
    let (code, body) = node.http("POST", &format!("/v1/nodes/{}/groups/{GROUP}/swap", node.id()), &request)?;
    ensure!(code == 200, "{} did not swap to {}: {code} {body}", node.id(), component.display());
    let report: Value = serde_json::from_str(&body)?;
    ensure!(report["outcome"] == "committed" && report["release"] != report["from"], "{}: {body}", node.id());
    Ok(())
}

/// A way through all languages that goes from each to each other once, and ends where it began.
fn tour() -> Vec<usize> {
    let count = LANGUAGES.len();
    let mut tour = Vec::new();
    for from in 0..count {
        for to in from + 1..count {
            tour.extend([from, to]);
        }
    }
    tour.push(0);
    tour
}

#[test]
fn the_tour_goes_from_each_language_to_each_other_once() {
    let tour = tour();
    let steps: BTreeSet<(usize, usize)> = tour.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let count = LANGUAGES.len();
    assert!(tour.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!((steps.len(), tour.len() - 1), (count * (count - 1), count * (count - 1)));
}

#[test]
fn swaps_from_each_language_to_each_other_carry_the_sums_and_lose_nothing() -> Result<()> {
    let server = Server::start()?;
    compile(&server)?;
    let components: Vec<PathBuf> = LANGUAGES.iter().map(|name| language(name)).collect();
    // Nothing is saved in the state: what goes on after a swap was handed over.
    let group = "config = { save_every = 1000000, timeout_ms = 60000 }\n[group.tick]\nevery = \"20ms\"\n\
                 [group.limits]\ncallback = \"90s\"\ntask = \"90s\"\n";
    let tour = tour();
    let builder = Cluster::builder(server.address()).nodes(3).session_timeout(Duration::from_secs(6)).group(
        GROUP,
        &components[tour[0]],
        group,
    );
    let cluster = start(builder)?;
    cluster.wait_ready()?;
    let leader = cluster.node(cluster.wait_leader(GROUP)?);
    let epoch = leader.group(GROUP)?["epoch"].clone();
    cluster.wait_until("both workers to be members", |_| members(leader) == 2)?;
    let go_on = |beyond: usize| {
        cluster.wait_for("two more ticks", Duration::from_secs(60), |_| {
            ticks(leader, 0).ok().map(|ticks| ticks.len()).filter(|count| *count >= beyond + 2)
        })
    };
    let mut seen = go_on(0)?;
    for pair in tour.windows(2) {
        for node in cluster.nodes() {
            // The leader's swap hands over; the workers change their language under the tasks that come.
            swap(node, &components[pair[1]]).with_context(|| format!("from {} on", LANGUAGES[pair[0]]))?;
            seen = go_on(seen)?;
        }
    }

    let ticks = ticks(leader, 0)?;
    let jobs: Vec<u64> = ticks.iter().flat_map(|(jobs, _)| jobs.clone()).collect();
    assert_eq!(jobs, (1..=jobs.len() as u64).collect::<Vec<_>>(), "a job was lost, repeated or done out of turn");
    let mut sum = 0;
    for (jobs, total) in &ticks {
        sum += jobs.iter().map(|job| job * job).sum::<u64>();
        assert_eq!(*total, sum, "after the jobs {jobs:?}");
    }
    assert_eq!(leader.state(GROUP, "total")?, None, "nothing was to be saved");
    let group = leader.group(GROUP)?;
    assert_eq!(group["epoch"], epoch, "leadership moved");
    let by_swap = format!("{} leads, epoch {epoch}, by swap", leader.id());
    let told = leader.logged(0, |line| line.guest("sums") == Some(&by_swap)).len();
    assert_eq!(told, tour.len() - 1, "each release was told of the term once");
    for node in cluster.nodes() {
        let group = node.group(GROUP)?;
        for nothing in ["/callbacks/failed", "/callbacks/restarts", "/tasks/failed", "/tasks/refused"] {
            assert_eq!(group.pointer(nothing), Some(&json!(0)), "{}: {nothing} of {group:#}", node.id());
        }
    }
    Ok(())
}
