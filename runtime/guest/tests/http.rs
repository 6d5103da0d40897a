//! `wasi:http`: which requests leave, and what is said of those that do not.

#![allow(clippy::expect_used, reason = "a test says what it relies on")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_core::callback::Callback;
use bellwether_guest::{Component, Grants, Host, Instance, Limits, PoolOptions, WorkerPool};
use bellwether_tests::guests::guest_bytes;
use support::{Script, config, engine, task};
use tokio::sync::OnceCell;

async fn caller() -> &'static Component {
    static CALLER: OnceCell<Component> = OnceCell::const_new();
    CALLER.get_or_init(|| async { engine().compile(guest_bytes("caller").into()).await.expect("it is well") }).await
}

fn grants() -> Grants {
    let http = ["https://hooks.example", "http://[::1]:8080"];
    Grants { http: http.iter().map(|origin| origin.parse().expect("an origin")).collect(), ..Grants::default() }
}

/// What came of an order of the guest's, in its words; and what the host was asked for meanwhile.
async fn ordered(order: &str, limits: &Limits) -> (String, Vec<String>, Arc<Script>, Instance) {
    let script = Script::new();
    let linked = caller().await.link(&grants(), limits, config(&[("on-tick", order)])).expect("all is granted");
    let instance = linked.instantiate(Arc::clone(&script) as Arc<dyn Host>).await.expect("an instance");
    instance.call(Callback::Tick, limits.callback).await.expect("the guest bears it");
    (script.lines("on-tick").concat(), script.lines("http"), script, instance)
}

#[tokio::test]
async fn a_request_to_an_origin_that_is_granted_is_the_hosts_to_make() {
    for (order, asked) in [
        ("GET https://hooks.example", "GET https://hooks.example/ caller "),
        ("POST https://hooks.example:443/a?b=c hello", "POST https://hooks.example:443/a?b=c caller hello"),
        ("DELETE http://[::1]:8080/x", "DELETE http://[::1]:8080/x caller "),
        ("PATCH https://HOOKS.example/", "PATCH https://HOOKS.example/ caller "),
    ] {
        let (told, heard, _, instance) = ordered(order, &Limits::default()).await;
        assert_eq!(heard, [asked], "{order}");
        assert_eq!(told, "299 made");
        assert!(!instance.is_poisoned());
    }
}

#[tokio::test]
async fn no_other_origin_is_reached_however_alike_it_looks() {
    for order in [
        "GET https://hooks.example.evil.example/",
        "GET https://hooks.examples/",
        "GET http://hooks.example/",
        "GET https://hooks.example:8443/",
        "GET http://[::1]/",
        "GET http://[::2]:8080/",
        "GET https://evil.example/https://hooks.example/",
    ] {
        let (told, heard, script, instance) = ordered(order, &Limits::default()).await;
        assert_eq!(heard, [""; 0], "{order}");
        assert!(told.contains("HTTP-request-denied"), "{order}: {told}");
        let said = script.lines("runtime").concat();
        assert!(
            said.contains("`http` under [group.grants] has https://hooks.example, http://[::1]:8080; add"),
            "{said}"
        );
        assert!(!instance.is_poisoned());
    }
    for order in [
        "GET https://hooks.example@evil.example/",
        "GET https://me:hunter2@hooks.example/",
        "GET gopher://hooks.example/",
    ] {
        let (told, heard, script, _) = ordered(order, &Limits::default()).await;
        assert_eq!(heard, [""; 0], "{order}");
        assert!(told.starts_with("failed: "), "{order}: {told}");
        assert!(!script.lines("runtime").concat().contains("hunter2"));
    }
    let (told, heard, ..) = ordered("CONNECT https://hooks.example/", &Limits::default()).await;
    assert!(heard.is_empty() && told.contains("MethodInvalid"), "{told}");
}

#[tokio::test]
async fn without_a_grant_the_component_is_not_linked() {
    let error =
        caller().await.link(&Grants::default(), &Limits::default(), config(&[])).expect_err("nothing is granted");
    for part in
        ["`wasi:http/outgoing-handler@0.2.", "which is not granted: set `http = [\"https://…\"]` under [group.grants]"]
    {
        assert!(error.reason.contains(part), "{error}");
    }
}

#[tokio::test]
async fn bodies_have_a_bound() {
    let limits = Limits { message_bytes: 100_000, ..Limits::default() };
    let (told, heard, ..) = ordered("POST https://hooks.example/ x*100000", &limits).await;
    assert!(heard.concat().len() > 100_000 && told == "299 made", "{told}");
    let (told, heard, _, instance) = ordered("POST https://hooks.example/ x*100001", &limits).await;
    assert!(heard.is_empty() && told.contains("RequestBodySize(Some(100000))"), "{told}");
    assert!(!instance.is_poisoned());
    // Whatever a message may have.
    let (told, heard, ..) = ordered("POST https://hooks.example/ x*5000000", &Limits::default()).await;
    assert!(heard.is_empty() && told.contains("RequestBodySize(Some(4194304))"), "{told}");
}

