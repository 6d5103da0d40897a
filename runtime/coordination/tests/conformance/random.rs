//! Random requests of two sessions, on the model and on a real ZooKeeper: same answers, same events, same znodes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use bellwether_core::id::{SessionId, Tag};
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError, Stat};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::bed::{Bed, Client, watch_children};

const PATHS: [&str; 6] = ["/", "/a", "/b", "/a/x", "/a/y", "/a/x/z"];

#[derive(Debug, Clone)]
enum Action {
    Call(usize, Request),
    /// Lets go of the watch of one of the last requests.
    Forget(usize, u64),
    /// Closes the session and opens another.
    Reopen(usize),
}

fn path() -> impl Strategy<Value = String> {
    prop::sample::select(&PATHS[..]).prop_map(str::to_owned)
}

fn version() -> impl Strategy<Value = Option<i32>> {
    prop_oneof![3 => Just(None), 2 => (0..3).prop_map(Some), 1 => Just(Some(-1))]
}

fn data() -> impl Strategy<Value = std::sync::Arc<[u8]>> {
    prop::collection::vec(any::<u8>(), 0..4).prop_map(Into::into)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (path(), version()).prop_map(|(path, version)| Op::Check { path, version }),
        (path(), data()).prop_map(|(path, data)| Op::Create { path, data }),
        (path(), data(), version()).prop_map(|(path, data, version)| Op::Set { path, data, version }),
        (path(), version()).prop_map(|(path, version)| Op::Delete { path, version }),
    ]
}

fn mode() -> impl Strategy<Value = CreateMode> {
    prop_oneof![
        4 => Just(CreateMode::Persistent),
        1 => Just(CreateMode::Ephemeral),
        1 => Just(CreateMode::EphemeralSequential),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        6 => (path(), data(), mode()).prop_map(|(path, data, mode)| Request::Create { path, data, mode }),
        3 => (path(), version()).prop_map(|(path, version)| Request::Delete { path, version }),
        3 => (path(), data(), version()).prop_map(|(path, data, version)| Request::Set { path, data, version }),
        4 => (path(), any::<bool>()).prop_map(|(path, watch)| Request::Get { path, watch }),
        2 => prop::collection::vec(path(), 0..4).prop_map(|paths| Request::GetAll { paths }),
        4 => (path(), any::<bool>()).prop_map(|(path, watch)| Request::List { path, watch }),
        1 => path().prop_map(|path| Request::Sync { path }),
        4 => prop::collection::vec(op(), 0..4).prop_map(Request::Multi),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => (0..2usize, request()).prop_map(|(who, request)| Action::Call(who, request)),
        2 => (0..2usize, 0..4u64).prop_map(|(who, back)| Action::Forget(who, back)),
        1 => (0..2usize).prop_map(Action::Reopen),
    ]
}

/// What both must agree on: names in order, sessions by number, errors without their words. Transaction ids are compared
/// apart, since they only correspond.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    answers: Vec<String>,
    zxids: Vec<i64>,
    fired: BTreeSet<(usize, Tag)>,
    /// What the lasting watches of a third session have named, and that one has fired.
    named: BTreeSet<(&'static str, Option<String>)>,
}

struct Player {
    bed: Bed,
    clients: Vec<Client>,
    watcher: Client,
    lasting: Vec<(&'static str, Tag)>,
    sessions: Vec<SessionId>,
    calls: [u64; 2],
}

impl Player {
    async fn new(bed: Bed) -> Result<Self> {
        let clients = vec![bed.client().await?, bed.client().await?];
        let sessions = clients.iter().map(|client| client.id).collect();
        let mut watcher = bed.client().await?;
        let mut lasting = Vec::new();
        for path in PATHS {
            lasting.push((path, watcher.watch(watch_children(path)).await?));
        }
        Ok(Self { bed, clients, watcher, lasting, sessions, calls: [0; 2] })
    }

