//! The connection: what happens when it breaks, and when it comes back. On ZooKeeper the server is killed and started again.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bellwether_coordination::SessionEvent;
use bellwether_core::id::SessionId;
use bellwether_core::request::{CreateMode, RequestError};

use super::bed::{Bed, TIMEOUT, create, get, list, set, watch_children};

/// Long enough for a server to come back within it on a busy machine.
const LONG: Duration = Duration::from_secs(20);

pub async fn disconnect_and_reconnect(bed: Bed) -> Result<()> {
    let mut client = bed.client_with(LONG).await?;
    client.ok(create("/e", b"1", CreateMode::Ephemeral)).await?;
    let before = client.get("/e").await?.1;
    bed.cut().await?;
    client.await_disconnected().await?;
    bed.heal().await?;
    client.await_reconnected().await?;
    // The same session, with what it owns, and transaction ids go on.
    assert_eq!(client.get("/e").await?.1, before);
    assert_eq!(before.owner, Some(client.id));
    let after = client.set("/e", b"2").await?;
    ensure!(after.mzxid > before.mzxid);
    client.close().await
}

pub async fn unknown_while_disconnected(bed: Bed) -> Result<()> {
    let mut client = bed.client_with(LONG).await?;
    client.create("/a", b"").await?;
    bed.cut().await?;
    client.await_disconnected().await?;
    for request in [set("/a", b"never", None), get("/a", true), create("/b", b"", CreateMode::EphemeralSequential)] {
        let error = client.err(request).await?;
        ensure!(matches!(error, RequestError::Unknown(_)), "{error:?}");
    }
    bed.heal().await?;
    client.await_reconnected().await?;
    // Nothing was kept for later.
    assert_eq!(client.get("/a").await?.1.version, 0);
    assert_eq!(client.list("/").await?, ["a"]);
    client.close().await
}

pub async fn watches_survive_a_reconnect(bed: Bed) -> Result<()> {
    let mut client = bed.client_with(LONG).await?;
    client.create("/a", b"").await?;
    client.create("/b", b"").await?;
    let data = client.watch(get("/a", true)).await?;
    let children = client.watch(list("/a", true)).await?;
    let quiet = client.watch(get("/b", true)).await?;
    bed.cut().await?;
    client.await_disconnected().await?;
    bed.heal().await?;
    client.await_reconnected().await?;
    client.not_fired(&[data, children, quiet]).await?;
    let mut other = bed.client().await?;
    other.set("/a", b"x").await?;
    other.create("/a/c", b"").await?;
    client.fired(data).await?;
    client.fired(children).await?;
    client.not_fired(&[quiet]).await?;
    other.close().await?;
    client.close().await
}

pub async fn lasting_watches_do_not(bed: Bed) -> Result<()> {
    let mut client = bed.client_with(LONG).await?;
    client.create("/a", b"").await?;
    let before = client.watch(watch_children("/a")).await?;
    for round in 0..3 {
        bed.cut().await?;
        client.await_disconnected().await?;
        bed.heal().await?;
        client.await_reconnected().await?;
        let mut other = bed.client().await?;
        other.create(&format!("/a/quiet{round}"), b"").await?;
        assert_eq!(client.named(before).await?, [""; 0]);
        // As the owner does: it lets go of the one and sets another at once.
        client.forget(before);
        let after = client.watch(watch_children("/a")).await?;
        other.create(&format!("/a/told{round}"), b"").await?;
        assert_eq!(client.named(after).await?, [format!("told{round}")]);
        assert_eq!(client.named(before).await?, [""; 0]);
        client.forget(after);
        other.close().await?;
    }
    client.close().await
}

pub async fn a_long_cut_ends_the_session(bed: Bed) -> Result<()> {
    let mut client = bed.client_with(Duration::from_secs(1)).await?;
    bed.cut().await?;
    client.await_disconnected().await?;
    // Neither reconnected nor told by a server: the client concludes it by itself.
    let permanent = client.await_ended().await?;
    ensure!(!permanent);
    Ok(())
}

pub async fn close_while_disconnected(bed: Bed) -> Result<()> {
    let mut client = bed.client_with(Duration::from_secs(2)).await?;
    bed.cut().await?;
    client.await_disconnected().await?;
    client.begin_close();
    ensure!(!client.await_ended().await?);
    Ok(())
}

pub async fn opening_waits_for_the_service(bed: Bed) -> Result<()> {
    bed.cut().await?;
    let mut client = bed.opening(TIMEOUT);
    let mut abandoned = bed.opening(TIMEOUT);
    let reason = match client.next_event().await? {
        SessionEvent::Waiting { reason } => reason,
        other => bail!("not waiting: {other:?}"),
    };
    ensure!(bed.is_memory() || reason.contains("127.0.0.1:") && reason.contains("refused"), "{reason}");
    // There is no session yet, and nothing is kept for it.
    let error = client.err(set("/a", b"", None)).await?;
    ensure!(matches!(error, RequestError::Unknown(_)), "{error:?}");
    // One may stop waiting.
    abandoned.begin_close();
    ensure!(!abandoned.await_ended().await?);
    bed.heal().await?;
    client.await_opened().await?;
    ensure!(client.id != SessionId(0));
    client.create("/a", b"").await?;
    client.close().await
}
