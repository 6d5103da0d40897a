//! Elections shared with the real Curator: `election_format = "curator"` and participants of `LeaderLatch`, in processes of their own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Cluster, PATIENCE};
use bellwether_tests::guests::guest;
use bellwether_tests::peers_tools::{Peer, Recipe};
use bellwether_tests::zookeeper::Server;

const PATH: &str = "/services/jobs/leader";
const GROUP: &str = "jobs";
const TIMEOUT: Duration = Duration::from_secs(2);

/// A participant, by its place among the nodes or the latches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Node(usize),
    Latch(usize),
}

/// Nodes and latches on one election path, and who was seen to lead, in the order in which it was seen.
struct Mixed {
    cluster: Cluster,
    latches: Vec<Peer>,
    connect: String,
    /// Leader and term; the same one again and again is noted once.
    seen: Vec<String>,
    // Last, so that it is the last to end.
    _zookeeper: Server,
}

impl Mixed {
    /// A ZooKeeper, and nodes that have not been started.
    fn prepare(nodes: usize) -> Result<Self> {
        let zookeeper = Server::start()?;
        let keys = format!("election_format = \"curator\"\nelection_path = {PATH:?}");
        let cluster = Cluster::builder(zookeeper.address())
            .nodes(nodes)
            .session_timeout(TIMEOUT)
            .group(GROUP, guest("minimal"), &keys)
            .prepare()?;
        let connect = zookeeper.address().to_string();
        Ok(Self { cluster, latches: Vec::new(), connect, seen: Vec::new(), _zookeeper: zookeeper })
    }

    fn id(&self, who: Who) -> String {
        match who {
            Who::Node(index) => self.cluster.node(index).id().to_owned(),
            Who::Latch(index) => self.latches[index].id(),
        }
    }

    /// Starts another latch in a process of its own.
    fn latch(&mut self) -> Result<Who> {
        let index = self.latches.len();
        let name = format!("java-{index}");
        self.latches.push(Peer::start(Recipe::Latch, &self.connect, PATH, TIMEOUT, &name, 1)?);
        Ok(Who::Latch(index))
    }

    fn node(&self, index: usize) -> Result<Who> {
        self.cluster.node(index).start()?;
        Ok(Who::Node(index))
    }

    /// Who says that they lead, and in which of their terms. One after the other is asked, by one thread.
    fn look(&mut self) -> Vec<Who> {
        let mut leaders = Vec::new();
        for index in 0..self.cluster.nodes().len() {
            let node = self.cluster.node(index);
            if let Ok(status) = node.group(GROUP)
                && status["role"] == "leader"
            {
                leaders.push((Who::Node(index), format!("{} in epoch {}", node.id(), status["epoch"])));
            }
        }
        for (index, latch) in self.latches.iter().enumerate() {
            // One that was killed has nothing to say.
            if let Ok(term) = latch.ask("leads")
                && !term.is_empty()
            {
                leaders.push((Who::Latch(index), term));
            }
        }
        for (_, term) in &leaders {
            if self.seen.last() != Some(term) {
                self.seen.push(term.clone());
            }
        }
        leaders.into_iter().map(|(who, _)| who).collect()
    }

