//! Each way in which a swap can fail, at each of its steps. Whatever it is, the old release serves on with the state, the term and the
//! session it had; `status` and `history` say what happened; and nothing is left behind, however often it happens.

#![allow(clippy::unwrap_used, reason = "the server is shared with tests that fail by panicking")]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cli::Cli;
use bellwether_tests::cluster::{Cluster, Node, PATIENCE};
use bellwether_tests::components::{too_much_for_the_compiler, with_section};
use bellwether_tests::guests::guest_bytes;
use bellwether_tests::load::{Tally, sessions, swap};
use bellwether_tests::measure::{megabytes, print, resident, threads_and_files};
use bellwether_tests::registry::digest;
use bellwether_tests::zookeeper::Server;
use serde_json::Value;
use tempfile::TempDir;

#[path = "../../runtime/source/tests/support/mod.rs"]
mod support;

/// The group that is swapped: a leader that hands out numbered pieces of work, and a worker that does them.
const GROUP: &str = "busy";
/// A group in which guests may hand out no work.
const POOR: &str = "poor";
/// How often the whole table is gone through; `BELLWETHER_TABLE_ROUNDS=20` is the long form.
const ROUNDS: usize = 3;

/// Where a swap that fails is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// On the leader.
    Leader,
    /// On the worker: it is its tasks that fail.
    Worker,
    /// On the leader, in the group that may do little.
    Poor,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is rolled back at this step.
    RolledBack(&'static str),
    /// It is committed, and the node goes back by itself.
    Committed,
}

/// One row: what is wrong, what is swapped to, and what comes of it.
struct Row {
    what: &'static str,
    at: At,
    /// A file, or what else names a component.
    component: String,
    /// What the guest `faulty` is told to do wrong.
    fault: Option<&'static str>,
    end: End,
    /// What the reason says.
    words: &'static [&'static str],
}

/// A component that lifts functions of other types than the contract's, and leaves some out.
const OTHER_TYPES: &str = r#"(component
    (core module $m (func (export "f") (param i32)))
    (core instance $i (instantiate $m))
    (func $elected (param "epoch" u32) (canon lift (core func $i "f")))
    (instance $lifecycle (export "on-elected" (func $elected)))
    (export "bellwether:runtime/lifecycle@0.1.0" (instance $lifecycle)))"#;

