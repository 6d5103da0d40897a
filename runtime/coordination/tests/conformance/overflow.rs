//! Trap 32: more watches than one session can hold. The paths have a hundred bytes each, so that it is known which of them
//! still fit into the owner's session: the first ones.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bellwether_coordination::SessionEvent;
use bellwether_coordination::zookeeper::{ZookeeperConfig, ZookeeperCoordinator};
use bellwether_core::id::Tag;
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError};
use bellwether_tests::proxy::{Proxy, Watched, op};
use bellwether_tests::zookeeper::Server;

use super::bed::{Client, PATIENCE, ROOM, create, delete, get, list};
use super::real::until;

const PATHS: usize = 3_000;
const LENGTH: usize = 100;
/// So many watches fit into the owner's session.
const OWN: usize = ROOM / LENGTH;
/// So many sessions are there in all, when everything is watched.
const SESSIONS: u64 = PATHS.div_ceil(OWN) as u64;
/// Long enough for a server to be away within it on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

fn path(n: usize) -> String {
    format!("/{n:0>width$}", width = LENGTH - 1)
}

/// What is watched: every other one's data, and the children of the others.
fn read(n: usize) -> Request {
    if n.is_multiple_of(2) { get(&path(n), true) } else { list(&path(n), true) }
}

/// What makes that watch fire.
fn change(n: usize) -> Op {
    match n.is_multiple_of(2) {
        true => Op::Set { path: path(n), data: (*b"x").into(), version: None },
        false => Op::Create { path: format!("{}/c", path(n)), data: (*b"").into() },
    }
}

async fn all(client: &mut Client, ops: impl Iterator<Item = Op>) -> Result<()> {
    let ops: Vec<Op> = ops.collect();
    for some in ops.chunks(500) {
        client.ok(Request::Multi(some.to_vec())).await?;
    }
    Ok(())
}

/// A server with the znodes on it, a proxy before it, and a client on each.
struct Bed {
    client: Client,
    other: Client,
    proxy: Proxy,
    server: Server,
}

impl Bed {
    async fn new(timeout: Duration) -> Result<Self> {
        let server = Server::start()?;
        let proxy = Proxy::start(server.address())?;
        let open = |address: String| -> Result<Client> {
            let config = ZookeeperConfig::parse(&format!("zookeeper://{address}"))?;
            Ok(Client::open(&ZookeeperCoordinator::new(config)?, timeout))
        };
        let mut client = open(proxy.address().to_string())?;
        let mut other = open(server.address().to_string())?;
        client.await_opened().await?;
        other.await_opened().await?;
        all(&mut other, (0..PATHS).map(|n| Op::Create { path: path(n), data: (*b"").into() })).await?;
        Ok(Self { client, other, proxy, server })
    }

    async fn watch(&mut self, which: impl IntoIterator<Item = usize>) -> Result<Vec<Tag>> {
        let tags: Vec<Tag> = which.into_iter().map(|n| self.client.submit(read(n))).collect();
        for tag in &tags {
            self.client.answer(*tag).await??;
        }
        Ok(tags)
    }

    async fn watched(&self, count: usize) -> Result<()> {
        let watches = || -> Result<usize> { Ok(self.server.mntr()?["zk_watch_count"].parse()?) };
        until(&format!("{count} watches"), || Ok(watches()? == count)).await
    }

    /// Waits until these have fired, and nothing else has.
    async fn fired(&mut self, tags: &[Tag]) -> Result<()> {
        let mut waiting: BTreeSet<Tag> = tags.iter().copied().collect();
        while !waiting.is_empty() {
            let what = format!("{} watches", waiting.len());
            let event = self.client.wait_for(&what, |event| matches!(event, SessionEvent::Fired { .. })).await?;
            let SessionEvent::Fired { tag } = event else { continue };
            ensure!(waiting.remove(&tag), "{tag} has fired");
        }
        self.client.not_fired(tags).await
    }

    async fn close(self) -> Result<()> {
        self.client.close().await?;
        self.other.close().await
    }
}

