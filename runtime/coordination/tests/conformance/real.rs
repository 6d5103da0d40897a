//! What only a real ZooKeeper can show.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bellwether_coordination::SessionEvent;
use bellwether_coordination::zookeeper::{DigestAuth, Secret, ZookeeperConfig, ZookeeperCoordinator};
use bellwether_core::request::{CreateMode, RequestError};
use bellwether_tests::proxy::{Proxy, op};
use bellwether_tests::zookeeper::{Ensemble, Options, Server, without_lasting_watches};

use super::bed::{Client, PATIENCE, TIMEOUT, create, get, list, set, watch_children};

fn coordinator(server: &Server, chroot: &str, user: Option<&str>) -> Result<ZookeeperCoordinator> {
    let mut config = ZookeeperConfig::parse(&format!("zookeeper://{}{chroot}", server.address()))?;
    config.auth = user.map(|user| DigestAuth { user: user.to_owned(), password: Secret::new("hunter2") });
    Ok(ZookeeperCoordinator::new(config)?)
}

async fn client(server: &Server, chroot: &str, user: Option<&str>) -> Result<Client> {
    let mut client = Client::open(&coordinator(server, chroot, user)?, TIMEOUT);
    client.await_opened().await?;
    Ok(client)
}

/// Asks the server again and again until it says what is wanted.
pub async fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn the_chroot_is_made_once_and_found_afterwards() -> Result<()> {
    let server = Server::start()?;
    // Several at once make the same parts.
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Client::open(&coordinator(&server, "/deep/er/chroot", None)?, TIMEOUT));
    }
    for client in &mut clients {
        client.await_opened().await?;
    }
    clients[0].create("/a", b"1").await?;
    for mut client in clients {
        assert_eq!(&*client.get("/a").await?.0, b"1");
        client.close().await?;
    }
    let mut outside = client(&server, "", None).await?;
    assert_eq!(&*outside.get("/deep/er/chroot/a").await?.0, b"1");
    let stat = outside.get("/deep/er").await?.1;
    assert_eq!((stat.owner, stat.version), (None, 0));
    outside.close().await
}

#[tokio::test]
async fn with_a_user_others_can_only_read() -> Result<()> {
    let server = Server::start()?;
    let mut owner = client(&server, "/ours", Some("joe")).await?;
    let mut again = client(&server, "/ours", Some("joe")).await?;
    let mut other = client(&server, "/ours", None).await?;
    owner.create("/a", b"1").await?;
    assert_eq!(&*other.get("/a").await?.0, b"1");
    assert_eq!(other.list("/").await?, ["a"]);
    assert_eq!(other.err(set("/a", b"2", None)).await?, RequestError::NoAuth);
    assert_eq!(other.err(create("/b", b"", CreateMode::Ephemeral)).await?, RequestError::NoAuth);
    again.set("/a", b"2").await?;
    for client in [owner, again, other] {
        client.close().await?;
    }
    Ok(())
}