/// The core modules that a component has at its top: where the next one stands.
fn modules(component: &[u8]) -> Result<u8> {
    let (mut at, mut count) = (8, 0);
    while let Some(&id) = component.get(at) {
        let (mut size, mut shift) = (0_usize, 0);
        at += 1;
        loop {
            let byte = *component.get(at).context("the component ends in a size")?;
            at += 1;
            size |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at += size;
        count += u8::from(id == 1);
    }
    Ok(count)
}

/// The files that are swapped to, each signed by the key that the nodes trust but for those that are about signatures.
struct Files {
    folder: TempDir,
    /// The key.
    trusted: String,
}

impl Files {
    fn new() -> Result<Self> {
        let folder = TempDir::with_prefix("bw-")?;
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes);
        for guest in ["probe", "faulty", "minimal"] {
            put(&format!("{guest}.wasm"), &guest_bytes(guest))?;
        }
        let probe = guest_bytes("probe");
        put("truncated.wasm", &probe[..probe.len() / 2])?;
        put("module.wasm", &wat::parse_str("(module)")?)?;
        // A core module whose code is none.
        put("corrupt.wasm", &with_section(&probe, 1, b"\0asm\x01\0\0\0\x0a\x03\x01\xff\xff"))?;
        put("heavy.wasm", &too_much_for_the_compiler(&probe))?;
        put("bare.wasm", &wat::parse_str("(component)")?)?;
        put("types.wasm", &wat::parse_str(OTHER_TYPES)?)?;
        // One more core module, whose start function traps, and an instance of it.
        let trap = wat::parse_str("(module (func unreachable) (start 0))")?;
        let start = with_section(&with_section(&probe, 1, &trap), 2, &[1, 0, modules(&probe)?, 0]);
        put("start.wasm", &start)?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let keygen = |name: &str| Cli::new().run(["keygen", name, "--out", &at(&format!("{name}.key"))])?.ok();
        let (trusted, _) = (keygen("release")?, keygen("stranger")?);
        let sign = |key: &str, file: &str| Cli::new().run(["sign", "--key", &at(&format!("{key}.key")), file])?.ok();
        for entry in std::fs::read_dir(folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "wasm") {
                sign("release", &path.display().to_string())?;
            }
        }
        // Components as good as any.
        for (name, variant) in [("unsigned.wasm", b'u'), ("strange.wasm", b's'), ("forged.wasm", b'f')] {
            put(name, &with_section(&probe, 0, &[1, b'v', variant]))?;
        }
        sign("stranger", &at("strange.wasm"))?;
        std::fs::copy(at("probe.wasm.sig"), at("forged.wasm.sig"))?;
        Ok(Self { trusted: trusted.trim().to_owned(), folder })
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// A server that has something else than it should have.
async fn liar(probe: Vec<u8>) -> support::Server {
    support::Server::start(true, move |request| match request.path.as_str() {
        "/torn.wasm" => support::Reply::Short(probe.len(), probe[..99].to_vec()),
        _ => support::Reply::Bytes(probe.clone()),
    })
    .await
}

fn table(files: &Files, liar: &support::Server) -> Vec<Row> {
    let of_file = |what, name: &str, step, words| Row {
        what,
        at: At::Leader,
        component: files.at(name),
        fault: None,
        end: End::RolledBack(step),
        words,
    };
    let elsewhere = |what, component: String, words| Row { component, ..of_file(what, "", "fetch", words) };
    let hex = digest(b"a component that nobody has");
    let at_liar =
        |name: &str| format!("https://localhost:{}/{name}#sha256={}", liar.address.port(), &hex["sha256:".len()..]);
    let of_guest = |what, at, fault, end, words| Row {
        what,
        at,
        component: files.at("faulty.wasm"),
        fault: Some(fault),
        end,
        words,
    };
    let restore = |what, fault, words| of_guest(what, At::Leader, fault, End::RolledBack("restore"), words);
    let present = |what, fault, words| of_guest(what, At::Leader, fault, End::RolledBack("present"), words);
    vec![
        of_file("no such file", "nowhere.wasm", "read", &["nowhere.wasm", "no such file"]),
        elsewhere("another digest", at_liar("other.wasm"), &["replaced, cut short or tampered with"]),
        elsewhere("cut off on the way", at_liar("torn.wasm"), &["broke off"]),
        elsewhere("a digest that nobody has", hex.clone(), &["it is not there", "does not hold"]),
        of_file("no signature", "unsigned.wasm", "verify", &["is not signed"]),
        of_file("a stranger's signature", "strange.wasm", "verify", &["does not know"]),
        of_file("the signature of another component", "forged.wasm", "verify", &["\"release\" is not one over"]),
        of_file("a core module", "module.wasm", "read", &["core WebAssembly module"]),
        of_file("a truncated file", "truncated.wasm", "compile", &["truncated or damaged"]),
        of_file("a corrupt section", "corrupt.wasm", "compile", &["not a valid component"]),
        of_file("too much for the compiler", "heavy.wasm", "compile", &["the compiler needed more than", "of memory"]),
        of_file("no lifecycle", "bare.wasm", "check", &["does not export `bellwether:runtime/lifecycle@0.1.0`"]),
        of_file("other types", "types.wasm", "check", &["`lifecycle.on-elected` has the wrong type"]),
        Row {
            what: "an import that is not granted",
            at: At::Poor,
            component: files.at("probe.wasm"),
            fault: None,
            end: End::RolledBack("check"),
            words: &["bellwether:runtime/workers", "workers = true"],
        },
        of_file("a start function that traps", "start.wasm", "instantiate", &["initialisation trapped"]),
        restore("restore returns an error", "restore error", &["restore returned the error", "this release cannot"]),
        restore("restore traps", "restore trap", &["restore trapped", "a fault that shows only"]),
        restore("restore loops", "restore loop", &["restore did not return within 5000 ms"]),
        restore("restore takes memory", "restore memory", &["restore went over its limit", "`memory`"]),
        present("the first callback returns an error", "on-elected error", &["on-elected returned the error"]),
        present("the first callback traps", "on-elected trap", &["on-elected trapped"]),
        present("the first callback loops", "on-elected loop", &["on-elected did not return within 5000 ms"]),
        of_guest("a callback traps on probation", At::Leader, "on-tick trap", End::Committed, &["on-tick trapped"]),
        of_guest(
            "a callback returns an error on probation",
            At::Leader,
            "on-tick error",
            End::Committed,
            &["on-tick returned the error"],
        ),
        of_guest(
            "tasks return errors on probation",
            At::Worker,
            "handle error",
            End::Committed,
            &["tasks failed", "50 %"],
        ),
        of_guest("tasks trap on probation", At::Worker, "handle trap", End::Committed, &["tasks failed", "50 %"]),
    ]
}

/// What a failed swap must leave as it was.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    release: Value,
    epoch: Value,
    sessions: Vec<String>,
    restarts: Value,
}

