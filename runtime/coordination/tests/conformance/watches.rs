//! Watches, those that fire once and lasting ones: which requests leave them, what they tell of, and when.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use bellwether_coordination::SessionEvent;
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError};

use super::bed::{Bed, PATIENCE, create, delete, get, list, set, watch_children};

pub async fn fire_once(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mut other = bed.client().await?;
    client.create("/a", b"").await?;
    let data = client.watch(get("/a", true)).await?;
    let children = client.watch(list("/a", true)).await?;
    other.set("/a", b"1").await?;
    client.fired(data).await?;
    client.not_fired(&[children]).await?;
    other.create("/a/b", b"").await?;
    client.fired(children).await?;
    other.set("/a", b"2").await?;
    other.ok(delete("/a/b", None)).await?;
    client.not_fired(&[data, children]).await?;
    other.close().await?;
    client.close().await
}

pub async fn fire_for_what_they_watch(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    client.create("/a", b"").await?;
    client.create("/a/b", b"").await?;
    let data = client.watch(get("/a", true)).await?;
    let children = client.watch(list("/a", true)).await?;
    let unwatched = [client.watch(get("/a", false)).await?, client.watch(list("/a", false)).await?];
    // Neither grandchildren nor a child's data are in a list.
    client.set("/a/b", b"x").await?;
    client.create("/a/b/c", b"").await?;
    client.not_fired(&[data, children]).await?;
    // Nor are children data; a sequential child is a child, and so is one that goes with its session.
    let mut other = bed.client().await?;
    other.ok(create("/a/s", b"", CreateMode::EphemeralSequential)).await?;
    client.fired(children).await?;
    let children = client.watch(list("/a", true)).await?;
    other.close().await?;
    client.fired(children).await?;
    client.not_fired(&[data]).await?;
    // A transaction fires what its operations do; one that fails fires nothing.
    let children = client.watch(list("/a", true)).await?;
    let check = Op::Check { path: "/a".to_owned(), version: Some(9) };
    let make = Op::Create { path: "/a/m".to_owned(), data: (*b"").into() };
    let write = Op::Set { path: "/a".to_owned(), data: (*b"").into(), version: None };
    client.err(Request::Multi(vec![make.clone(), write.clone(), check])).await?;
    client.not_fired(&[data, children]).await?;
    client.ok(Request::Multi(vec![make, write])).await?;
    client.fired(data).await?;
    client.fired(children).await?;
    client.not_fired(&unwatched).await?;
    client.close().await
}

pub async fn fire_on_deletion(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mut other = bed.client().await?;
    client.create("/a", b"").await?;
    client.create("/a/b", b"").await?;
    let data = client.watch(get("/a/b", true)).await?;
    let children = client.watch(list("/a/b", true)).await?;
    let parent = client.watch(list("/a", true)).await?;
    let above = client.watch(list("/", true)).await?;
    other.ok(delete("/a/b", None)).await?;
    client.fired(data).await?;
    client.fired(children).await?;
    client.fired(parent).await?;
    client.not_fired(&[above]).await?;
    other.close().await?;
    client.close().await
}

pub async fn none_after_a_failed_read(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let tags = [client.submit(get("/a", true)), client.submit(list("/a", true))];
    for tag in tags {
        assert_eq!(client.answer(tag).await?, Err(RequestError::NoNode));
    }
    client.create("/a", b"").await?;
    client.set("/a", b"x").await?;
    client.create("/a/b", b"").await?;
    client.ok(delete("/a/b", None)).await?;
    client.ok(delete("/a", None)).await?;
    client.not_fired(&tags).await?;
    client.close().await
}

pub async fn several_on_one_znode(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mut other = bed.client().await?;
    client.create("/a", b"").await?;
    let first = client.watch(get("/a", true)).await?;
    let second = client.watch(get("/a", true)).await?;
    let third = other.watch(get("/a", true)).await?;
    other.set("/a", b"x").await?;
    client.fired(first).await?;
    client.fired(second).await?;
    other.fired(third).await?;
    other.close().await?;
    client.close().await
}

pub async fn forget(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    client.create("/a", b"").await?;
    let gone = client.watch(get("/a", true)).await?;
    let kept = client.watch(get("/a", true)).await?;
    client.forget(gone);
    client.set("/a", b"1").await?;
    client.fired(kept).await?;
    client.not_fired(&[gone]).await?;
    // Before its request is answered, too; and twice, and what was never there.
    let early = client.submit(list("/a", true));
    client.forget(early);
    client.forget(early);
    client.forget(kept);
    ensure!(matches!(client.answer(early).await?, Ok(Reply::Children { .. })));
    client.create("/a/b", b"").await?;
    client.not_fired(&[early]).await?;
    // The znode can be watched again.
    let again = client.watch(get("/a", true)).await?;
    client.forget(again);
    let again = client.watch(get("/a", true)).await?;
    client.set("/a", b"2").await?;
    client.fired(again).await?;
    client.close().await
}

