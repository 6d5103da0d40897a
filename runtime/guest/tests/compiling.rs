//! Components that another program compiles, and what becomes of them when that program fails.

#![allow(clippy::expect_used, reason = "a test says what it relies on")]

mod support;

use std::time::Duration;

use bellwether_core::callback::Step;
use bellwether_guest::compiler::{Allowance, Program};
use bellwether_guest::{Engine, EngineOptions, Grants, Limits};
use bellwether_tests::cli::binary;
use bellwether_tests::guests::guest_bytes;
use support::{PATIENCE, config};
use tokio::sync::Mutex;

/// What is counted here is the whole process's.
static ALONE: Mutex<()> = Mutex::const_new(());

fn short(_: usize) -> Allowance {
    Allowance { memory: 64 << 20, output: 3 << 20, processor: Duration::from_secs(7), patience: Duration::from_secs(1) }
}

fn long(size: usize) -> Allowance {
    Allowance { patience: PATIENCE * 2, ..short(size) }
}

fn engine(path: &str, arguments: &[&str], allowance: fn(usize) -> Allowance) -> Engine {
    let arguments = arguments.iter().map(Into::into).collect();
    let compiler = Some(Program { path: path.into(), arguments, allowance });
    Engine::new(EngineOptions { compiler, ..EngineOptions::default() }).expect("an engine")
}

/// The files without a name, and the handles of processes, that this process has open.
fn open_files() -> Vec<String> {
    let files = std::fs::read_dir("/proc/self/fd").expect("this process's files").flatten();
    let names = files.filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.display().to_string()));
    names.filter(|name| name.contains("memfd:") || name.contains("pidfd")).collect()
}

/// The processes that this one has started and that have not gone.
fn children() -> Vec<String> {
    let threads = std::fs::read_dir("/proc/self/task").expect("this process's threads").flatten();
    let of = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    threads.flat_map(|thread| of(thread).split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn whatever_happens_to_the_compiler_is_told_and_leaves_nothing_behind() {
    let _alone = ALONE.lock().await;
    let bytes = guest_bytes("minimal");
    for (script, says) in [
        ("exit 3", "the compiler failed (exit status: 3)"),
        ("echo 'it is broken' >&2; exit 101", "it is broken; this is a fault of the compiler"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("kill -KILL $$", "was killed"),
        ("kill -XCPU $$", "after 7 s of processor time"),
        ("kill -XFSZ $$", "wrote more than 3 MiB, the most for"),
        ("head -c 4000000 /dev/zero", "wrote more than 3 MiB, the most for"),
        ("head -c 4000000 /dev/zero; exit 4", "wrote more than 3 MiB, the most for"),
        ("echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$", "needed more than 64 MiB of memory"),
        ("printf 'this is not a valid component: no'; exit 4", "this is not a valid component: no"),
        ("exit 0", "is not usable"),
        ("echo rubbish", "is not usable"),
        ("cat", "is not usable"),
        ("exec sleep 1000", "was stopped after 1 s"),
        ("[ -z \"$CARGO_MANIFEST_DIR\" ] || echo 'it was told too much' >&2; exit 5", "(exit status: 5); this"),
    ] {
        let error = engine("/bin/sh", &["-c", script, "compiler"], short).compile(bytes.clone().into()).await;
        let error = error.expect_err("nothing was compiled");
        assert_eq!(error.step, Step::Compile, "{script}: {error}");
        assert!(error.reason.contains(says) && !error.reason.contains('\n'), "{script}: {error}");
        assert_eq!(children(), Vec::<String>::new(), "{script}: a process is left");
        assert_eq!(open_files(), Vec::<String>::new(), "{script}: files are left open");
    }
    let nowhere = engine("/nowhere/compiler", &[], short).compile(bytes.into()).await;
    let error = nowhere.expect_err("there is no such program");
    assert!(error.reason.contains("/nowhere/compiler, could not be run"), "{error}");
    assert_eq!(open_files(), Vec::<String>::new(), "files are left open");
}

#[tokio::test]
async fn what_another_process_compiled_runs_here_and_what_it_refuses_is_refused_in_the_same_words() {
    let _alone = ALONE.lock().await;
    let engine = engine(&binary().display().to_string(), &["compile"], Allowance::of);
    let component = engine.compile(guest_bytes("minimal").into()).await.expect("a component");
    assert_eq!(engine.compiled(), 1);
    let linked = component.link(&Grants::default(), &Limits::default(), config(&[])).expect("it is linked");
    linked.instantiate(support::Script::new()).await.expect("and runs");

    let mut bytes = guest_bytes("minimal");
    bytes.truncate(bytes.len() / 2);
    let there = engine.compile(bytes.clone().into()).await.expect_err("it is truncated");
    let here = support::engine().compile(bytes.into()).await.expect_err("it is truncated");
    assert_eq!(there, here);
}

/// Waits until a compiler runs, or none does any more.
async fn until_compiling(runs: bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while children().is_empty() == runs {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("a compiler runs: {}, in time", !runs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compiler_that_nobody_waits_for_any_more_is_killed_and_the_next_has_its_turn() {
    let _alone = ALONE.lock().await;
    let engine = engine("/bin/sh", &["-c", "exec sleep 1000", "compiler"], long);
    for _ in 0..2 {
        let compiling = engine.clone();
        let compiling = tokio::spawn(async move { compiling.compile(guest_bytes("minimal").into()).await });
        until_compiling(true).await;
        compiling.abort();
        until_compiling(false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compiled_before_does_not_wait_for_what_is_compiled_now() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Some(folder.path().join("compiled"));
    let before = Engine::new(EngineOptions { cache: cache.clone(), ..EngineOptions::default() }).expect("an engine");
    before.compile(guest_bytes("minimal").into()).await.expect("a component");
    let compiler = Program {
        path: "/bin/sh".into(),
        arguments: ["-c", "exec sleep 1000", "compiler"].into_iter().map(Into::into).collect(),
        allowance: long,
    };
    let options = EngineOptions { cache, compiler: Some(compiler), ..EngineOptions::default() };
    let engine = Engine::new(options).expect("an engine");
    let busy = engine.clone();
    let compiling = tokio::spawn(async move { busy.compile(guest_bytes("probe").into()).await });
    until_compiling(true).await;
    let loaded = tokio::time::timeout(PATIENCE, engine.compile(guest_bytes("minimal").into())).await;
    loaded.expect("in time").expect("a component");
    assert_eq!(engine.compiled(), 0);
    compiling.abort();
    until_compiling(false).await;
}