fn kept(cluster: &Cluster, node: &Node, group: &str) -> Result<Kept> {
    let found = node.group(group)?;
    Ok(Kept {
        release: found["release"]["id"].clone(),
        epoch: found["epoch"].clone(),
        sessions: sessions(cluster)?,
        restarts: found["callbacks"]["restarts"].clone(),
    })
}

fn has_words(row: &Row, report: &Value) -> Result<()> {
    let reason = report["reason"].as_str().unwrap_or_default();
    let missing: Vec<_> = row.words.iter().filter(|word| !reason.contains(**word)).collect();
    ensure!(missing.is_empty(), "the reason lacks {missing:?}: {report:#}");
    Ok(())
}

/// Has one swap fail, and looks at what is left.
fn fails(cluster: &Cluster, leader: &Node, worker: &Node, row: &Row, round: &str) -> Result<()> {
    let (node, group) = match row.at {
        At::Leader => (leader, GROUP),
        At::Worker => (worker, GROUP),
        At::Poor => (leader, POOR),
    };
    let before = kept(cluster, node, group)?;
    let first = Tally::read(leader, GROUP)?.context("no work was handed out yet")?;
    // Each round's release is another one, since a bad one is not tried again.
    let mut config = vec![("round", round)];
    config.extend(row.fault.map(|fault| ("fault", fault)));
    let report = swap(node, group, Some(Path::new(&row.component)), &config)?;
    let last = match row.end {
        End::RolledBack(step) => {
            ensure!(report["outcome"] == "rolled-back" && report["step"] == step, "{report:#}");
            has_words(row, &report)?;
            node.group(group)?["last_swap"].clone()
        }
        End::Committed => {
            ensure!(report["outcome"] == "committed", "{report:#}");
            let back = cluster.wait_for("the node to go back", PATIENCE, |_| {
                let last = node.group(group).ok()?["last_swap"].take();
                (last["rollback"] == true).then_some(last)
            })?;
            ensure!(back["outcome"] == "committed" && back["release"] == before.release, "{back:#}");
            back
        }
    };
    has_words(row, &last)?;
    let history = node.cli(&["history", group, "--json"])?.json()?;
    let told = history[0]["swaps"].as_array().and_then(|swaps| swaps.last().cloned()).context("no history")?;
    ensure!(told == last, "the history says {told:#}, the status {last:#}");

    let mut after = kept(cluster, node, group)?;
    if row.end == End::Committed {
        // An instance that trapped was the bad release's.
        after.restarts = before.restarts.clone();
    }
    ensure!(after == before, "{after:?} instead of {before:?}");
    // Callbacks and tasks go on with the state of before: each batch is written over the very version that the last has left.
    let next = Tally::beyond(cluster, leader, GROUP, Tally::read(leader, GROUP)?.map_or(0, |tally| tally.batches))?;
    ensure!(next.issued > first.issued && next.answered > first.answered, "{next:?} after {first:?}");
    ensure!(row.at == At::Worker || next.failed == first.failed, "tasks failed: {next:?} after {first:?}");
    ensure!(next.epoch == first.epoch, "{next:?} after {first:?}");
    Ok(())
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    memory: u64,
    threads: usize,
    files: usize,
}