    async fn play(&mut self, action: &Action) -> Result<Seen> {
        let mut seen = Seen::default();
        match action {
            Action::Call(who, request) => {
                let tag = self.clients[*who].submit(request.clone());
                self.calls[*who] = tag.0;
                let answer = self.clients[*who].answer(tag).await?;
                self.see(&mut seen, answer);
            }
            Action::Forget(who, back) => {
                let tag = Tag(self.calls[*who].saturating_sub(*back));
                self.clients[*who].forget(tag);
            }
            Action::Reopen(who) => {
                let new = self.bed.client().await?;
                self.sessions.push(new.id);
                self.calls[*who] = 0;
                std::mem::replace(&mut self.clients[*who], new).close().await?;
            }
        }
        for (who, client) in self.clients.iter_mut().enumerate() {
            seen.fired.extend(client.fired_so_far().await?.into_iter().map(|tag| (who, tag)));
        }
        let fired = self.watcher.fired_so_far().await?;
        for (path, tag) in &mut self.lasting {
            seen.named.extend(self.watcher.named(*tag).await?.into_iter().map(|name| (*path, Some(name))));
            if fired.contains(tag) {
                seen.named.insert((*path, None));
                *tag = self.watcher.watch(watch_children(path)).await?;
            }
        }
        Ok(seen)
    }

    fn stat(&self, seen: &mut Seen, stat: Stat) -> String {
        seen.zxids.push(stat.mzxid);
        let owner = stat.owner.map(|owner| self.sessions.iter().position(|session| *session == owner));
        format!("version {} owner {owner:?}", stat.version)
    }

    fn see(&self, seen: &mut Seen, answer: Result<Reply, RequestError>) {
        let text = match answer {
            // The root's own history differs: the real one is a chroot, made a moment ago.
            Ok(Reply::Data { data, stat }) => format!("{data:?} {}", self.stat(seen, stat)),
            Ok(Reply::Found(found)) => {
                let found =
                    found.into_iter().map(|one| one.map(|(data, stat)| format!("{data:?} {}", self.stat(seen, stat))));
                format!("{:?}", found.collect::<Vec<_>>())
            }
            Ok(Reply::Written(stat)) => self.stat(seen, stat),
            Ok(Reply::Multi(stats)) => {
                let stats = stats.into_iter().map(|stat| stat.map(|stat| self.stat(seen, stat)));
                format!("{:?}", stats.collect::<Vec<_>>())
            }
            Ok(Reply::Children { mut names, stat }) => {
                names.sort();
                format!("{names:?} {}", self.stat(seen, stat))
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => wordless(&error),
        };
        seen.answers.push(text);
    }
}

fn wordless(error: &RequestError) -> String {
    match error {
        RequestError::Refused(_) => "refused".to_owned(),
        RequestError::Multi { index, error } => format!("{index}: {}", wordless(error)),
        other => format!("{other:?}"),
    }
}

async fn compare(actions: &[Action]) -> Result<()> {
    let mut model = Player::new(Bed::memory()).await?;
    let mut real = Player::new(Bed::zookeeper()?).await?;
    let mut zxids = BTreeMap::new();
    for (step, action) in actions.iter().enumerate() {
        let (expected, found) = (model.play(action).await?, real.play(action).await?);
        ensure!(
            expected.answers == found.answers && expected.fired == found.fired && expected.named == found.named,
            "step {step}, {action:?}: the model says {expected:?}, ZooKeeper {found:?}"
        );
        for (ours, theirs) in expected.zxids.into_iter().zip(found.zxids) {
            let known = *zxids.entry(ours).or_insert(theirs);
            ensure!(known == theirs, "step {step}, {action:?}: {ours:#x} was {known:#x}, is {theirs:#x}");
        }
    }
    ensure!(zxids.values().is_sorted(), "transaction ids are in another order: {zxids:?}");
    for client in [model, real].into_iter().flat_map(|player| player.clients.into_iter().chain([player.watcher])) {
        client.close().await?;
    }
    Ok(())
}

#[test]
fn the_model_agrees_with_zookeeper() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _server = Bed::zookeeper()?;
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    runner
        .run(&prop::collection::vec(action(), 1..60), |actions| {
            runtime.block_on(compare(&actions)).map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("the model and ZooKeeper disagree")
}
