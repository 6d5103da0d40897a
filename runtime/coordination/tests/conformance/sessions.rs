//! Sessions: how they begin and end while the service is there.

use std::time::Duration;

use anyhow::{Result, ensure};
use bellwether_coordination::SessionEvent;
use bellwether_core::id::SessionId;
use bellwether_core::request::{CreateMode, Reply, RequestError};

use super::bed::{Bed, TIMEOUT, create, get};

pub async fn opened_tells_id_and_timeout(bed: Bed) -> Result<()> {
    let mut client = bed.opening(TIMEOUT);
    let event = client.next_event().await?;
    ensure!(
        matches!(event, SessionEvent::Opened { session, timeout } if session != SessionId(0) && timeout == TIMEOUT)
    );
    client.close().await
}

pub async fn close_takes_the_ephemerals_along(bed: Bed) -> Result<()> {
    let mut client = bed.client_with(Duration::from_secs(50)).await?;
    let mut other = bed.client().await?;
    client.ok(create("/e", b"", CreateMode::Ephemeral)).await?;
    let gone = other.watch(get("/e", true)).await?;
    client.close().await?;
    other.fired(gone).await?;
    assert_eq!(other.err(get("/e", false)).await?, RequestError::NoNode);
    other.close().await
}

pub async fn close_comes_after_what_was_submitted(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let tags: Vec<_> =
        (0..50).map(|n| client.submit(create(&format!("/p{n:02}"), b"", CreateMode::Persistent))).collect();
    client.begin_close();
    for tag in tags {
        ensure!(matches!(client.answer(tag).await?, Ok(Reply::Created { .. })));
    }
    assert!(!client.await_ended().await?);
    let mut other = bed.client().await?;
    assert_eq!(other.list("/").await?.len(), 50);
    other.close().await
}

pub async fn a_dropped_session_runs_out(bed: Bed) -> Result<()> {
    let timeout = Duration::from_secs(2);
    let mut client = bed.client_with(timeout).await?;
    let mut other = bed.client().await?;
    client.ok(create("/e", b"", CreateMode::Ephemeral)).await?;
    let gone = other.watch(get("/e", true)).await?;
    let dropped = std::time::Instant::now();
    client.crash();
    other.fired(gone).await?;
    // It was not closed; the last ping may have been a while ago.
    ensure!(dropped.elapsed() > timeout / 3, "gone after {:?}", dropped.elapsed());
    other.close().await
}

pub async fn too_many_requests_are_refused(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    client.create("/a", b"").await?;
    // Nobody listens meanwhile, so nothing counts as answered beyond what the channel takes.
    let tags: Vec<_> = (0..12_000).map(|_| client.submit(get("/a", false))).collect();
    let mut refused = 0;
    for tag in tags {
        match client.answer(tag).await? {
            Ok(_) => {}
            Err(RequestError::Refused(_)) => refused += 1,
            Err(other) => anyhow::bail!("{other:?}"),
        }
    }
    ensure!((1..=2_000).contains(&refused), "{refused} were refused");
    client.ok(get("/a", false)).await?;
    client.close().await
}