#[tokio::test]
async fn three_hundred_thousand_watched_bytes_survive_a_reset() -> Result<()> {
    let mut bed = Bed::new(TIMEOUT).await?;
    bed.client.ok(create("/e", b"", CreateMode::Ephemeral)).await?;
    let tags = bed.watch(0..PATHS).await?;
    bed.watched(PATHS).await?;
    assert_eq!(bed.proxy.accepted(), SESSIONS);
    for round in 1..=2 {
        bed.proxy.reset();
        bed.client.await_disconnected().await?;
        bed.client.await_reconnected().await?;
        bed.watched(PATHS).await?;
        assert_eq!(bed.proxy.accepted(), SESSIONS * (round + 1));
    }
    bed.client.not_fired(&tags).await?;
    // What changes while nobody is connected fires as well, wherever it is watched.
    let away: Vec<usize> = (0..PATHS).step_by(7).collect();
    bed.proxy.refuse(true);
    bed.proxy.reset();
    bed.client.await_disconnected().await?;
    all(&mut bed.other, away.iter().map(|n| change(*n))).await?;
    bed.proxy.refuse(false);
    bed.client.await_reconnected().await?;
    bed.fired(&away.iter().map(|n| tags[*n]).collect::<Vec<_>>()).await?;
    let rest: Vec<usize> = (0..PATHS).filter(|n| !n.is_multiple_of(7)).collect();
    bed.watched(rest.len()).await?;
    all(&mut bed.other, rest.iter().map(|n| change(*n))).await?;
    bed.fired(&rest.iter().map(|n| tags[*n]).collect::<Vec<_>>()).await?;
    bed.watched(0).await?;
    // The ephemeral znode has been there all the time, and is the same session's.
    let (id, stat) = (bed.client.id, bed.client.get("/e").await?.1);
    assert_eq!((stat.owner, stat.version), (Some(id), 0));
    bed.close().await
}

#[tokio::test]
async fn a_session_of_watches_that_has_expired_has_fired_them_all() -> Result<()> {
    let mut bed = Bed::new(TIMEOUT).await?;
    let tags = bed.watch(0..PATHS).await?;
    let own = bed.client.id.0;
    bed.proxy.expire(move |session| session != own);
    bed.proxy.reset();
    bed.client.await_disconnected().await?;
    bed.client.await_reconnected().await?;
    bed.fired(&tags[OWN..]).await?;
    bed.client.not_fired(&tags[..OWN]).await?;
    bed.watched(OWN).await?;
    // Whoever looks again is watching again.
    let again = bed.watch(OWN..PATHS).await?;
    bed.watched(PATHS).await?;
    all(&mut bed.other, (0..PATHS).map(change)).await?;
    bed.fired(&[&tags[..OWN], &again].concat()).await?;
    bed.close().await
}

#[tokio::test]
async fn watches_that_were_let_go_of_make_room() -> Result<()> {
    let mut bed = Bed::new(TIMEOUT).await?;
    let sessions = |bed: &Bed| -> Result<u64> { Ok(bed.server.mntr()?["zk_global_sessions"].parse()?) };
    for _ in 0..4 {
        let tags = bed.watch(0..PATHS).await?;
        bed.watched(PATHS).await?;
        for tag in tags {
            bed.client.forget(tag);
        }
        bed.watched(0).await?;
    }
    // As much as ever fits into the same sessions.
    assert_eq!(bed.proxy.accepted(), SESSIONS);
    assert_eq!(sessions(&bed)?, SESSIONS + 1);
    let own = bed.watch(0..OWN).await?;
    // A read that fails leaves no watch, and neither does one that is let go of before it is answered.
    assert_eq!(bed.client.err(get(&path(PATHS), true)).await?, RequestError::NoNode);
    let early = bed.client.submit(read(OWN));
    bed.client.forget(early);
    bed.client.answer(early).await??;
    bed.watched(OWN).await?;
    // Nor does one take room that another connection must watch: what is let go of in the owner's session is its own again.
    bed.client.forget(own[0]);
    bed.watch([0]).await?;
    bed.watched(OWN).await?;
    // With the session, its helpers go, and at once.
    let Bed { client, other, proxy: _proxy, server } = bed;
    client.close().await?;
    until("one session", || Ok(server.mntr()?["zk_global_sessions"] == "1")).await?;
    other.close().await
}

