//! What the sums cost in each language (`guests/README.md`): prints a table.
//!
//! ```sh
//! cargo build --workspace --example languages && target/debug/examples/languages
//! ```

#![allow(clippy::expect_used, reason = "whoever runs it wants to know what is missing")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/languages/sheet.rs"]
mod sheet;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_core::callback::Callback;
use bellwether_guest::{Component, Engine, EngineOptions, Grants, Host, Instance, Limits, Linked};
use bellwether_tests::guests::{LANGUAGES, language};
use bellwether_tests::measure::{megabytes, resident};
use bytes::Bytes;
use sheet::{PATIENCE, Sheet, members};

const INSTANCES: usize = 40;
const CALLS: usize = 1_000;

fn engine(cache: Option<&Path>) -> Engine {
    Engine::new(EngineOptions { cache: cache.map(Path::to_owned), ..EngineOptions::default() }).expect("an engine")
}

async fn compile(cache: Option<&Path>, bytes: &Bytes) -> (Duration, Component) {
    let engine = engine(cache);
    let begun = Instant::now();
    let component = engine.compile(bytes.clone()).await.expect("the guest fits the contract");
    (begun.elapsed(), component)
}

async fn instance(linked: &Linked) -> Instance {
    linked.instantiate(Arc::new(Sheet::default()) as Arc<dyn Host>).await.expect("an instance")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn calls(instance: &Instance, callback: Callback) -> Duration {
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let begun = Instant::now();
        instance.call(callback.clone(), PATIENCE).await.expect("a call that does nothing much");
        times.push(begun.elapsed());
    }
    median(times)
}

fn memory() -> u64 {
    resident(std::process::id().cast_signed()).expect("Linux tells")
}

// One thread, so that no call waits for another to wake.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("| | component | compile | compiled before | instantiate | empty callback | 100 members | an instance |");
    println!("|---|---|---|---|---|---|---|---|");
    let ids: Vec<String> = (0..100).map(|n| format!("member-{n}")).collect();
    let hundred: Vec<(&str, Option<&str>)> = ids.iter().map(|id| (id.as_str(), Some("2"))).collect();
    for name in LANGUAGES {
        let bytes: Bytes = std::fs::read(language(name)).expect("the component can be read").into();
        let (cold, _) = compile(None, &bytes).await;
        let folder = tempfile::tempdir().expect("a folder");
        let cache = folder.path().join("compiled");
        let _ = compile(Some(&cache), &bytes).await;
        let (cached, component) = compile(Some(&cache), &bytes).await;

        let linked = component.link(&Grants::default(), &Limits::default(), BTreeMap::new()).expect("all is granted");
        // The first one makes what all share.
        let first = instance(&linked).await;
        first.call(members(1, &hundred, &[], &[]), PATIENCE).await.expect("a call");
        let (mut instances, mut times, before) = (Vec::new(), Vec::new(), memory());
        for _ in 0..INSTANCES {
            let begun = Instant::now();
            instances.push(instance(&linked).await);
            times.push(begun.elapsed());
        }
        for instance in &instances {
            instance.call(members(1, &hundred, &[], &[]), PATIENCE).await.expect("a call");
        }
        let held = memory().saturating_sub(before) / INSTANCES as u64;
        drop(instances);
        let empty = calls(&first, Callback::Tick).await;
        let changed = calls(&first, members(2, &[], &hundred, &[])).await;
        println!(
            "| {name} | {:.2} MiB | {:.2} s | {:.1} ms | {:.0} µs | {:.1} µs | {:.0} µs | {:.2} MB |",
            bytes.len() as f64 / f64::from(1 << 20),
            cold.as_secs_f64(),
            cached.as_secs_f64() * 1e3,
            median(times).as_secs_f64() * 1e6,
            empty.as_secs_f64() * 1e6,
            changed.as_secs_f64() * 1e6,
            megabytes(held),
        );
    }
}
