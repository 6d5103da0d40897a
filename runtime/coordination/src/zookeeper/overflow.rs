//! Watches beyond what one session can hold.
//!
//! On reconnecting, the client library tells the server of all watches of its session. It does so in pieces of 128 KiB that it
//! numbers alike, and cannot tell their answers apart: a session that watches paths of more bytes than that never connects
//! again. So the session's watches are bounded, and what does not fit is watched by sessions of its own. Their owner never sees
//! them; they hold nothing but watches, so that losing one loses nothing else, and no answer of theirs is ever given to anyone.
//!
//! **How.** The read is done by another session first, for its watch alone; then the owner's session does `sync` and the read,
//! and that answer is given. The watch stands at some state of the ensemble, and the answer is of that state or a later one:
//! `sync` lets the server of the owner's session catch up with whatever the other one has seen. (But for a server that has
//! lost its quorum and does not know it yet; it then drops its clients, and who is connected again looks at everything again.)
//! So each change that the answer does not show fires the watch. It may fire for one that the answer does show. That is
//! harmless, because all that a watch ever says is "look again".
//!
//! The same word is all it takes to lose nothing. When a session of watches ends, each of its watches has fired. Where none can be
//! had in time (no connection, or too many sessions already), the answer is given with a watch that just fires a while later.
//! A session of watches that reconnects arms its watches by itself; should the server have put another one in its place without
//! a word, then these are armed in that one.
//!
//! **Order.** Such a read counts as submitted when its watch stands: it and its answer keep their place among those of the owner's
//! session from then on, but what was submitted meanwhile has overtaken it. And its watch comes on another connection, so that
//! its event may come after data that are newer. Nothing relies on more. What must come before a read (a `sync` before a list, the
//! create of what is read) is submitted before it, and stays before it. Nothing relies on a watching read having been done or
//! answered when something later is: the core waits for its answer, knows it by its tag, and drops it when it has moved on. And
//! an event leads to another look, never to a conclusion. What the core does rely on is all the owner's session's: that data never
//! grow older from one answer to the next, and that its writes are acknowledged to it. The sessions of watches own no znode, prove
//! nothing and renew no lease, as a write never takes this way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bellwether_core::id::{SessionId, Tag};
use bellwether_core::request::Request;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use zookeeper_client::{Acls, Client};

use super::config::ZookeeperConfig;
use super::connect::{Backoff, Failure as NotOpen, Link, connect};
use super::feed::is_connected;
use super::request::{Answer, Lookout, Pending, prepare};
use super::session::CLOSE;

/// How many bytes of paths one session may watch. Less than the 128 KiB that end it: for watches that were let go of, but not yet
/// by the library.
const BUDGET: usize = 96 * 1024;
/// How many sessions of watches there may be at most: ensembles bound the connections of one address.
const SESSIONS: usize = 16;
/// After so long a session of watches that holds none is closed.
const LINGER: Duration = Duration::from_secs(30);
/// A session of watches that ends younger than this makes its successor wait.
const YOUNG: Duration = Duration::from_secs(10);
/// Stands for the bytes of a session that takes no more watches.
const RETIRED: usize = usize::MAX;

/// The room for the watches of one session.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(Arc<AtomicUsize>);

/// Taken up for as long as this is kept.
#[derive(Debug)]
pub(super) struct Taken {
    room: Room,
    bytes: usize,
}

impl Room {
    pub(super) fn take(&self, bytes: usize) -> Option<Taken> {
        let fits = |taken: usize| (taken != RETIRED && bytes <= BUDGET.saturating_sub(taken)).then(|| taken + bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Taken { room: self.clone(), bytes })
    }

