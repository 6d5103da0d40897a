//! What is loaded and what is not, and what is said about it.

#![allow(clippy::expect_used, reason = "a test says what it relies on")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bellwether_core::callback::{Exports, PrepareFailure, Step};
use bellwether_guest::grants::StateGrant;
use bellwether_guest::{Engine, EngineOptions, Grants, Limits, LoadError};
use bellwether_tests::guests::guest_bytes;
use support::{config, engine, probe};

async fn refused(bytes: Vec<u8>) -> LoadError {
    engine().compile(bytes.into()).await.expect_err("it does not fit")
}

fn text(component: &str) -> Vec<u8> {
    wat::parse_str(component).expect("a component in text")
}

/// The same bytes with another name of the same length in the place of one: a component that was built against something else.
fn renamed(mut bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let found: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!found.is_empty(), "{from} stands nowhere in the component");
    for at in found {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[tokio::test]
async fn what_is_not_a_component_is_told_apart() {
    let core = text("(module)");
    let error = refused(core).await;
    assert_eq!(error.step, Step::Read);
    assert!(error.reason.contains("core WebAssembly module") && error.reason.contains("wasm32-wasip2"), "{error}");
    let error = refused(b"(component)".to_vec()).await;
    assert!(error.reason.contains("wasm-tools parse"), "{error}");
    let failure: PrepareFailure = error.into();
    assert_eq!(failure.step, Step::Read);
}

#[tokio::test]
async fn a_truncated_component_is_called_that() {
    let whole = guest_bytes("minimal");
    for part in [9, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        let error = refused(whole[..part].to_vec()).await;
        assert_eq!(error.step, Step::Compile, "{error}");
        assert!(error.reason.contains("truncated or damaged"), "{part}: {error}");
        assert!(!error.reason.contains('\n') && !error.reason.contains(".rs:"), "{error}");
    }
}

#[tokio::test]
async fn a_component_without_lifecycle_is_told_what_it_lacks() {
    let error = refused(text("(component)")).await;
    assert_eq!(error.step, Step::Check);
    assert!(error.reason.contains("does not export `bellwether:runtime/lifecycle@0.1.0`"), "{error}");
    assert!(error.reason.contains("bellwether:runtime/guest"), "{error}");
}

#[tokio::test]
async fn a_wrong_type_is_told_with_what_is_wanted_and_what_is_offered() {
    let error = refused(text(
        r#"(component
            (core module $m
                (func (export "f") (param i32))
                (func (export "g") (result i32) i32.const 1))
            (core instance $i (instantiate $m))
            (func $elected (param "epoch" u32) (canon lift (core func $i "f")))
            (func $tick (result bool) (canon lift (core func $i "g")))
            (instance $lifecycle (export "on-elected" (func $elected)))
            (instance $ticker (export "on-tick" (func $tick)))
            (export "bellwether:runtime/lifecycle@0.1.0" (instance $lifecycle))
            (export "bellwether:runtime/ticker@0.1.0" (instance $ticker)))"#,
    ))
    .await;
    assert_eq!(error.step, Step::Check);
    for part in [
        "`lifecycle.on-elected` has the wrong type",
        "wants `func(leadership: record { epoch: u64, cause: enum { election, swap, restart } }) -> result<_, string>`",
        "offers `func(epoch: u32)`",
        "`lifecycle` lacks the function `on-demoted`",
        "`lifecycle` lacks the function `on-members-changed`",
        "`ticker.on-tick` has the wrong type: the contract wants `func() -> result<_, string>`, the component offers \
         `func() -> bool`",
    ] {
        assert!(error.reason.contains(part), "{part}\nis not in\n{error}");
    }
}

#[tokio::test]
async fn another_version_of_the_contract_is_named() {
    let error = refused(renamed(guest_bytes("minimal"), "/lifecycle@0.1.0", "/lifecycle@0.2.0")).await;
    assert!(error.reason.contains("exports `bellwether:runtime/lifecycle@0.2.0`"), "{error}");
    assert!(error.reason.contains("this runtime speaks `bellwether:runtime/lifecycle@0.1.0`"), "{error}");
    let later = renamed(guest_bytes("minimal"), "/lifecycle@0.1.0", "/lifecycle@0.1.9");
    let component = engine().compile(later.into()).await.expect("a later patch of the same version fits");
    let linked = component.link(&Grants::default(), &Limits::default(), config(&[])).expect("and is linked");
    linked.instantiate(support::Script::new()).await.expect("and runs");
    let importing =
        renamed(guest_bytes("probe"), "bellwether:runtime/cluster@0.1.0", "bellwether:runtime/cluster@0.3.0");
    let component = engine().compile(importing.into()).await.expect("what it imports is a matter of the link");
    let error = component.link(&Grants::default(), &Limits::default(), config(&[])).expect_err("not to be had");
    assert!(error.reason.contains("imports `bellwether:runtime/cluster@0.3.0`"), "{error}");
    assert!(error.reason.contains("this runtime speaks `bellwether:runtime/cluster@0.1.0`"), "{error}");
}

