//! One instance: its callbacks, and everything that can go wrong in one.

#![allow(clippy::expect_used, reason = "a test says what it relies on")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellwether_core::callback::{CallFailure, Callback, Cause, DemotionReason, Returned};
use bellwether_core::id::Epoch;
use bellwether_core::member::MembershipChange;
use bellwether_core::state::Entry;
use bellwether_guest::{Engine, EngineOptions, Grants, Host, Limits};
use bellwether_tests::guests::guest_bytes;
use support::{PATIENCE, Script, config, instance, limited, member, probe};

const TICK: Callback = Callback::Tick;

fn trap(result: Result<Returned, CallFailure>) -> String {
    match result {
        Err(CallFailure::Trapped(story)) => story,
        other => panic!("not a trap: {other:?}"),
    }
}

fn over(result: Result<Returned, CallFailure>) -> String {
    match result {
        Err(CallFailure::OverLimit(what)) => what,
        other => panic!("within its limits: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_callback_reaches_the_guest_with_what_it_carries() {
    let (guest, script) = instance(&[]).await;
    let change = MembershipChange {
        version: 3,
        joined: vec![member("a"), member("b")],
        changed: vec![member("c")],
        left: vec![member("d").id.clone()],
    };
    for callback in [
        Callback::Elected { epoch: Epoch(42), cause: Cause::Restart },
        Callback::MembersChanged(Arc::new(change)),
        TICK,
        Callback::StateChanged { key: "k".into(), entry: Some(Entry { value: b"v".as_slice().into(), version: 5 }) },
        Callback::StateChanged { key: "k".into(), entry: None },
        Callback::Demoted(DemotionReason::Failed("why".into())),
    ] {
        assert_eq!(guest.call(callback, PATIENCE).await, Ok(Returned::Done));
    }
    assert_eq!(script.lines("on-elected"), ["epoch 42 by Cause::Restart"]);
    assert_eq!(script.lines("on-members-changed"), ["v3 joined a@a:1,b@b:1 changed c@c:1 left d"]);
    assert_eq!(script.lines("on-tick").len(), 1);
    assert_eq!(script.lines("on-state-changed"), ["k holds v#5", "k holds nothing"]);
    assert_eq!(script.lines("on-demoted"), ["DemotionReason::Failed(\"why\")"]);
    assert!(!guest.is_poisoned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_the_guest_returns_leaves_it_as_it_is() {
    let (guest, _) = instance(&[("on-tick", "refuse not today")]).await;
    for _ in 0..2 {
        assert_eq!(guest.call(TICK, PATIENCE).await, Err(CallFailure::Refused("not today".into())));
    }
    assert!(!guest.is_poisoned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_tells_kind_place_and_last_words_and_loses_the_instance() {
    let (guest, _) = instance(&[("on-tick", "panic the sky fell")]).await;
    let story = trap(guest.call(TICK, PATIENCE).await);
    assert!(story.contains("unreachable"), "{story}");
    assert!(story.contains("probe::orders::boom"), "{story}");
    assert!(story.contains("the sky fell"), "{story}");
    assert!(!story.contains("wasmtime") && !story.contains(".cargo") && !story.contains('\n'), "{story}");
    assert!(guest.is_poisoned());
    let again = trap(guest.call(TICK, PATIENCE).await);
    assert!(again.contains("lost before") && again.contains("the sky fell"), "{again}");
    guest.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_and_endless_recursion_are_traps_as_well() {
    let (guest, _) = instance(&[("on-tick", "exit 3")]).await;
    let story = trap(guest.call(TICK, PATIENCE).await);
    assert!(story.contains("exit"), "{story}");
    let (guest, _) = instance(&[("on-tick", "recurse 0")]).await;
    let story = trap(guest.call(TICK, PATIENCE).await);
    assert!(story.contains("call stack exhausted"), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_computes_for_ever_is_stopped_when_its_budget_ends() {
    let (guest, script) = instance(&[("on-tick", "loop")]).await;
    let result = guest.call(TICK, Duration::from_millis(200)).await;
    assert_eq!(result, Err(CallFailure::TimedOut { budget_ms: 200 }));
    assert!(guest.is_poisoned());
    let told = script.lines("runtime").join("\n");
    assert!(told.contains("stopped after 200 ms in") && told.contains("probe::"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_waits_for_ever_is_stopped_when_its_budget_ends() {
    let (guest, _) = instance(&[("on-tick", "sleep 600000")]).await;
    let result = guest.call(TICK, Duration::from_millis(100)).await;
    assert_eq!(result, Err(CallFailure::TimedOut { budget_ms: 100 }));
    assert!(guest.is_poisoned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_ends_a_tight_loop() {
    let (guest, script) = instance(&[("on-tick", "loop")]).await;
    let runner = guest.clone();
    let call = tokio::spawn(async move { runner.call(TICK, PATIENCE).await });
    script.says("on-tick").await;
    let begun = Instant::now();
    guest.stop();
    assert_eq!(call.await.expect("the call ends"), Err(CallFailure::Stopped));
    assert!(begun.elapsed() < PATIENCE / 2);
    assert!(guest.is_poisoned());
    assert_eq!(guest.call(TICK, PATIENCE).await, Err(CallFailure::Stopped));
    guest.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_drops_the_host_call_that_a_guest_waits_in() {
    let (guest, script) = instance(&[("on-tick", "send hang 60000 x")]).await;
    let runner = guest.clone();
    let call = tokio::spawn(async move { runner.call(TICK, PATIENCE).await });
    script.hangs(1).await;
    guest.stop();
    assert_eq!(call.await.expect("the call ends"), Err(CallFailure::Stopped));
    script.hangs(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_behind_a_stopped_one_are_not_made() {
    let (guest, script) = instance(&[("on-tick", "send hang 60000 x")]).await;
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let guest = guest.clone();
            tokio::spawn(async move { guest.call(TICK, PATIENCE).await })
        })
        .collect();
    script.hangs(1).await;
    guest.stop();
    for call in calls {
        assert_eq!(call.await.expect("the call ends"), Err(CallFailure::Stopped));
    }
    assert_eq!(script.lines("on-tick").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waiting_stops_the_guest() {
    let (guest, script) = instance(&[("on-tick", "send hang 60000 x")]).await;
    let runner = guest.clone();
    let call = tokio::spawn(async move { runner.call(TICK, PATIENCE).await });
    script.hangs(1).await;
    call.abort();
    script.hangs(0).await;
    tokio::time::timeout(PATIENCE, guest.closed()).await.expect("the instance ends");
    assert!(guest.is_poisoned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_made_one_at_a_time_and_in_order() {
    let (guest, script) = instance(&[("on-tick", "send echo 1000 x")]).await;
    let calls =
        (0..20_u64).map(|n| guest.call(Callback::Elected { epoch: Epoch(n), cause: Cause::Election }, PATIENCE));
    for result in futures::future::join_all(calls).await {
        assert_eq!(result, Ok(Returned::Done));
    }
    let wanted: Vec<String> = (0..20).map(|n| format!("epoch {n} by Cause::Election")).collect();
    assert_eq!(script.lines("on-elected"), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_busy_guest_gives_way_to_others_on_the_same_thread() {
    // One that has no other place to go to.
    let engine = Engine::new(EngineOptions::default()).expect("an engine");
    let probe = engine.compile(guest_bytes("probe").into()).await.expect("the probe is well");
    let linked = probe.link(&Grants::default(), &Limits::default(), config(&[("on-tick", "loop")]));
    let script = Script::new();
    let guest = linked.expect("a release").instantiate(Arc::clone(&script) as _).await.expect("an instance");
    let beats = Arc::new(AtomicU64::new(0));
    let late = Arc::new(AtomicU64::new(0));
    let (beating, delayed) = (Arc::clone(&beats), Arc::clone(&late));
    let heart = tokio::spawn(async move {
        loop {
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_millis(1)).await;
            if begun.elapsed() > Duration::from_millis(250) {
                delayed.fetch_add(1, Ordering::SeqCst);
            }
            beating.fetch_add(1, Ordering::SeqCst);
        }
    });
    let runner = guest.clone();
    let call = tokio::spawn(async move { runner.call(TICK, PATIENCE).await });
    script.says("on-tick").await;
    // Progress, not time: so many beats must come while the guest computes.
    let before = beats.load(Ordering::SeqCst);
    let enough = async {
        while beats.load(Ordering::SeqCst) < before + 30 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, enough).await.expect("the heart beats on");
    assert!(!call.is_finished(), "the guest computes all the while");
    heart.abort();
    guest.stop();
    assert_eq!(call.await.expect("the call ends"), Err(CallFailure::Stopped));
    // One may be late because the machine is busy with something else.
    let late = late.load(Ordering::SeqCst);
    assert!(late <= 1, "{late} heartbeats of 1 ms took more than 250 ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_limited() {
    let (guest, _) = instance(&[("on-tick", "allocate")]).await;
    let what = over(guest.call(TICK, PATIENCE).await);
    assert!(what.contains("of memory") && what.contains("64 MiB") && what.contains("[group.limits]"), "{what}");
    assert!(guest.is_poisoned());
    let (guest, _) = instance(&[("on-tick", "allocate-mib 32")]).await;
    assert_eq!(guest.call(TICK, PATIENCE).await, Ok(Returned::Done));
    let (guest, _) = instance(&[("on-tick", "allocate-mib 64")]).await;
    over(guest.call(TICK, PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_too_large_for_its_limits_is_refused_before_it_is_instantiated() {
    let limits = Limits { memory_bytes: 64 << 10, ..Limits::default() };
    let error = probe().await.link(&Grants::default(), &limits, config(&[])).expect_err("too large");
    assert!(error.reason.contains("of memory from the start") && error.reason.contains("64 KiB"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_host_calls_end() {
    let limits = Limits { host_calls: 1_000, ..Limits::default() };
    let (guest, _) = limited(&limits, &[("on-tick", "host-calls 900"), ("on-demoted", "host-calls 2000")]).await;
    for _ in 0..3 {
        assert_eq!(guest.call(TICK, PATIENCE).await, Ok(Returned::Done), "the count begins anew with each call");
    }
    let what = over(guest.call(Callback::Demoted(DemotionReason::Resigned), PATIENCE).await);
    assert!(what.contains("1000 calls"), "{what}");
    let (guest, _) = limited(&limits, &[("on-tick", "wasi-calls")]).await;
    over(guest.call(TICK, PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_log_are_cut_and_counted() {
    let limits = Limits { log_bytes: 1_000, ..Limits::default() };
    let (guest, script) = limited(&limits, &[("on-tick", "flood 500")]).await;
    for call in 1..=2 {
        assert_eq!(guest.call(TICK, PATIENCE).await, Ok(Returned::Done));
        let told = script.lines("stdout");
        assert!(told.len() < 100 * call && told.len() > 10 * call, "{}", told.len());
        let cut = script.lines("runtime");
        assert_eq!(cut.len(), call, "once a call");
        assert!(cut[0].contains("more log lines") && cut[0].contains("1000 bytes"), "{cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_prints_is_told_line_by_line() {
    let (guest, script) = instance(&[("on-tick", "print one\ntwo\r\n\nlast")]).await;
    assert_eq!(guest.call(TICK, PATIENCE).await, Ok(Returned::Done));
    assert_eq!(script.lines("stdout"), ["one", "two", "", "last"]);
    assert_eq!(script.lines("stderr"), ["one", "two", "", "last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_limited() {
    let limits = Limits { message_bytes: 100_000, ..Limits::default() };
    let (guest, _) =
        limited(&limits, &[("on-tick", "send-bytes echo 1000 3000000"), ("snapshot", "answer 200000")]).await;
    let result = guest.call(Callback::Snapshot, PATIENCE).await;
    let Err(CallFailure::Refused(text)) = result else { panic!("{result:?}") };
    assert!(text.contains("snapshot") && text.contains("98 KiB"), "{text}");
    assert!(!guest.is_poisoned(), "a snapshot that is too large leaves the guest as it is");
    let what = over(guest.call(TICK, PATIENCE).await);
    assert!(what.contains("98 KiB"), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_handed_over() {
    let (old, _) = instance(&[]).await;
    for _ in 0..3 {
        assert_eq!(old.call(TICK, PATIENCE).await, Ok(Returned::Done));
    }
    let Ok(Returned::Snapshot(state)) = old.call(Callback::Snapshot, PATIENCE).await else { panic!("a snapshot") };
    assert_eq!(&state[..], b"1 3");
    let (new, _) = instance(&[]).await;
    assert_eq!(new.call(Callback::Restore(state), PATIENCE).await, Ok(Returned::Done));
    assert_eq!(new.call(TICK, PATIENCE).await, Ok(Returned::Done));
    let Ok(Returned::Snapshot(state)) = new.call(Callback::Snapshot, PATIENCE).await else { panic!("a snapshot") };
    assert_eq!(&state[..], b"1 4");
    let foreign = new.call(Callback::Restore(b"2 9".to_vec().into()), PATIENCE).await;
    assert!(matches!(foreign, Err(CallFailure::Refused(_))), "{foreign:?}");
    // The old one goes on as if nothing had happened.
    assert_eq!(old.call(TICK, PATIENCE).await, Ok(Returned::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_component_does_not_export_is_refused_in_words() {
    let bytes = guest_bytes("minimal");
    let minimal = support::engine().compile(bytes.into()).await.expect("a component");
    assert_eq!(minimal.exports(), Default::default());
    let linked = minimal.link(&Grants::default(), &Limits::default(), Default::default()).expect("it needs nothing");
    let guest = linked.instantiate(Script::new() as Arc<dyn Host>).await.expect("an instance");
    let elected = Callback::Elected { epoch: Epoch(1), cause: Cause::Election };
    assert_eq!(guest.call(elected, PATIENCE).await, Ok(Returned::Done));
    let tick = guest.call(TICK, PATIENCE).await;
    assert_eq!(tick, Err(CallFailure::Refused("the component does not export `ticker`".into())));
}