/// The watch stands first: what changes before the owner's session reads is in the answer, and fires.
#[tokio::test]
async fn nothing_is_missed_between_the_watch_and_the_read() -> Result<()> {
    let mut bed = Bed::new(TIMEOUT).await?;
    bed.watch(0..OWN).await?;
    let watched = path(OWN + 1);
    let hold =
        |bed: &Bed, path: String| bed.proxy.hold(move |request| request.op == op::SYNC && request.mentions(&path));
    let held = hold(&bed, watched.clone());
    let tag = bed.client.submit(get(&watched, true));
    let held = seen(held).await?;
    bed.watched(OWN + 1).await?;
    bed.other.set(&watched, b"new").await?;
    bed.watched(OWN).await?;
    held.release();
    let Reply::Data { data, .. } = bed.client.answer(tag).await?? else { bail!("not data") };
    assert_eq!(&*data, b"new");
    bed.fired(&[tag]).await?;
    // It goes meanwhile: the read has failed, and so there is no watch that could fire.
    let held = hold(&bed, watched.clone());
    let tag = bed.client.submit(get(&watched, true));
    let held = seen(held).await?;
    bed.watched(OWN + 1).await?;
    bed.other.ok(delete(&watched, None)).await?;
    held.release();
    assert_eq!(bed.client.answer(tag).await?, Err(RequestError::NoNode));
    bed.client.not_fired(&[tag]).await?;
    // The connection goes meanwhile: the read is unknown, and the watch is let go of.
    let another = path(OWN + 3);
    let held = hold(&bed, another.clone());
    let tag = bed.client.submit(get(&another, true));
    let held = seen(held).await?;
    bed.watched(OWN + 1).await?;
    bed.proxy.reset();
    held.release();
    bed.client.await_disconnected().await?;
    ensure!(matches!(bed.client.answer(tag).await?, Err(RequestError::Unknown(_))));
    bed.client.await_reconnected().await?;
    bed.watched(OWN).await?;
    bed.other.set(&another, b"new").await?;
    bed.client.not_fired(&[tag]).await?;
    bed.close().await
}

async fn seen(held: Watched) -> Result<Watched> {
    tokio::task::spawn_blocking(move || held.seen(PATIENCE).map(|()| held)).await?
}

/// A log that can be looked at.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, with: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
        text.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn where_no_further_session_can_be_had_the_owner_looks_again_and_again() -> Result<()> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let timeout = Duration::from_secs(4);
    let mut bed = Bed::new(timeout).await?;
    bed.watch(0..OWN).await?;
    bed.proxy.refuse(true);
    // Answered all the same, and fired without a change; also what is longer than any session's room.
    let tag = bed.watch([OWN]).await?[0];
    bed.client.fired(tag).await?;
    assert_eq!(log.lines("looked at every"), Vec::<String>::new());
    for _ in 0..2 {
        bed.client.fill(ROOM + 1).await?;
    }
    let told = log.lines("looked at every 1s");
    ensure!(told.len() == 1, "{told:?}");
    let refused = log.lines("no further session yet");
    ensure!(refused.len() == 1 && refused[0].contains(&bed.proxy.address().to_string()), "{refused:?}");
    bed.watched(OWN).await?;
    let missing = path(PATHS);
    assert_eq!(bed.client.err(get(&missing, true)).await?, RequestError::NoNode);
    bed.proxy.refuse(false);
    // One of the next looks finds a session.
    loop {
        let tag = bed.watch([OWN]).await?[0];
        let watches: usize = bed.server.mntr()?["zk_watch_count"].parse()?;
        if watches > OWN {
            all(&mut bed.other, [change(OWN)].into_iter()).await?;
            bed.client.fired(tag).await?;
            return bed.close().await;
        }
        bed.client.fired(tag).await?;
    }
}