#[tokio::test]
async fn every_import_that_is_missing_is_named_with_the_setting_that_grants_it() {
    let grants = Grants { state: StateGrant::None, workers: false, logging: false, ..Grants::default() };
    let error = probe().await.link(&grants, &Limits::default(), config(&[])).expect_err("nothing is granted");
    assert_eq!(error.step, Step::Check);
    for part in [
        "`bellwether:runtime/workers@0.1.0`, which is not granted: set `workers = true` under [group.grants]",
        "`bellwether:runtime/state@0.1.0`, which is not granted: set `state = \"leader\" (or \"all\")`",
        "`wasi:logging/logging@0.1.0-draft`, which is not granted: set `logging = true`",
    ] {
        assert!(error.reason.contains(part), "{part}\nis not in\n{error}");
    }
    let strange = renamed(guest_bytes("probe"), "wasi:config/store@0.2.0-rc.1", "some:config/thing@0.2.0-rc.1");
    let component = engine().compile(strange.into()).await.expect("it fits otherwise");
    let problems = component.findings().obstacles(None, &Limits::default());
    assert_eq!(problems.len(), 1, "{problems:?}");
    let error = component.link(&Grants::default(), &Limits::default(), config(&[])).expect_err("not to be had");
    assert!(
        error.reason.contains("imports `some:config/thing@0.2.0-rc.1`, which this runtime does not offer"),
        "{error}"
    );
}

#[tokio::test]
async fn a_component_can_be_described() {
    let component = probe().await;
    assert_eq!(component.exports(), Exports { worker: true, ticker: true, handover: true, observer: true });
    let description = component.describe();
    assert_eq!(description.digest, component.digest());
    assert_eq!(description.digest.len(), 64);
    assert_eq!(description.size, guest_bytes("probe").len());
    assert_eq!(component.findings().obstacles(Some(&Grants::default()), &Limits::default()), [""; 0]);
    let small = Limits { memory_bytes: 64 << 10, table_elements: 1, ..Limits::default() };
    let beyond = component.findings().obstacles(None, &small);
    assert_eq!(beyond.len(), 2, "{beyond:?}");
    assert!(beyond[0].contains("`memory` under [group.limits] allows 64 KiB"), "{beyond:?}");
    let error = component.link(&Grants::default(), &small, config(&[])).expect_err("it takes too much");
    assert!(error.reason.contains(&beyond[1]), "{error}");
    let by = |name: &str| {
        let found = description.imports.iter().find(|import| import.name.starts_with(name));
        found.map(|import| import.granted_by.as_str()).unwrap_or_default()
    };
    assert_eq!(by("bellwether:runtime/workers"), "`workers = true` under [group.grants]");
    assert_eq!(by("bellwether:runtime/cluster"), "always");
    assert!(by("wasi:filesystem/").contains("folders"));
    let json = serde_json::to_value(&description).expect("it can be serialised");
    assert_eq!(json["optional"]["worker"], true);
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(folder).expect("the cache").flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

fn cached(folder: &Path, cache_bytes: u64) -> Engine {
    let options = EngineOptions { cache: Some(folder.to_owned()), cache_bytes, ..EngineOptions::default() };
    Engine::new(options).expect("an engine")
}

#[tokio::test]
async fn a_second_engine_compiles_nothing() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("deep/compiled");
    let bytes = guest_bytes("minimal");
    let first = cached(&folder, 1 << 30);
    first.compile(bytes.clone().into()).await.expect("a component");
    assert_eq!(first.compiled(), 1);
    let mode = std::fs::metadata(&folder).expect("the cache").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(entries(&folder).len(), 1);

    let second = cached(&folder, 1 << 30);
    let component = second.compile(bytes.clone().into()).await.expect("a component");
    assert_eq!(second.compiled(), 0);
    let linked = component.link(&Grants::default(), &Limits::default(), config(&[])).expect("it is linked");
    linked.instantiate(support::Script::new()).await.expect("and runs");

    // A damaged entry counts for nothing and is replaced.
    for damage in [&b"rubbish"[..], b""] {
        let entry = entries(&folder).remove(0);
        let mut content = std::fs::read(&entry).expect("the entry");
        content.truncate(content.len() / 2);
        content.extend_from_slice(damage);
        std::fs::write(&entry, content).expect("damage");
        let third = cached(&folder, 1 << 30);
        third.compile(bytes.clone().into()).await.expect("a component");
        assert_eq!(third.compiled(), 1);
        assert_eq!(entries(&folder).len(), 1);
    }
}

#[tokio::test]
async fn a_component_that_somebody_has_is_not_loaded_once_more() {
    // Not even from a cache: there is none.
    let engine = Engine::new(EngineOptions::default()).expect("an engine");
    let compile = async || engine.compile(guest_bytes("minimal").into()).await.expect("a component");
    let first = compile().await;
    let second = compile().await;
    assert_eq!(engine.compiled(), 1);
    drop(first);
    drop(compile().await);
    assert_eq!(engine.compiled(), 1, "one is still there");
    drop(second);
    compile().await;
    assert_eq!(engine.compiled(), 2);
}

#[tokio::test]
async fn the_cache_stays_within_its_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = cached(folder.path(), 1);
    for guest in ["minimal", "probe"] {
        engine.compile(guest_bytes(guest).into()).await.expect("a component");
        assert_eq!(entries(folder.path()).len(), 1, "only the newest is kept");
    }
    let again = cached(folder.path(), 1);
    again.compile(guest_bytes("probe").into()).await.expect("a component");
    assert_eq!(again.compiled(), 0);
}

#[tokio::test]
async fn a_cache_that_others_can_write_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("a mode");
    let options = EngineOptions { cache: Some(folder.path().to_owned()), ..EngineOptions::default() };
    let error = Engine::new(options).expect_err("not private").to_string();
    assert!(error.contains("chmod 700"), "{error}");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let options = EngineOptions { cache: Some(file), ..EngineOptions::default() };
    Engine::new(options).expect_err("not a folder");
}
