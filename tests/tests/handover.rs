//! Leadership handed over on request: once for each resignation, to the next in line, always with a greater epoch.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_tests::cluster::{Cluster, Line};
use bellwether_tests::guests::guest;
use bellwether_tests::measure::{Figures, boottime, print};
use bellwether_tests::zookeeper::Server;

const GROUP: &str = "handed";
const HAND_OVERS: usize = 100;

/// An effect that a node stamped: what happened, when, in which term.
#[derive(Debug, Clone)]
struct Effect {
    node: usize,
    what: String,
    at: Duration,
    epoch: u64,
}

impl Effect {
    fn read(node: usize, line: &Line) -> Option<Self> {
        let fields = line.json.get("fields")?;
        let what = fields.get("effect")?.as_str()?.to_owned();
        Some(Self { node, what, at: Duration::from_nanos(fields.get("at_ns")?.as_u64()?), epoch: line.epoch()? })
    }

    fn is(&self, what: &str) -> bool {
        self.what == what
    }
}

/// Everything that the nodes stamped after these marks, in the order of time.
fn effects(cluster: &Cluster, marks: &[usize]) -> Vec<Effect> {
    let lines =
        |node: usize| -> Vec<Arc<Line>> { cluster.node(node).logged(marks[node], |line| line.group() == GROUP) };
    let mut effects: Vec<Effect> = (0..cluster.nodes().len())
        .flat_map(|node| lines(node).into_iter().filter_map(move |line| Effect::read(node, &line)))
        .collect();
    effects.sort_by_key(|effect| effect.at);
    effects
}

fn marks(cluster: &Cluster) -> Vec<usize> {
    cluster.nodes().iter().map(|node| node.mark()).collect()
}

/// Waits until the leader knows all others as members: everybody has taken their place again.
fn settle(cluster: &Cluster, leader: usize) -> Result<()> {
    cluster.wait_until("the others to be members", |cluster| {
        let members =
            cluster.node(leader).group(GROUP).ok().and_then(|group| group["members"].as_array().map(Vec::len));
        members == Some(cluster.nodes().len() - 1)
    })
}

#[test]
fn a_hundred_resignations_move_leadership_once_each_with_a_greater_epoch() -> Result<()> {
    let server = Server::start()?;
    let cluster = Cluster::builder(server.address())
        .nodes(3)
        .session_timeout(Duration::from_secs(6))
        .env("BELLWETHER_LOG", "info,bellwether::effects=debug")
        .group(GROUP, guest("probe"), "")
        .start()?;
    cluster.wait_ready()?;
    let mut leader = cluster.wait_leader(GROUP)?;
    let (mut whole, mut demoting, mut claiming, mut telling) =
        (Figures::default(), Figures::default(), Figures::default(), Figures::default());
    for _ in 0..HAND_OVERS {
        settle(&cluster, leader)?;
        let before = marks(&cluster);
        let node = cluster.node(leader);
        let asked = boottime();
        let (code, body) = node.http("POST", &format!("/v1/nodes/{}/groups/{GROUP}/resign", node.id()), "")?;
        ensure!(code == 204, "the leader did not resign: {code} {body}");
        let since = cluster.wait_for("the next on-elected to return", Duration::from_secs(60), |cluster| {
            let since = effects(cluster, &before);
            since.iter().any(|effect| effect.is("elected-left")).then_some(since)
        })?;
        let at = |what: &str| {
            let found = since.iter().find(|effect| effect.is(what));
            found.map(|effect| effect.at).with_context(|| format!("no {what} among {since:?}"))
        };
        let (demoted, entered, left) = (at("demoted-left")?, at("elected-entered")?, at("elected-left")?);
        ensure!(demoted < entered, "the next leader was told before the last one was: {since:?}");
        whole.push(left - asked);
        demoting.push(demoted - asked);
        claiming.push(entered - demoted);
        telling.push(left - entered);
        let next = since.iter().find(|effect| effect.is("elected-left")).map(|effect| effect.node);
        leader = next.filter(|next| *next != leader).context("the leader that resigned leads again")?;
    }
    settle(&cluster, leader)?;

    let all = effects(&cluster, &[0; 3]);
    let terms: Vec<&Effect> = all.iter().filter(|effect| effect.is("elected-left")).collect();
    assert_eq!(terms.len(), HAND_OVERS + 1, "each resignation moves leadership once: {terms:?}");
    for pair in terms.windows(2) {
        assert!(pair[0].epoch < pair[1].epoch, "an epoch did not grow: {pair:?}");
        assert_ne!(pair[0].node, pair[1].node, "who resigned stands behind the others: {pair:?}");
    }
    // Each term but the last ends with its own on-demoted, before the next begins.
    let mut told = all.iter().filter(|effect| effect.is("elected-entered") || effect.is("demoted-left"));
    for (term, next) in terms.iter().zip(terms.iter().skip(1)) {
        let (entered, demoted) = (told.next().context("no on-elected")?, told.next().context("no on-demoted")?);
        assert!(entered.is("elected-entered") && demoted.is("demoted-left"), "{entered:?} {demoted:?}");
        assert_eq!((entered.epoch, demoted.epoch), (term.epoch, term.epoch));
        assert!(demoted.at < next.at);
    }
    print(format_args!("hand-over {whole}: from the request to resign until the next on-elected has returned"));
    print(format_args!("  until on-demoted has returned: {demoting}"));
    print(format_args!("  from there until on-elected is called: {claiming}"));
    print(format_args!("  on-elected itself: {telling}"));
    Ok(())
}
