//! The faults that the coordinator in memory can bring about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bellwether_coordination::memory::{MemoryCoordinator, Whom};
use bellwether_coordination::{Coordinator, SessionEvent};
use bellwether_core::id::{Generation, Tag};
use bellwether_core::request::{CreateMode, Request, RequestError};

use super::bed::{Client, TIMEOUT, create, delete, get, list};

async fn client(memory: &MemoryCoordinator) -> Result<Client> {
    let mut client = Client::open(memory, TIMEOUT);
    client.await_opened().await?;
    Ok(client)
}

/// Trap 1: the create is done, its reply is lost, the session lives.
#[tokio::test]
async fn a_lost_reply_ends_as_unknown() -> Result<()> {
    let memory = MemoryCoordinator::new();
    let mut client = client(&memory).await?;
    let watch = client.watch(list("/", true)).await?;
    memory.drop_replies(client.id, true);
    let tag = client.submit(create("/ghost", b"", CreateMode::Ephemeral));
    assert!(memory.inspect(|server| server.data("/ghost").is_some()));
    memory.reconnect(client.id);
    assert_eq!(client.next_event().await?, SessionEvent::Disconnected);
    match client.next_event().await? {
        SessionEvent::Answered { tag: found, result: Err(RequestError::Unknown(_)) } if found == tag => {}
        other => bail!("{other:?}"),
    }
    client.await_reconnected().await?;
    client.fired(watch).await?;
    assert_eq!(client.get("/ghost").await?.1.owner, Some(client.id));
    client.close().await
}

#[tokio::test]
async fn a_read_whose_answer_is_lost_leaves_no_watch() -> Result<()> {
    let memory = MemoryCoordinator::new();
    let mut client = client(&memory).await?;
    memory.drop_replies(client.id, true);
    let lost = client.submit(get("/", true));
    memory.delay(Duration::from_secs(3600));
    memory.drop_replies(client.id, false);
    let late = client.submit(list("/", true));
    memory.disconnect(client.id);
    memory.delay(Duration::ZERO);
    for tag in [lost, late] {
        ensure!(matches!(client.answer(tag).await?, Err(RequestError::Unknown(_))));
    }
    memory.operate(super::bed::set("/", b"x", None))?;
    memory.operate(create("/a", b"", CreateMode::Persistent))?;
    memory.reconnect(client.id);
    client.await_reconnected().await?;
    client.not_fired(&[lost, late]).await?;
    assert_eq!(memory.inspect(|server| server.watch_count()), 0);
    client.close().await
}

#[tokio::test]
async fn answers_on_their_way_are_lost_with_the_connection() -> Result<()> {
    let memory = MemoryCoordinator::new();
    let mut client = client(&memory).await?;
    let watch = client.watch(get("/", true)).await?;
    memory.delay(Duration::from_secs(3600));
    let tag = client.submit(super::bed::set("/", b"x", None));
    memory.disconnect(Whom::All);
    assert_eq!(client.next_event().await?, SessionEvent::Disconnected);
    ensure!(matches!(client.answer(tag).await?, Err(RequestError::Unknown(_))));
    memory.delay(Duration::ZERO);
    memory.reconnect(Whom::All);
    client.await_reconnected().await?;
    client.fired(watch).await?;
    assert_eq!(&*client.get("/").await?.0, b"x");
    client.close().await
}

#[tokio::test]
async fn a_session_can_be_expired() -> Result<()> {
    let memory = MemoryCoordinator::new();
    let mut one = client(&memory).await?;
    let mut two = client(&memory).await?;
    one.ok(create("/e", b"", CreateMode::Ephemeral)).await?;
    let gone = two.watch(get("/e", true)).await?;
    memory.expire(one.id);
    ensure!(!one.await_ended().await?);
    two.fired(gone).await?;
    // One that is disconnected hears of it when it is back.
    memory.disconnect(two.id);
    two.await_disconnected().await?;
    memory.expire(two.id);
    assert_eq!(memory.inspect(|server| server.sessions()), []);
    memory.reconnect(two.id);
    ensure!(!two.await_ended().await?);
    Ok(())
}

#[tokio::test]
async fn a_killed_owner_hears_nothing_and_its_session_runs_out() -> Result<()> {
    let memory = MemoryCoordinator::new();
    let mut victim = Client::open(&memory, Duration::from_millis(300));
    victim.await_opened().await?;
    let mut other = client(&memory).await?;
    victim.ok(create("/e", b"", CreateMode::Ephemeral)).await?;
    let gone = other.watch(get("/e", true)).await?;
    let killed = Instant::now();
    memory.kill(victim.id);
    victim.submit(delete("/e", None));
    other.fired(gone).await?;
    ensure!(killed.elapsed() >= Duration::from_millis(100), "{:?}", killed.elapsed());
    ensure!(victim.next_event().await.is_err());
    other.close().await
}

#[tokio::test]
async fn an_operator_is_heard() -> Result<()> {
    let memory = MemoryCoordinator::new();
    let mut client = client(&memory).await?;
    client.ok(create("/e", b"", CreateMode::Ephemeral)).await?;
    let watch = client.watch(get("/e", true)).await?;
    memory.operate(delete("/e", None))?;
    client.fired(watch).await?;
    memory.set_counter("/", -7)?;
    client.ok(create("/n-", b"", CreateMode::EphemeralSequential)).await?;
    assert_eq!(client.list("/").await?, ["n--000000007"]);
    client.close().await
}

/// An owner that is slow to listen keeps its session.
#[tokio::test(start_paused = true)]
async fn a_slow_owner_keeps_its_session() -> Result<()> {
    let memory = MemoryCoordinator::new();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let inner = gate.clone();
    let mut session = memory.open(
        Generation(1),
        Duration::from_secs(1),
        Arc::new(move |_, _| {
            let gate = inner.clone();
            Box::pin(async move {
                // Held up until the test is over.
                let _ = gate.acquire().await;
            })
        }),
    );
    session.submit(Tag(1), Request::Sync { path: "/".to_owned() });
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(memory.inspect(|server| server.sessions().len()), 1);
    drop(session);
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(memory.inspect(|server| server.sessions().len()), 0);
    gate.close();
    Ok(())
}