pub async fn come_before_the_new_data(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mut other = bed.client().await?;
    client.create("/a", b"0").await?;
    for round in 1..=50 {
        let watch = client.watch(get("/a", true)).await?;
        let new = round.to_string();
        let write = other.submit(set("/a", new.as_bytes(), None));
        // Read until the new data are seen; the event must have come by then.
        let (mut fired, began) = (false, Instant::now());
        loop {
            ensure!(began.elapsed() < PATIENCE, "round {round}: not written");
            let read = client.submit(get("/a", false));
            let data = loop {
                match client.next_event().await? {
                    SessionEvent::Fired { tag } if tag == watch => fired = true,
                    SessionEvent::Answered { tag, result } if tag == read => break result?,
                    other => bail!("unexpected: {other:?}"),
                }
            };
            let Reply::Data { data, .. } = data else { bail!("{data:?}") };
            if &*data == new.as_bytes() {
                ensure!(fired, "round {round}: new data without the event");
                break;
            }
        }
        other.answer(write).await??;
    }
    other.close().await?;
    client.close().await
}

pub async fn lasting_ones_name_the_children(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mut other = bed.client().await?;
    client.create("/a", b"").await?;
    client.create("/ab", b"").await?;
    let watch = client.submit(watch_children("/a"));
    assert_eq!(client.answer(watch).await??, Reply::Watching);
    let above = client.watch(watch_children("/")).await?;
    assert_eq!(client.named(watch).await?, [""; 0]);
    // Whoever does it, and however often.
    other.create("/a/b", b"").await?;
    client.create("/a/c", b"").await?;
    other.set("/a/b", b"x").await?;
    other.ok(delete("/a/c", None)).await?;
    assert_eq!(client.named(watch).await?, ["b", "c", "b", "c"]);
    // Not the children's children, nor what only begins alike.
    other.create("/a/b/x", b"").await?;
    other.create("/ab/y", b"").await?;
    assert_eq!(client.named(watch).await?, [""; 0]);
    // A sequential child, and one that goes with its session; and what a transaction does, all of it or nothing.
    let made = other.ok(create("/a/s", b"", CreateMode::EphemeralSequential)).await?;
    let Reply::Created { path } = made else { bail!("{made:?}") };
    other.close().await?;
    let name = path.trim_start_matches("/a/");
    assert_eq!(client.named(watch).await?, [name]);
    let make = |path: &str| Op::Create { path: path.to_owned(), data: (*b"").into() };
    client.ok(Request::Multi(vec![make("/a/m"), make("/a/n")])).await?;
    client.err(Request::Multi(vec![make("/a/o"), make("/a/m")])).await?;
    assert_eq!(client.named(watch).await?, ["m", "n"]);
    assert_eq!(client.named(above).await?, [""; 0]);
    client.close().await
}

pub async fn lasting_ones_end_with_the_znode(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mut other = bed.client().await?;
    // It need not exist; when it is made, that is told, and nothing after it.
    let watch = client.watch(watch_children("/a")).await?;
    other.create("/a", b"").await?;
    client.fired(watch).await?;
    other.create("/a/b", b"").await?;
    assert_eq!(client.named(watch).await?, [""; 0]);
    // Written, or deleted after its children: the same.
    let watch = client.watch(watch_children("/a")).await?;
    other.set("/a", b"x").await?;
    client.fired(watch).await?;
    let watch = client.watch(watch_children("/a")).await?;
    other.ok(delete("/a/b", None)).await?;
    assert_eq!(client.named(watch).await?, ["b"]);
    other.ok(delete("/a", None)).await?;
    client.fired(watch).await?;
    other.create("/a", b"").await?;
    other.create("/a/b", b"").await?;
    assert_eq!(client.named(watch).await?, [""; 0]);
    other.close().await?;
    client.close().await
}

pub async fn lasting_ones_are_forgotten_and_set_again(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    client.create("/a", b"").await?;
    let mut before = client.watch(watch_children("/a")).await?;
    for round in 0..50 {
        // In one breath, so that they meet on their way to the server.
        client.forget(before);
        let early = client.submit(watch_children("/a"));
        client.forget(early);
        let watch = client.submit(watch_children("/a"));
        let made = client.submit(create(&format!("/a/{round}"), b"", CreateMode::Persistent));
        client.answer(early).await??;
        client.answer(watch).await??;
        client.answer(made).await??;
        assert_eq!(client.named(watch).await?, [round.to_string()]);
        for gone in [before, early] {
            assert_eq!(client.named(gone).await?, [""; 0]);
        }
        before = watch;
    }
    client.forget(before);
    client.create("/a/last", b"").await?;
    assert_eq!(client.named(before).await?, [""; 0]);
    client.close().await
}

pub async fn lasting_ones_tell_before_the_new_data(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mut other = bed.client().await?;
    client.create("/a", b"").await?;
    let watch = client.watch(watch_children("/a")).await?;
    for round in 1..=50 {
        let name = round.to_string();
        let write = other.submit(create(&format!("/a/{name}"), b"", CreateMode::Persistent));
        let (mut told, began) = (false, Instant::now());
        loop {
            ensure!(began.elapsed() < PATIENCE, "round {round}: not written");
            let read = client.submit(list("/a", false));
            let names = loop {
                match client.next_event().await? {
                    SessionEvent::ChildChanged { tag, name: child } if tag == watch => told |= child == name,
                    SessionEvent::Answered { tag, result } if tag == read => break result?,
                    other => bail!("unexpected: {other:?}"),
                }
            };
            let Reply::Children { names, .. } = names else { bail!("{names:?}") };
            if names.contains(&name) {
                ensure!(told, "round {round}: in the list and not told");
                break;
            }
        }
        other.answer(write).await??;
    }
    other.close().await?;
    client.close().await
}