fn held(node: &Node) -> Result<Held> {
    let pid = node.pid()?;
    let (threads, files) = threads_and_files(pid)?;
    Ok(Held { memory: resident(pid)?, threads, files })
}

#[test]
fn failure_table() -> Result<()> {
    let rounds = match std::env::var("BELLWETHER_TABLE_ROUNDS") {
        Ok(text) => text.parse().with_context(|| format!("BELLWETHER_TABLE_ROUNDS is {text:?}"))?,
        Err(_) => ROUNDS,
    };
    let server = Server::start()?;
    let files = Files::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let liar = runtime.block_on(liar(guest_bytes("probe")));
    let sources = format!(
        "\n[sources]\nca = {:?}\n[signatures]\nrequired = true\nkeys = [{:?}]\n",
        liar.ca.display().to_string(),
        files.trusted
    );
    let done = Path::new(&files.at("done")).to_owned();
    std::fs::create_dir(&done)?;
    let busy = format!(
        "[group.config]\non-tick = \"batch 8 4000 /done\"\n[group.tick]\nevery = \"10ms\"\n[group.limits]\ncallback = \"5s\"\n\
         memory = \"16MiB\"\n[[group.grants.folders]]\nhost = {done:?}\nguest = \"/done\"\nmode = \"write\"\n"
    );
    let cluster = Cluster::builder(server.address())
        .nodes(2)
        .session_timeout(Duration::from_secs(6))
        // The allocator's pools a thread, which fill at random, would hide what is measured.
        .env("MALLOC_ARENA_MAX", "1")
        .coordination(&sources)
        .group(GROUP, files.at("probe.wasm"), &busy)
        .group(POOR, files.at("minimal.wasm"), "[group.grants]\nworkers = false\n")
        .start()?;
    cluster.wait_ready()?;
    let leader = cluster.wait_leader(GROUP)?;
    let (worker, leader) = (cluster.node(1 - leader), cluster.node(leader));
    Tally::beyond(&cluster, leader, GROUP, 0)?;

    let table = table(&files, &liar);
    let mut holdings: Vec<[Held; 2]> = Vec::new();
    for round in 0..rounds {
        for row in &table {
            fails(&cluster, leader, worker, row, &format!("{round} {}", row.what))
                .with_context(|| format!("{} (round {round})", row.what))?;
        }
        holdings.push([held(leader)?, held(worker)?]);
    }
    let moved = [leader, worker].map(|node| node.logged(0, |line| line.what() == "demoting").len());
    assert_eq!(moved, [0, 0], "nobody was demoted");

    for (index, node) in [leader, worker].into_iter().enumerate() {
        // The first round fills what is kept on purpose: compiled code, buffers, threads of runtimes.
        let of = |round: &[Held; 2]| round[index];
        let (second, last) = (holdings.get(1).map(of), holdings.last().map(of));
        let (Some(second), Some(last)) = (second, last) else { continue };
        print(format_args!(
            "{}: {:.1} MB, {} threads, {} files after the second of {rounds} rounds of {} failures; {:.1} MB, {}, {} after the last",
            node.id(),
            megabytes(second.memory),
            second.threads,
            second.files,
            table.len(),
            megabytes(last.memory),
            last.threads,
            last.files
        ));
        // An instance has a megabyte, and each round makes some twenty.
        assert!(last.memory < second.memory + (6 << 20), "memory grew: {second:?}, {last:?}");
        // Threads that block come and go with the runtime's pool; one left behind by each failure would be many more.
        assert!(last.threads <= second.threads + 4 && last.files <= second.files + 4, "{second:?}, {last:?}");
        let in_flight = || node.group(GROUP).ok()?["tasks"]["in_flight"].as_u64();
        cluster.wait_until("no pool to hold a task of old", |_| in_flight().is_some_and(|tasks| tasks <= 8))?;
    }
    std::fs::write(done.join("stop"), "")?;
    Ok(())
}
