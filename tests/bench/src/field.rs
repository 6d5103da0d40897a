//! A field of candidates of one kind: so many processes with so many candidates each.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bellwether_tests::cluster::{Cluster, Line, Node};
use bellwether_tests::guests::guest;
use bellwether_tests::measure::boottime;
use bellwether_tests::peers_tools::{Peer, Recipe};
use bellwether_tests::zookeeper::Server;
use rustix::process::Signal;

use crate::bare;
use crate::bed::PATIENCE;

/// Whose candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Bellwether,
    /// Another library's.
    Other(Recipe),
    /// Those of a bare recipe, which has what nobody can do without.
    Bare,
    /// None: what tasks are compared with.
    Echo,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bellwether => "Bellwether",
            Self::Other(recipe) => recipe.name(),
            Self::Bare => "bare recipe",
            Self::Echo => "gRPC echo",
        })
    }
}

/// How the candidates are spread, written `PROCESSESxCANDIDATES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// How many processes.
    pub processes: usize,
    /// How many candidates each has; every one with a session of its own.
    pub each: usize,
}

impl Layout {
    /// How many candidates there are.
    #[must_use]
    pub fn candidates(self) -> usize {
        self.processes * self.each
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.processes, self.each)
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|n| (1..=64).contains(n));
        let parts = text.split_once('x').and_then(|(processes, each)| Some((number(processes)?, number(each)?)));
        let (processes, each) = parts.ok_or_else(|| format!("{text:?} is not of the form 3x1, each from 1 to 64"))?;
        Ok(Self { processes, each })
    }
}

/// A change of leadership, as the candidate itself tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which process the candidate is in.
    pub process: usize,
    /// The candidate.
    pub id: String,
    /// Whether it leads from now on.
    pub elected: bool,
    /// When: its callback has been told of it, on `CLOCK_BOOTTIME`.
    pub at: Duration,
    /// The epoch of the term, where there are epochs.
    pub epoch: Option<u64>,
}

/// From where on changes count; one place for each process.
pub type Mark = Vec<usize>;

const GROUP: &str = "bench";
/// Where the peers' elections are.
const PATH: &str = "/bench/election";
const BARE_PATH: &str = "/bench/bare";

/// Most hand-overs are done by then.
const UNWATCHED: Duration = Duration::from_millis(4);

enum Processes {
    Nodes(Cluster),
    Peers(Vec<Peer>),
}

/// The candidates.
pub struct Field {
    kind: Kind,
    layout: Layout,
    timeout: Duration,
    connect: Vec<String>,
    processes: Processes,
    generation: usize,
}