    /// Nothing fits any more, if there is nothing.
    fn retire(&self) -> bool {
        self.0.compare_exchange(0, RETIRED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A session of watches. Its task closes it when this is gone.
struct Home {
    room: Room,
    client: watch::Receiver<Option<Client>>,
    since: Instant,
}

/// A place for one watch.
struct Seat {
    taken: Taken,
    client: watch::Receiver<Option<Client>>,
}

/// A read that its owner may do now: whatever changes from here on, the watch will tell.
pub(super) struct Watched {
    pub(super) tag: Tag,
    pub(super) read: Request,
    pub(super) watch: Lookout,
}

/// The sessions of watches, and the reads that wait until one of them watches.
pub(super) struct Overflow {
    config: Arc<ZookeeperConfig>,
    timeout: Duration,
    acls: Acls<'static>,
    homes: Vec<Home>,
    backoff: Backoff,
    full: bool,
    tags: BTreeSet<Tag>,
    reads: FuturesUnordered<BoxFuture<'static, Watched>>,
}

impl Overflow {
    pub(super) fn new(config: Arc<ZookeeperConfig>, timeout: Duration, acls: Acls<'static>) -> Self {
        let (homes, tags, reads) = (Vec::new(), BTreeSet::new(), FuturesUnordered::new());
        Self { config, timeout, acls, homes, backoff: Backoff::new(), full: false, tags, reads }
    }

    /// Has another session watch what is read. In the end something always does, if only the clock.
    pub(super) fn begin(&mut self, tag: Tag, read: Request, bytes: usize) {
        let (seat, acls, patience) = (self.seat(bytes), self.acls, self.timeout / 4);
        self.tags.insert(tag);
        let watched = async move {
            let watch = match seat {
                Some(seat) => tokio::time::timeout(patience, seat.watch(read.clone(), acls)).await.ok().flatten(),
                None => None,
            };
            Watched { tag, read, watch: watch.unwrap_or(Lookout::Later(patience)) }
        };
        self.reads.push(watched.boxed());
    }

    /// The next read that is watched; waits for ever when none waits.
    pub(super) async fn next(&mut self) -> Watched {
        match self.reads.next().await {
            Some(watched) => {
                self.tags.remove(&watched.tag);
                watched
            }
            None => std::future::pending().await,
        }
    }

    /// Whether this read waits.
    pub(super) fn holds(&self, tag: Tag) -> bool {
        self.tags.contains(&tag)
    }

    /// Gives up all that waits.
    pub(super) fn give_up(&mut self) -> BTreeSet<Tag> {
        self.reads = FuturesUnordered::new();
        std::mem::take(&mut self.tags)
    }

    /// The first place that is wide enough, so that later sessions empty first.
    fn seat(&mut self, bytes: usize) -> Option<Seat> {
        let mut pause = Duration::ZERO;
        let backoff = &mut self.backoff;
        self.homes.retain(|home| {
            let ended = home.client.has_changed().is_err();
            if ended && home.since.elapsed() < YOUNG {
                pause = backoff.next();
            } else if ended {
                *backoff = Backoff::new();
            }
            !ended
        });
        for home in &self.homes {
            if let Some(taken) = home.room.take(bytes) {
                return Some(Seat { taken, client: home.client.clone() });
            }
        }
        let room = Room::default();
        let taken = room.take(bytes).filter(|_| self.homes.len() < SESSIONS);
        if taken.is_none() && !std::mem::replace(&mut self.full, true) {
            tracing::warn!(
                "this node watches paths of more than {} bytes, or one that is longer than {BUDGET}: from now on some are not \
                 watched but looked at every {:?}. Use fewer groups a node, fewer watched keys, or shorter names",
                (SESSIONS + 1) * BUDGET,
                self.timeout / 4
            );
        }
        let (sender, client) = watch::channel(None);
        let seat = Seat { taken: taken?, client: client.clone() };
        tokio::spawn(keep(self.config.clone(), self.timeout, pause, room.clone(), sender));
        self.homes.push(Home { room, client, since: Instant::now() });
        Some(seat)
    }
}

/// Does a read that another session watches.
pub(super) fn look(owner: Client, acls: Acls<'static>, read: Request, watch: Lookout) -> Pending {
    async move {
        let (path, read) = match read {
            Request::Get { path, .. } => (path.clone(), Request::Get { path, watch: false }),
            Request::List { path, .. } => (path.clone(), Request::List { path, watch: false }),
            other => ("/".to_owned(), other),
        };
        let sync = prepare(owner.clone(), acls, Request::Sync { path }, None);
        // Both are sent before either is awaited, in this order.
        let (synced, answer) = futures::join!(sync, prepare(owner, acls, read, None));
        synced?;
        // When the read has failed, the watch is let go of.
        Ok(Answer { watch: Some(watch), ..answer? })
    }
    .boxed()
}

impl Seat {
    /// Sets the watch; none when that is not possible.
    async fn watch(mut self, read: Request, acls: Acls<'static>) -> Option<Lookout> {
        let client = self.client.wait_for(Option::is_some).await.ok()?.clone()?;
        let mut states = client.state_watcher();
        // Not left to the library, which would set it for somebody who may have gone by then.
        let mut state = states.state();
        while !is_connected(state) {
            if state.is_terminated() {
                return None;
            }
            state = states.changed().await;
        }
        let answer = prepare(client, acls, read, Some(self.taken)).await.ok()?;
        Some(match answer.watch? {
            Lookout::Own(watcher, taken) => Lookout::Elsewhere(watcher, taken),
            other => other,
        })
    }
}

/// Opens a session of watches and keeps it for as long as it is wanted, or until it ends.
async fn keep(
    config: Arc<ZookeeperConfig>,
    timeout: Duration,
    pause: Duration,
    room: Room,
    client: watch::Sender<Option<Client>>,
) {
    let opened = tokio::select! {
        link = open(&config, timeout, pause) => Some(link),
        () = client.closed() => None,
    };
    let Some(Link { client: own, mut serving }) = opened else { return };
    let session = SessionId(own.session_id().0);
    tracing::debug!(%session, "session of watches opened");
    client.send_replace(Some(own));
    loop {
        tokio::select! {
            () = serving.ended() => {
                tracing::debug!(%session, "session of watches ended");
                return;
            }
            () = client.closed() => break,
            () = tokio::time::sleep(LINGER) => if room.retire() { break },
        }
    }
    // The library closes the session when the last client is gone.
    client.send_replace(None);
    drop(client);
    let _ = tokio::time::timeout(CLOSE, serving.ended()).await;
    tracing::debug!(%session, "session of watches closed");
}

async fn open(config: &ZookeeperConfig, timeout: Duration, pause: Duration) -> Link {
    tokio::time::sleep(pause).await;
    let mut backoff = Backoff::new();
    let mut told = false;
    loop {
        let reason = match connect(config, timeout).await {
            Ok(link) => return link,
            Err(NotOpen::Passing(reason) | NotOpen::Permanent(reason)) => reason,
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(reason, "no further session yet for watches that do not fit into the first");
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let room = Room::default();
        assert!(room.take(BUDGET + 1).is_none());
        let most = room.take(BUDGET - 10).unwrap();
        let rest = room.take(10).unwrap();
        assert!(room.take(1).is_none() && !room.retire());
        drop(most);
        assert!(room.take(BUDGET - 9).is_none());
        drop(room.take(BUDGET - 10).unwrap());
        assert!(!room.retire());
        drop(rest);
        assert!(room.retire());
        assert!(room.take(0).is_none() && room.take(1).is_none());
    }
}