#[tokio::test]
async fn what_is_not_sent_has_a_bound_too() {
    for (order, held) in [
        ("bodies 64", "64 bodies, 8192 KiB"),
        ("bodies 300", "64 bodies, 8192 KiB"),
        ("responses 10", "0 bodies"),
        ("method 64", "taken"),
        ("method 65", "refused"),
        ("authority 512", "taken"),
        ("authority 513", "refused"),
        ("path 16383", "taken"),
        ("path 16384", "refused"),
        ("fields 24", "taken"),
    ] {
        let (told, _, script, instance) = ordered(&format!("hold {order}"), &Limits::default()).await;
        assert_eq!(told, held, "{order}");
        assert!(!instance.is_poisoned());
        let warned = script.lines("runtime").concat().contains("this instance holds 64 requests that have one");
        assert_eq!(warned, order == "bodies 300", "{order}");
        // What a call has let go of is free again.
        instance.call(Callback::Tick, Duration::from_secs(5)).await.expect("the guest bears it");
        assert_eq!(script.lines("on-tick"), [held; 2], "{order}");
    }
}

#[tokio::test]
async fn a_guest_that_holds_too_much_is_stopped_and_told_why() {
    for (order, why) in [("hold bodies 2000", "1024 handles"), ("hold fields 32", "size of fields exceeds limit")] {
        let linked =
            caller().await.link(&grants(), &Limits::default(), config(&[("on-tick", order)])).expect("granted");
        let instance = linked.instantiate(Script::new() as Arc<dyn Host>).await.expect("an instance");
        let failure = instance.call(Callback::Tick, Duration::from_secs(5)).await.expect_err("it is too much");
        assert!(failure.to_string().contains(why), "{order}: {failure:?}");
    }
}

#[tokio::test]
async fn what_a_task_has_asked_for_ends_with_it() {
    for order in ["hold question https://hooks.example/hang", "hold answer https://hooks.example/"] {
        let script = Script::new();
        let linked = caller().await.link(&grants(), &Limits::default(), config(&[])).expect("all is granted");
        let options = PoolOptions { parallelism: 1, queue: 0, recycle_after: 0 };
        let host = Arc::clone(&script);
        let pool = WorkerPool::new(linked, options, Arc::new(move || Arc::clone(&host) as Arc<dyn Host>));
        let patience = Duration::from_secs(20);
        // More than may be under way, or held, at once; in the same instance.
        for _ in 0..20 {
            assert_eq!(pool.handle(task(order), patience).await.expect("an answer"), "forgotten", "{order}");
            // A request that is made while the other one is under way.
            let answer = pool.handle(task("GET https://hooks.example/"), patience).await.expect("an answer");
            assert_eq!(answer, "299 made", "{order}");
        }
        script.hangs(0).await;
        assert_eq!(pool.instances_made(), 1);
    }
}

#[tokio::test]
async fn so_many_requests_may_be_under_way_at_once() {
    for (order, told) in [
        ("hold answers 16 https://hooks.example/", "16 forgotten"),
        ("hold answers 17 https://hooks.example/", "ConnectionLimitReached"),
    ] {
        let (said, ..) = ordered(order, &Limits::default()).await;
        assert!(said.contains(told), "{order}: {said}");
    }
}

#[tokio::test]
async fn an_answer_with_too_long_a_header_is_refused() {
    let (told, ..) = ordered("GET https://hooks.example/long-header", &Limits::default()).await;
    assert!(told.contains("HttpResponseHeaderSectionSize"), "{told}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_the_call_its_time_and_not_the_instance() {
    let limits = Limits { callback: Duration::from_secs(1), ..Limits::default() };
    let begun = Instant::now();
    let (told, _, script, instance) = ordered("GET https://hooks.example/hang", &limits).await;
    assert!(told.contains("HTTP-response-timeout"), "{told}");
    assert!(begun.elapsed() >= Duration::from_millis(900), "it ended after {:?}", begun.elapsed());
    assert!(!instance.is_poisoned());
    script.hangs(0).await;
}

#[tokio::test]
async fn a_host_that_refuses_is_heard() {
    let (told, ..) = ordered("GET https://hooks.example/not-leader", &Limits::default()).await;
    assert!(told.contains("not-leader"), "{told}");
    let (told, ..) = ordered("GET https://hooks.example/refused", &Limits::default()).await;
    assert!(told.contains("connection-refused"), "{told}");
}