    /// Waits until exactly these take part, the first of them leads and nobody else, and every latch sees it so.
    fn expect(&mut self, order: &[Who]) -> Result<()> {
        let first = order.first().context("an election of nobody")?;
        let ids: Vec<String> = order.iter().map(|who| self.id(*who)).collect();
        let participants = ids.join(" ").replacen(&ids[0], &format!("{}*", ids[0]), 1);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leaders = self.look();
            let told: Vec<Option<String>> = order
                .iter()
                .filter_map(|who| if let Who::Latch(index) = who { Some(&self.latches[*index]) } else { None })
                .map(|latch| latch.ask("participants").ok())
                .collect();
            if leaders == [*first] && told.iter().all(|told| told.as_ref() == Some(&participants)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{participants} were expected; {leaders:?} lead, the latches see {told:?}\n{}",
                self.cluster.report()
            );
        }
    }

    /// Nobody led, in one term, both before and after somebody else did: two led at one time only if that was seen.
    fn nobody_overlapped(&self) -> Result<()> {
        for (at, term) in self.seen.iter().enumerate() {
            ensure!(!self.seen[..at].contains(term), "{term} was seen on both sides of another: {:#?}", self.seen);
        }
        Ok(())
    }

    fn resign(&self, who: Who) -> Result<()> {
        match who {
            Who::Node(index) => self.cluster.node(index).cli(&["resign", GROUP])?.ok().map(drop),
            Who::Latch(index) => self.latches[index].tell(&format!("resign {}", self.latches[index].id())),
        }
    }

    fn close(&self, who: Who) -> Result<()> {
        match who {
            Who::Node(index) => {
                let code = self.cluster.node(index).stop()?;
                ensure!(code == 0, "the node ended with {code}");
            }
            Who::Latch(index) => drop(self.latches[index].ask(&format!("close {}", self.latches[index].id()))?),
        }
        Ok(())
    }

    fn kill(&self, who: Who) {
        match who {
            Who::Node(index) => self.cluster.node(index).kill(),
            Who::Latch(index) => self.latches[index].kill(),
        }
    }
}

/// Two nodes and two latches. Leadership goes round by resigning, crashing and leaving, always to the next by sequence, of
/// whichever kind, and never to two.
#[test]
fn leadership_passes_both_ways_between_nodes_and_latches() -> Result<()> {
    let mut mixed = Mixed::prepare(2)?;
    let n0 = mixed.node(0)?;
    mixed.expect(&[n0])?;
    let a = mixed.latch()?;
    mixed.expect(&[n0, a])?;
    let n1 = mixed.node(1)?;
    mixed.expect(&[n0, a, n1])?;
    let b = mixed.latch()?;
    mixed.expect(&[n0, a, n1, b])?;

    // Each gives up in turn and stands behind the others again, twice round.
    let mut order = vec![n0, a, n1, b];
    for _ in 0..8 {
        mixed.resign(order[0])?;
        order.rotate_left(1);
        mixed.expect(&order)?;
    }

    // A crash of either kind: the next follows when the session has ended.
    mixed.kill(n0);
    mixed.expect(&[a, n1, b])?;
    mixed.node(0)?;
    mixed.expect(&[a, n1, b, n0])?;
    mixed.kill(a);
    mixed.expect(&[n1, b, n0])?;
    let c = mixed.latch()?;
    mixed.expect(&[n1, b, n0, c])?;

    // One in the middle leaves: nothing changes for the leader, and whoever was behind it still gets its turn.
    mixed.close(b)?;
    mixed.expect(&[n1, n0, c])?;
    mixed.close(n0)?;
    mixed.expect(&[n1, c])?;
    mixed.close(n1)?;
    mixed.expect(&[c])?;
    mixed.node(1)?;
    mixed.expect(&[c, n1])?;
    mixed.close(c)?;
    mixed.cluster.wait_leader(GROUP)?;
    mixed.look();

    // Each term was seen once and in one piece: the first, eight by resigning, two by crashes, two by leaving.
    mixed.nobody_overlapped()?;
    assert_eq!(mixed.seen.len(), 1 + 8 + 2 + 2, "{:#?}", mixed.seen);
    Ok(())
}

/// Three latches, whose znodes' parents Curator has made, are replaced by three nodes one after the other.
#[test]
fn a_fleet_of_latches_moves_over_one_at_a_time() -> Result<()> {
    let mut mixed = Mixed::prepare(3)?;
    let mut order = vec![mixed.latch()?];
    mixed.expect(&order)?;
    for _ in 0..2 {
        order.push(mixed.latch()?);
        mixed.expect(&order)?;
    }
    for index in 0..3 {
        order.push(mixed.node(index)?);
        mixed.expect(&order)?;
        mixed.close(order.remove(0))?;
        mixed.expect(&order)?;
    }
    mixed.nobody_overlapped()?;
    assert_eq!(mixed.seen.len(), 4, "{:#?}", mixed.seen);
    let status = mixed.cluster.node(0).group(GROUP)?;
    assert_eq!(status["role"], "leader");
    assert_eq!(status["leader"]["id"], "n0");
    Ok(())
}
