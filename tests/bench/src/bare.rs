//! A bare recipe to compare hand-overs with: on the library and the server that nodes use, what any candidate must do that writes an
//! epoch before it leads, and nothing else: no guest, no registry, no lease, no admin API, no log. What it takes is the server's
//! and the system's; what we take more is for what we do more.
//!
//! It is talked to as the peers are; `tests/bench/kazoo/peer.py` says how. Commands and answers: `resign ID`, `count`.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use asyncs::task::{Spawn, Task, enter};
use bellwether_tests::peers_tools::Peer;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, mpsc};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, EventType, MultiWriteResult};

/// As a node does: while a successor claims, who has resigned asks for nothing.
const YIELD: Duration = Duration::from_millis(10);

/// Has tokio run the library's own task.
struct Tokio;

impl Spawn for Tokio {
    fn spawn(&self, task: Task) {
        tokio::spawn(Box::into_pin(task.future));
    }
}

/// Starts `count` candidates in a process of their own, which calls [`serve`].
///
/// # Errors
/// When the program is not there, or does not come up.
pub fn start(connect: &str, path: &str, timeout: Duration, name: &str, count: usize) -> Result<Peer> {
    let (timeout, count) = (timeout.as_millis().to_string(), count.to_string());
    let program = program()?.to_string_lossy().into_owned();
    let words = [program.as_str(), "--serve-bare", connect, path, &timeout, name, &count];
    Peer::spawn(name, &words.map(ToOwned::to_owned))
}

/// This program, or the one beside a test of it.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program is in a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.join("bellwether-bench"))
}

/// Stands with `count` candidates on the ZooKeeper at `connect`, below `path`, until standard input ends.
///
/// # Errors
/// When ZooKeeper does not answer as it should.
pub fn serve(connect: &str, path: &str, timeout: Duration, name: &str, count: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _scope = enter(&Tokio);
        let mut candidates = Vec::new();
        let (sender, mut failures) = mpsc::channel(1);
        for n in 0..count {
            let client = Client::connector().with_session_timeout(timeout).connect(connect).await?;
            client.mkdir(path, &CreateMode::Persistent.with_acls(Acls::anyone_all())).await?;
            let candidate =
                Candidate { client, path: path.to_owned(), id: format!("{name}-{n}"), resigns: Notify::new() };
            let candidate = Arc::new(candidate);
            candidates.push(candidate.clone());
            let sender = sender.clone();
            tokio::spawn(async move {
                let failure = candidate.stand().await;
                // Nobody listens any more once one has failed.
                let _ = sender.send(failure).await;
            });
        }
        say("ready");
        let mut lines = commands();
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                Some(Err(failure)) = failures.recv() => return Err(failure),
            };
            let Some(line) = line else { return Ok(()) };
            match line.split_once(' ') {
                Some(("resign", id)) => {
                    let resigned =
                        candidates.iter().find(|candidate| candidate.id == id).context("no such candidate")?;
                    resigned.resigns.notify_one();
                }
                _ if line == "count" => {
                    let names = candidates[0].client.list_children(path).await?;
                    say(&format!("count {}", names.len()));
                }
                _ => say(&format!("failed {line}: no such command")),
            }
        }
    })
}

#[allow(clippy::print_stdout, reason = "that is how it is talked to")]
fn say(line: &str) {
    println!("{line}");
    // Who does not listen any more has let go of this program.
    let _ = std::io::stdout().flush();
}

fn told(what: &str, id: &str) {
    let now = clock_gettime(ClockId::Monotonic);
    say(&format!(
        "{what} {id} {}",
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32).as_nanos()
    ));
}

/// The lines of standard input, until it ends.
fn commands() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

struct Candidate {
    client: Client,
    path: String,
    id: String,
    resigns: Notify,
}

impl Candidate {
    /// Leads whenever it is its turn; ends with a failure alone.
    async fn stand(&self) -> Result<()> {
        let anyone = Acls::anyone_all();
        let temporary: CreateOptions<'_> = CreateMode::EphemeralSequential.with_acls(anyone);
        // Written before anybody leads; its transaction is the epoch.
        let epoch = format!("{}-epoch", self.path);
        // Whoever stands first makes it.
        let _ = self.client.create(&epoch, &[], &CreateMode::Persistent.with_acls(anyone)).await;
        loop {
            let (_, suffix) = self.client.create(&format!("{}/n_", self.path), &[], &temporary).await?;
            let own = format!("{}/n_{suffix}", self.path);
            let others = self.turn(&own).await?;
            let mut claim = self.client.new_multi_writer();
            claim.add_check_version(&own, -1)?;
            claim.add_set_data(&epoch, self.id.as_bytes(), None)?;
            let claimed = claim.commit().await?;
            ensure!(matches!(claimed.as_slice(), [_, MultiWriteResult::SetData { .. }]), "the claim wrote no epoch");
            told("elected", &self.id);
            self.resigns.notified().await;
            told("demoted", &self.id);
            self.client.delete(&own, None).await?;
            if others {
                tokio::time::sleep(YIELD).await;
            }
        }
    }

    /// Waits until nobody stands before `own`, and says whether anybody did. That the one before it has gone is enough: they leave in order
    /// here.
    async fn turn(&self, own: &str) -> Result<bool> {
        loop {
            let names = self.client.list_children(&self.path).await?;
            let mut before: Vec<String> = names.iter().map(|name| format!("{}/{name}", self.path)).collect();
            before.retain(|name| name.as_str() < own);
            let Some(nearest) = before.into_iter().max() else { return Ok(false) };
            let (stat, watch) = self.client.check_and_watch_stat(&nearest).await?;
            if stat.is_some() {
                let event = watch.changed().await;
                ensure!(event.event_type == EventType::NodeDeleted, "the watch of {nearest} told {event:?}");
                return Ok(true);
            }
        }
    }
}