/// Trap 16: no retry loop, and a message that names path and identity.
#[tokio::test]
async fn a_chroot_that_must_not_be_made_ends_it_for_good() -> Result<()> {
    let server = Server::start()?;
    client(&server, "/ours", Some("joe")).await?.close().await?;
    let mut other = Client::open(&coordinator(&server, "/ours/below", Some("jane"))?, TIMEOUT);
    match other.next_event().await? {
        SessionEvent::Ended { reason, permanent: true } => {
            ensure!(reason.contains("/ours/below") && reason.contains("jane"), "{reason}");
            ensure!(!reason.contains("hunter2"), "{reason}");
        }
        event => bail!("{event:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_waited_for() -> Result<()> {
    let config = ZookeeperConfig::parse("zookeeper://nobody.invalid:2181")?;
    let mut client = Client::open(&ZookeeperCoordinator::new(config)?, TIMEOUT);
    match client.next_event().await? {
        SessionEvent::Waiting { reason } => ensure!(reason.contains("nobody.invalid:2181"), "{reason}"),
        event => bail!("{event:?}"),
    }
    client.close().await
}

/// A server that takes the connection and says nothing: a hung process, or a network that swallows.
#[tokio::test]
async fn a_hung_server_is_noticed_and_its_answers_are_unknown() -> Result<()> {
    let server = Server::start()?;
    let coordinator = coordinator(&server, "/x", None)?;
    let mut client = Client::open(&coordinator, Duration::from_secs(10));
    client.await_opened().await?;
    client.create("/a", b"").await?;
    server.pause()?;
    let tag = client.submit(set("/a", b"1", None));
    let read = client.submit(get("/a", true));
    let mut waiting = Client::open(&coordinator, Duration::from_secs(1));
    match waiting.next_event().await? {
        SessionEvent::Waiting { reason } => ensure!(reason.contains("opens no session"), "{reason}"),
        event => bail!("{event:?}"),
    }
    assert_eq!(client.next_event().await?, SessionEvent::Disconnected);
    match client.next_event().await? {
        SessionEvent::Answered { tag: found, result: Err(RequestError::Unknown(_)) } if found == tag => {}
        event => bail!("{event:?}"),
    }
    ensure!(matches!(client.answer(read).await?, Err(RequestError::Unknown(_))));
    server.resume()?;
    client.await_reconnected().await?;
    // The request lay with the server all the time: it may have been carried out by now, or not. That is what "unknown" means.
    let found = client.get("/a").await?.0;
    ensure!([&b""[..], b"1"].contains(&&*found), "{found:?}");
    client.set("/a", b"2").await?;
    client.not_fired(&[read]).await?;
    waiting.await_opened().await?;
    waiting.close().await?;
    client.close().await
}

#[tokio::test]
async fn watches_that_were_let_go_of_leave_the_server() -> Result<()> {
    let server = Server::start()?;
    let mut client = client(&server, "", None).await?;
    let watches = || -> Result<usize> { Ok(server.mntr()?["zk_watch_count"].parse()?) };
    let mut tags = Vec::new();
    for n in 0..20 {
        let path = format!("/n{n}");
        client.create(&path, b"").await?;
        tags.push(client.watch(get(&path, true)).await?);
        tags.push(client.watch(list(&path, true)).await?);
    }
    until("40 watches", || Ok(watches()? == 40)).await?;
    for tag in tags {
        client.forget(tag);
    }
    until("no watches", || Ok(watches()? == 0)).await?;
    client.close().await
}

#[tokio::test]
async fn a_dropped_session_gives_its_connection_back_and_is_not_closed() -> Result<()> {
    let server = Server::start()?;
    let mut observer = client(&server, "", None).await?;
    let mut dropped = Client::open(&coordinator(&server, "", None)?, Duration::from_secs(40));
    dropped.await_opened().await?;
    dropped.ok(create("/e", b"", CreateMode::Ephemeral)).await?;
    // `mntr` counts its own connection as well.
    let connections = || -> Result<usize> { Ok(server.mntr()?["zk_num_alive_connections"].parse()?) };
    let before = connections()?;
    dropped.crash();
    until("one connection less", || Ok(connections()? < before)).await?;
    assert!(observer.get("/e").await?.1.owner.is_some());
    observer.close().await
}

/// Trap 25, in small: each server of an ensemble goes and comes back, and the session stays.
#[tokio::test]
async fn a_session_survives_a_rolling_restart() -> Result<()> {
    let mut ensemble = Ensemble::start()?;
    let config = ZookeeperConfig::parse(&format!("zookeeper://{}/roll", ensemble.connect_string()))?;
    let mut client = Client::open(&ZookeeperCoordinator::new(config)?, Duration::from_secs(20));
    client.await_opened().await?;
    client.ok(create("/e", b"0", CreateMode::Ephemeral)).await?;
    let mut written = client.get("/e").await?.1;
    for index in 0..3 {
        ensemble.server(index).kill();
        until("a quorum", || Ok(ensemble.leader().is_some())).await?;
        written = persist(&mut client, b"x").await.with_context(|| format!("with server {index} down"))?;
        ensemble = tokio::task::spawn_blocking(move || {
            ensemble.server(index).restart()?;
            anyhow::Ok(ensemble)
        })
        .await??;
    }
    assert_eq!(written.owner, Some(client.id));
    client.close().await
}

/// Writes until a write is acknowledged; each loss of the connection may take one attempt with it.
async fn persist(client: &mut Client, data: &[u8]) -> Result<bellwether_core::request::Stat> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.call(set("/e", data, None)).await? {
            Ok(bellwether_core::request::Reply::Written(stat)) => return Ok(stat),
            Err(RequestError::Unknown(_)) => {
                ensure!(Instant::now() < deadline, "no write within {PATIENCE:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => bail!("{other:?}"),
        }
    }
}

/// Where the session's tasks run in parallel, the order of events still holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_events_holds_on_many_threads() -> Result<()> {
    super::watches::come_before_the_new_data(super::Bed::zookeeper()?).await
}

/// Many sessions open and close at once; none is left.
#[tokio::test]
async fn sessions_come_and_go() -> Result<()> {
    let server = Server::start_with(&Options { max_session_timeout: Duration::from_secs(90), ..Options::default() })?;
    let coordinator = Arc::new(coordinator(&server, "/many", None)?);
    let mut clients: Vec<Client> = (0..30).map(|_| Client::open(&*coordinator, Duration::from_secs(80))).collect();
    for client in &mut clients {
        client.await_opened().await?;
        assert_eq!(client.timeout, Duration::from_secs(80));
        client.ok(create("/m_", b"", CreateMode::EphemeralSequential)).await?;
    }
    let mut last = clients.pop().context("thirty clients")?;
    assert_eq!(last.list("/").await?.len(), 30);
    for client in clients {
        client.close().await?;
    }
    assert_eq!(last.list("/").await?.len(), 1);
    last.close().await
}

/// As [`a_reconnect_is_told_when_it_is_known_to_be_in_the_same_session`], on a server that gives another one without a word.
#[tokio::test]
async fn a_session_that_is_replaced_ends_and_is_not_told_as_reconnected() -> Result<()> {
    let (mut client, proxy, _server) = through_a_proxy().await?;
    let forgotten = proxy.forget_session();
    proxy.reset();
    client.await_disconnected().await?;
    loop {
        match client.next_event().await? {
            SessionEvent::Ended { permanent: false, .. } => break,
            SessionEvent::Ended { reason, .. } => bail!("for good? {reason}"),
            SessionEvent::Reconnected { .. } => bail!("told as if it were the same session"),
            _ => {}
        }
    }
    // By now it has happened or it never will.
    forgotten.done(Duration::ZERO)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_is_told_when_it_is_known_to_be_in_the_same_session() -> Result<()> {
    let (mut client, proxy, _server) = through_a_proxy().await?;
    for _ in 0..3 {
        let held = proxy.hold(|request| request.creates("/e~"));
        proxy.reset();
        client.await_disconnected().await?;
        tokio::task::block_in_place(|| held.seen(PATIENCE))?;
        let answer = client.err(get("/e", false)).await?;
        ensure!(
            matches!(answer, RequestError::Unknown(_)),
            "nothing is asked in a session that is not known: {answer:?}"
        );
        held.release();
        client.await_reconnected().await?;
        assert_eq!(client.list("/").await?, ["e", "zookeeper"], "what showed it is gone");
    }
    client.close().await
}

/// It would close the connection whenever it is asked for what it does not know.
#[tokio::test]
async fn a_server_of_before_3_6_is_refused_for_good_and_by_name() -> Result<()> {
    let server = Server::start()?;
    let proxy = Proxy::start(server.address())?;
    proxy.unknown(&[op::MULTI_READ, op::ADD_WATCH]);
    let config = ZookeeperConfig::parse(&format!("zookeeper://{}", proxy.address()))?;
    let mut client = Client::open(&ZookeeperCoordinator::new(config)?, TIMEOUT);
    match client.next_event().await? {
        SessionEvent::Ended { reason, permanent: true } => {
            ensure!(reason.contains("older than ZooKeeper 3.6"), "{reason}")
        }
        other => bail!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_has_no_lasting_watches_refuses_them_and_has_the_others() -> Result<()> {
    let server = Server::start_with(&without_lasting_watches())?;
    let mut client = client(&server, "", None).await?;
    let refused = client.submit(watch_children("/"));
    let answer = client.answer(refused).await?;
    ensure!(matches!(answer, Err(RequestError::Refused(_))), "{answer:?}");
    let watch = client.watch(list("/", true)).await?;
    client.create("/a", b"").await?;
    client.fired(watch).await?;
    assert_eq!(client.named(refused).await?, [""; 0]);
    client.close().await
}

/// A client that owns `/e`.
async fn through_a_proxy() -> Result<(Client, Proxy, Server)> {
    let server = Server::start()?;
    let proxy = Proxy::start(server.address())?;
    let config = ZookeeperConfig::parse(&format!("zookeeper://{}", proxy.address()))?;
    let mut client = Client::open(&ZookeeperCoordinator::new(config)?, Duration::from_secs(20));
    client.await_opened().await?;
    client.ok(create("/e", b"1", CreateMode::Ephemeral)).await?;
    Ok((client, proxy, server))
}
