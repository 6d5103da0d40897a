//! Tasks, and what they reach: the pool, the imports and the grants.

#![allow(clippy::expect_used, reason = "a test says what it relies on")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellwether_core::work::WorkError;
use bellwether_guest::grants::{FileMode, FolderGrant};
use bellwether_guest::{Grants, Host, Hosts, Limits, PoolOptions, WorkerPool};
use support::{PATIENCE, Script, linked, task};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SMALL: PoolOptions = PoolOptions { parallelism: 2, queue: 2, recycle_after: 0 };

fn hosts(script: &Arc<Script>) -> Hosts {
    let script = Arc::clone(script);
    Arc::new(move || Arc::clone(&script) as Arc<dyn Host>)
}

async fn pool_of(options: PoolOptions, grants: &Grants, limits: &Limits) -> (WorkerPool, Arc<Script>) {
    let script = Script::new();
    let linked = linked(grants, limits, &[("colour", "green"), ("size", "4")]).await;
    (WorkerPool::new(linked, options, hosts(&script)), script)
}

async fn pool(options: PoolOptions) -> (WorkerPool, Arc<Script>) {
    pool_of(options, &Grants::default(), &Limits::default()).await
}

async fn done(pool: &WorkerPool, order: &str) -> Result<String, WorkError> {
    let answer = pool.handle(task(order), PATIENCE).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn well(pool: &WorkerPool, order: &str) -> String {
    done(pool, order).await.unwrap_or_else(|error| panic!("{order}: {error}"))
}

async fn badly(pool: &WorkerPool, order: &str) -> String {
    match done(pool, order).await {
        Err(WorkError::Failed(text)) => text,
        other => panic!("{order}: {other:?}"),
    }
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}, in time"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_reaches_the_guest_and_its_answer_comes_back() {
    let (pool, _) = pool(SMALL).await;
    assert_eq!(well(&pool, "who").await, "leader Some(7)");
    assert_eq!(well(&pool, "echo hello").await, "hello");
    assert_eq!(badly(&pool, "refuse no").await, "no");
    assert_eq!(pool.instances_made(), 1, "one instance does one task after the other");
    assert_eq!(pool.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_task_finds_an_instance_in_a_warm_pool() {
    let (pool, _) = pool(SMALL).await;
    pool.warm().await.expect("an instance");
    assert_eq!(pool.instances_made(), 1);
    assert_eq!(well(&pool, "count").await, "1");
    assert_eq!(pool.instances_made(), 1, "the task had it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_hears_of_a_task_before_the_guest_and_nothing_of_an_instance_that_is_only_made() {
    let (pool, script) = pool(SMALL).await;
    pool.warm().await.expect("an instance");
    assert_eq!(script.given.load(Ordering::SeqCst), 0, "no task was given");
    for tasks in [b"1", b"2"] {
        assert_eq!(well(&pool, "send given 1000 x").await, format!("Ok({tasks:?})"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_run_in_parallel_and_too_many_are_refused_at_once() {
    let (pool, script) = pool(SMALL).await;
    let running: Vec<_> = (0..4)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { done(&pool, "send hang 60000 x").await })
        })
        .collect();
    script.hangs(2).await;
    until("all four are taken", || pool.in_flight() == 4).await;
    // Two run, two wait: one more is too many.
    until("the queue is full", || {
        let refused = futures::FutureExt::now_or_never(pool.handle(task("echo"), PATIENCE));
        refused == Some(Err(WorkError::Overloaded))
    })
    .await;
    for task in &running {
        task.abort();
    }
    until("the slots are free", || pool.in_flight() == 0).await;
    script.hangs(0).await;
    assert_eq!(well(&pool, "echo free").await, "free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_fails_its_task_and_costs_the_instance() {
    let (pool, _) = pool(SMALL).await;
    assert_eq!(well(&pool, "count").await, "1");
    assert_eq!(well(&pool, "count").await, "2");
    let story = badly(&pool, "panic oh dear").await;
    assert!(story.contains("the guest trapped") && story.contains("oh dear"), "{story}");
    assert_eq!(well(&pool, "count").await, "1", "a fresh instance");
    assert_eq!(pool.instances_made(), 2);
    let story = badly(&pool, "allocate").await;
    assert!(story.contains("over its limit"), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_replaced_after_so_many_tasks() {
    let (pool, _) = pool(PoolOptions { parallelism: 1, queue: 0, recycle_after: 3 }).await;
    let mut counts = Vec::new();
    for _ in 0..7 {
        counts.push(well(&pool, "count").await);
    }
    assert_eq!(counts, ["1", "2", "3", "1", "2", "3", "1"]);
    assert_eq!(pool.instances_made(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_takes_too_long_times_out_wherever_it_is() {
    let (pool, script) = pool(PoolOptions { parallelism: 1, queue: 1, recycle_after: 0 }).await;
    let short = Duration::from_millis(100);
    assert_eq!(pool.handle(task("loop"), short).await, Err(WorkError::TimedOut));
    assert_eq!(pool.handle(task("sleep 600000"), short).await, Err(WorkError::TimedOut));
    let busy = pool.clone();
    let running = tokio::spawn(async move { done(&busy, "send hang 60000 x").await });
    script.hangs(1).await;
    assert_eq!(pool.handle(task("echo"), short).await, Err(WorkError::TimedOut), "while it waits for its turn");
    running.abort();
    until("the slot is free", || pool.in_flight() == 0).await;
    assert_eq!(well(&pool, "echo again").await, "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_refuses_what_is_new_and_waits_for_what_runs() {
    let (pool, script) = pool(SMALL).await;
    let busy = pool.clone();
    let running = tokio::spawn(async move { done(&busy, "send hang 60000 x").await });
    script.hangs(1).await;
    assert_eq!(pool.drain(Duration::from_millis(20)).await, 1, "it is still there");
    assert_eq!(done(&pool, "echo").await, Err(WorkError::Overloaded));
    let drained = pool.drain(PATIENCE);
    running.abort();
    assert_eq!(drained.await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_a_pool_stops_its_guests() {
    // None of them ends by itself as soon as this test gives up.
    let long = PATIENCE * 10;
    let (pool, script) = pool_of(SMALL, &Grants::default(), &Limits { task: long, ..Limits::default() }).await;
    let holders = Arc::strong_count(&script);
    let busy = pool.clone();
    let running = tokio::spawn(async move { busy.handle(task("send hang 60000 x"), long).await });
    let other = pool.clone();
    let looping = tokio::spawn(async move { other.handle(task("loop"), long).await });
    script.hangs(1).await;
    until("both have an instance", || pool.instances_made() == 2).await;
    pool.stop();
    for task in [running, looping] {
        let result = task.await.expect("the task ends");
        assert!(matches!(&result, Err(WorkError::Failed(how)) if how.contains("stopped by force")), "{result:?}");
    }
    script.hangs(0).await;
    // Also the one that computes, wherever it does.
    until("the guests are gone", || Arc::strong_count(&script) == holders).await;
    assert_eq!(done(&pool, "echo").await, Err(WorkError::Overloaded));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_limited() {
    let limits = Limits { message_bytes: 1_000, ..Limits::default() };
    let (pool, _) = pool_of(SMALL, &Grants::default(), &limits).await;
    assert_eq!(well(&pool, "answer 1000").await.len(), 1_000);
    assert_eq!(done(&pool, "answer 1001").await, Err(WorkError::TooLarge(1_000)));
    let story = badly(&pool, "answer 2000000").await;
    assert!(story.contains("over its limit") && story.contains("1000 bytes"), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_sent_within_time_and_size() {
    let limits = Limits { message_bytes: 1_000, ..Limits::default() };
    let (pool, script) = pool_of(SMALL, &Grants::default(), &limits).await;
    assert_eq!(well(&pool, "send echo 9000 hi").await, "Ok([104, 105])");
    let timeout = script.last_timeout.lock().expect("a timeout").expect("a timeout");
    assert!(timeout <= Duration::from_millis(9_000), "{timeout:?}");
    assert_eq!(well(&pool, "send nobody 9000 hi").await, "Err(Error::UnknownMember)");
    assert_eq!(well(&pool, "send ../x 9000 hi").await, "Err(Error::UnknownMember)");
    assert_eq!(well(&pool, "send stale 9000 hi").await, "Err(Error::StaleEpoch(9))");
    assert_eq!(well(&pool, "send big 9000 hi").await, "Err(Error::TooLarge(1000))");
    assert_eq!(well(&pool, "send-bytes echo 9000 1000").await, "Ok(1000)");
    assert_eq!(well(&pool, "send-bytes echo 9000 1001").await, "Err(Error::TooLarge(1000))");
    assert_eq!(well(&pool, "send hang 20 hi").await, "Err(Error::TimedOut)");
    script.hangs(0).await;
    // The guest hears of the time-out before its own budget ends.
    let answer = pool.handle(task("send hang 60000 hi"), Duration::from_millis(400)).await.expect("the guest answers");
    assert_eq!(&answer[..], b"Err(Error::TimedOut)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scattered_work_runs_at_once_and_is_answered_in_order() {
    let (pool, script) = pool(SMALL).await;
    let answers = well(&pool, "scatter 6 2000").await;
    let wanted: Vec<String> =
        (0..6).map(|n| if n == 3 { "Err(Error::TimedOut)".into() } else { format!("Ok(\"echo {n}\")") }).collect();
    assert_eq!(answers, format!("[{}]", wanted.join(", ")));
    let most = script.most_sending.load(Ordering::SeqCst);
    assert!(most > 1, "at the same time");
    let many = well(&pool, "scatter 500 2000").await;
    assert_eq!(many.matches("Ok(").count(), 499, "more than run at once, and one that hangs");
    assert!(script.most_sending.load(Ordering::SeqCst) <= 66, "bounded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_cluster_and_configuration_are_the_node_s() {
    let (pool, script) = pool(SMALL).await;
    assert_eq!(well(&pool, "put k v").await, "Ok(0)");
    assert_eq!(well(&pool, "put k w").await, "Ok(1)");
    assert_eq!(well(&pool, "put-new k x").await, "Err(Error::Conflict(Some(1)))");
    assert_eq!(well(&pool, "get k").await, "Ok(Some((\"w\", 1)))");
    assert_eq!(well(&pool, "get none").await, "Ok(None)");
    assert_eq!(well(&pool, "list k").await, "Ok([\"k\"])");
    assert_eq!(well(&pool, "watch k").await, "Ok(())");
    assert_eq!(well(&pool, "unwatch k").await, "Ok(())");
    assert_eq!(well(&pool, "delete k").await, "Ok(())");
    assert!(script.entries.lock().expect("entries").is_empty());
    assert_eq!(well(&pool, "members").await, "w1,w2");
    let cluster = well(&pool, "cluster").await;
    assert!(cluster.starts_with("(\"me\", Some(7), Ok(Some(LeaderInfo") && cluster.ends_with("Ok(()))"), "{cluster}");
    assert_eq!(well(&pool, "get k").await, "Err(Error::NotLeader)", "it has resigned");
    assert_eq!(well(&pool, "config colour").await, "Ok(Some(\"green\"))");
    assert_eq!(well(&pool, "config shape").await, "Ok(None)");
    assert_eq!(well(&pool, "config-all").await, "Ok([(\"colour\", \"green\"), (\"size\", \"4\")])");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outside_is_reached_without_a_grant() {
    let (pool, _) = pool(SMALL).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    assert_eq!(well(&pool, "env HOME").await, "None");
    badly(&pool, "read /etc/hostname").await;
    badly(&pool, &format!("connect {address}")).await;
    badly(&pool, "connect localhost:1").await;
    badly(&pool, "listen").await;
    badly(&pool, "udp").await;
    assert_ne!(well(&pool, "random").await, "");
    assert_eq!(well(&pool, "sleep 1").await, "slept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_granted_is_reached_and_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("words"), "to read").expect("a file");
    let open = tempfile::tempdir().expect("a folder");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let closed = other.local_addr().expect("its address");
    let grants = Grants {
        folders: vec![
            FolderGrant { host: folder.path().into(), guest: "/in".into(), mode: FileMode::Read },
            FolderGrant { host: open.path().into(), guest: "/out".into(), mode: FileMode::Write },
        ],
        env: [("GREETING".to_owned(), "hello".to_owned())].into(),
        connect: vec![format!("localhost:{port}")],
        ..Grants::default()
    };
    let (pool, _) = pool_of(SMALL, &grants, &Limits::default()).await;
    assert_eq!(well(&pool, "env GREETING").await, "Some(\"hello\")");
    assert_eq!(well(&pool, "env HOME").await, "None");
    assert_eq!(well(&pool, "read /in/words").await, "to read");
    badly(&pool, "write /in/more").await;
    badly(&pool, "read /in/../../etc/hostname").await;
    assert_eq!(well(&pool, "write /out/more").await, "written");
    assert_eq!(std::fs::read(open.path().join("more")).expect("the file"), b"written");
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut ping = [0; 4];
        stream.read_exact(&mut ping).await.expect("a ping");
        stream.write_all(b"pong").await.expect("an answer");
    });
    assert_eq!(well(&pool, &format!("connect 127.0.0.1:{port}")).await, "pong");
    server.await.expect("the server ends well");
    badly(&pool, &format!("connect {closed}")).await;
    badly(&pool, "listen").await;
    badly(&pool, "udp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_granted_folder_that_is_not_there_is_named() {
    let grants = Grants {
        folders: vec![FolderGrant { host: "/no/such/folder".into(), guest: "/in".into(), mode: FileMode::Read }],
        ..Grants::default()
    };
    let (pool, _) = pool_of(SMALL, &grants, &Limits::default()).await;
    let text = badly(&pool, "echo").await;
    assert!(text.contains("/no/such/folder") && text.contains("[group.grants]"), "{text}");
}