impl Field {
    /// Starts the candidates and waits until all of them take part and one leads.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn start(kind: Kind, layout: Layout, server: &Server, timeout: Duration) -> Result<Self> {
        Self::start_behind(kind, layout, &vec![server.address(); layout.processes], timeout)
    }

    /// The same, with a way to the server for each process.
    ///
    /// # Errors
    /// As [`Field::start`].
    pub fn start_behind(kind: Kind, layout: Layout, servers: &[SocketAddr], timeout: Duration) -> Result<Self> {
        let connect: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let processes = match kind {
            Kind::Bellwether => {
                let addresses = connect.clone();
                let mut builder = Cluster::builder("")
                    .connect(move |index| addresses[index].clone())
                    .nodes(layout.processes)
                    .session_timeout(timeout)
                    .node("reaper = true")
                    .group(GROUP, guest("minimal"), "")
                    .env("BELLWETHER_LOG", "info,bellwether::effects=debug");
                if layout.each > 1 {
                    // In the place of `BINARY --log-format json run MANIFEST`.
                    let dev = format!("exec \"$0\" --log-format json dev --nodes {} \"$4\"", layout.each);
                    builder = builder.wrapper(move |_| vec!["sh".into(), "-c".into(), dev.clone()]);
                }
                Processes::Nodes(builder.start()?)
            }
            Kind::Other(_) | Kind::Bare | Kind::Echo => {
                let start = |n: usize| peer(kind, &connect[n], timeout, &format!("p{n}"), layout.each);
                Processes::Peers((0..layout.processes).map(start).collect::<Result<_>>()?)
            }
        };
        let field = Self { kind, layout, timeout, connect, processes, generation: 0 };
        field.crowded()?;
        field.whole()?;
        field.wait("a leader", &vec![0; layout.processes], |change| change.elected)?;
        Ok(field)
    }

    fn patience(&self) -> Instant {
        let each = u32::try_from(self.layout.candidates()).unwrap_or(u32::MAX);
        Instant::now() + PATIENCE + Duration::from_millis(200) * each
    }

    /// Waits until all nodes of a process are there: it is ready when those are that it has started so far.
    fn crowded(&self) -> Result<()> {
        let Processes::Nodes(cluster) = &self.processes else { return Ok(()) };
        let deadline = self.patience();
        for node in cluster.nodes() {
            while self.layout.each > 1 && listed(node).is_none_or(|nodes| nodes < self.layout.each) {
                let waits = node.runs() && Instant::now() < deadline;
                ensure!(waits, "not all nodes were started in time\n{}", self.report());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Waits until all candidates take part.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn whole(&self) -> Result<()> {
        let deadline = self.patience();
        let whole = || match &self.processes {
            Processes::Nodes(cluster) => cluster.nodes().iter().all(Node::is_ready),
            Processes::Peers(peers) => {
                peers.iter().all(|peer| peer.count().is_ok_and(|n| n == self.layout.candidates()))
            }
        };
        while !whole() {
            ensure!(Instant::now() < deadline, "not all candidates took part in time\n{}", self.report());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits until the server has no more than so many sessions, those of crashed processes included.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub fn emptied(&self, server: &Server, sessions: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while server.mntr()?.get("zk_global_sessions").is_none_or(|n| n.parse::<usize>().is_ok_and(|n| n > sessions)) {
            ensure!(Instant::now() < deadline, "the server keeps more than {sessions} sessions\n{}", self.report());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn report(&self) -> String {
        match &self.processes {
            Processes::Nodes(cluster) => cluster.report(),
            Processes::Peers(peers) => format!("{} processes of {}", peers.len(), self.kind),
        }
    }

    /// The processes' ids.
    ///
    /// # Errors
    /// When one does not run.
    pub fn pids(&self) -> Result<Vec<i32>> {
        match &self.processes {
            Processes::Nodes(cluster) => cluster.nodes().iter().map(Node::pid).collect(),
            Processes::Peers(peers) => Ok(peers.iter().map(Peer::pid).collect()),
        }
    }

    /// From here on, [`Field::changes`] and [`Field::wait`] tell what comes.
    #[must_use]
    pub fn mark(&self) -> Mark {
        match &self.processes {
            Processes::Nodes(cluster) => cluster.nodes().iter().map(Node::mark).collect(),
            Processes::Peers(peers) => peers.iter().map(Peer::mark).collect(),
        }
    }

    /// What has changed since `mark`, in order.
    #[must_use]
    pub fn changes(&self, mark: &Mark) -> Vec<Change> {
        let mut changes = Vec::new();
        match &self.processes {
            Processes::Nodes(cluster) => {
                for (process, node) in cluster.nodes().iter().enumerate() {
                    let lines = node.logged(mark[process], |line| line.json["target"] == "bellwether::effects");
                    changes.extend(lines.iter().filter_map(|line| told(process, line)));
                }
            }
            Processes::Peers(peers) => {
                for (process, peer) in peers.iter().enumerate() {
                    let events = peer.events(mark[process]).into_iter();
                    changes.extend(events.map(|happened| Change {
                        process,
                        id: happened.id,
                        elected: happened.elected,
                        at: happened.at,
                        epoch: None,
                    }));
                }
            }
        }
        changes.sort_by_key(|change| change.at);
        changes
    }

    /// Waits for the first change since `mark` that is of interest.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait(&self, what: &str, mark: &Mark, wanted: impl Fn(&Change) -> bool) -> Result<Change> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(change) = self.changes(mark).into_iter().find(&wanted) {
                return Ok(change);
            }
            if Instant::now() > deadline {
                bail!("waited {PATIENCE:?} in vain for {what}\n{}", self.report());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Tells the leader to give leadership up; gives the time just before. Nobody looks at what comes of it for a while: looking
    /// takes the processor from those who are looked at.
    ///
    /// # Errors
    /// When it does not hear, or does not lead.
    pub fn resign(&self, leader: &Change) -> Result<Duration> {
        match &self.processes {
            Processes::Nodes(cluster) => {
                let path = format!("/v1/nodes/{}/groups/{GROUP}/resign", leader.id);
                // Connected before, as a peer is by its standard input.
                let mut call = cluster.node(leader.process).call("POST", &path, "")?;
                let from = boottime();
                call.ask()?;
                std::thread::sleep(UNWATCHED);
                let (code, body) = call.answer()?;
                ensure!(code == 204, "{} did not resign: {code} {body}", leader.id);
                Ok(from)
            }
            Processes::Peers(peers) => {
                let order = format!("resign {}", leader.id);
                let from = boottime();
                peers[leader.process].tell(&order)?;
                std::thread::sleep(UNWATCHED);
                Ok(from)
            }
        }
    }

    /// Kills a process, as a crash would.
    pub fn kill(&self, process: usize) {
        match &self.processes {
            Processes::Nodes(cluster) => cluster.node(process).kill(),
            Processes::Peers(peers) => peers[process].kill(),
        }
    }

    /// Kills a process and whatever would tell of that, as when its machine fails.
    ///
    /// # Errors
    /// When it does not run.
    pub fn lose(&self, process: usize) -> Result<()> {
        match &self.processes {
            Processes::Nodes(cluster) => cluster.node(process).lose(),
            Processes::Peers(peers) => {
                peers[process].kill();
                Ok(())
            }
        }
    }

    /// Sends a process a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, process: usize, signal: Signal) -> Result<()> {
        match &self.processes {
            Processes::Nodes(cluster) => cluster.node(process).signal(signal),
            Processes::Peers(peers) => peers[process].signal(signal),
        }
    }

    /// Puts a new process in the place of one that was killed, and waits until it takes part.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn replace(&mut self, process: usize) -> Result<()> {
        self.generation += 1;
        match &mut self.processes {
            Processes::Nodes(cluster) => cluster.node(process).start()?,
            Processes::Peers(peers) => {
                let name = format!("p{process}g{}", self.generation);
                peers[process] = peer(self.kind, &self.connect[process], self.timeout, &name, self.layout.each)?;
            }
        }
        self.whole()
    }
}

/// Starts a process with so many of a peer's candidates.
fn peer(kind: Kind, connect: &str, timeout: Duration, name: &str, each: usize) -> Result<Peer> {
    match kind {
        Kind::Other(recipe) => Peer::start(recipe, connect, PATH, timeout, name, each),
        Kind::Bare => bare::start(connect, BARE_PATH, timeout, name, each),
        Kind::Bellwether | Kind::Echo => bail!("{kind} is no peer with candidates"),
    }
}

/// How many nodes a process says that it has.
fn listed(node: &Node) -> Option<usize> {
    let (_, body) = node.http("GET", "/v1/nodes", "").ok()?;
    Some(serde_json::from_str::<serde_json::Value>(&body).ok()?["nodes"].as_array()?.len())
}

/// Reads a change from a line of a node's log. It counts when the guest's callback has returned.
fn told(process: usize, line: &Line) -> Option<Change> {
    let field = |name: &str| line.json.pointer(&format!("/fields/{name}"));
    let elected = match field("effect")?.as_str()? {
        "elected-left" => true,
        "demoted-left" | "stopped" => false,
        _ => return None,
    };
    Some(Change {
        process,
        id: line.json["node"].as_str()?.to_owned(),
        elected,
        at: Duration::from_nanos(field("at_ns")?.as_u64()?),
        epoch: line.epoch(),
    })
}

/// Starts a ZooKeeper for a field.
///
/// # Errors
/// When it does not come up.
pub fn zookeeper() -> Result<Server> {
    Server::start().context("the benchmark needs a ZooKeeper")
}
