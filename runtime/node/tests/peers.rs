//! The links between nodes, over real sockets. Mutual TLS has its tests in `peers_tls.rs`.

#![expect(clippy::expect_used, reason = "a test that cannot go on says why and fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_core::id::{Epoch, GroupName, NodeId};
use bellwether_core::member::Member;
use bellwether_core::work::WorkError;
use bellwether_guest::host::Task;
use bellwether_node::peers::{PeerError, PeerLimits, PeerServer, Peers, Tasks};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longer than anything that goes well takes, on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(30);

/// A node that does what the payload says.
struct Node {
    id: NodeId,
    /// How many tasks hang, and how many ever did.
    hanging: watch::Sender<(usize, usize)>,
    /// Lets the tasks go that wait.
    go: watch::Sender<bool>,
}

impl Node {
    fn new(id: &str) -> Arc<Self> {
        Arc::new(Self { id: node(id), hanging: watch::channel((0, 0)).0, go: watch::channel(false).0 })
    }

    /// Waits until so many tasks hang here at once.
    async fn hangs(&self, count: usize) {
        let mut hanging = self.hanging.subscribe();
        timeout(LONG, hanging.wait_for(|(now, _)| *now == count)).await.expect("in time").expect("open");
    }
}

struct Hanging<'a>(&'a Node);

impl<'a> Hanging<'a> {
    fn new(node: &'a Node) -> Self {
        node.hanging.send_modify(|(now, ever)| (*now, *ever) = (*now + 1, *ever + 1));
        Self(node)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.hanging.send_modify(|(now, _)| *now -= 1);
    }
}

impl Tasks for Node {
    fn handle(
        &self,
        group: GroupName,
        recipient: NodeId,
        task: Task,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, WorkError>> {
        async move {
            if recipient != self.id {
                return Err(WorkError::UnknownMember);
            }
            let text = std::str::from_utf8(&task.payload).unwrap_or_default();
            match text.split_once(' ').unwrap_or((text, "")) {
                ("describe", _) => {
                    let Task { sender, epoch, .. } = &task;
                    Ok(format!("{group} {sender} {epoch:?} {}", deadline <= Duration::from_secs(7)).into())
                }
                ("hang", _) => {
                    let _hanging = Hanging::new(self);
                    std::future::pending().await
                }
                ("wait", _) => {
                    let _hanging = Hanging::new(self);
                    let _ = self.go.subscribe().wait_for(|go| *go).await;
                    Ok(Bytes::from_static(b"waited"))
                }
                ("answer", size) => Ok(vec![7; size.parse().expect("a size")].into()),
                ("stale", _) => Err(WorkError::StaleEpoch(Epoch(u64::MAX))),
                ("overloaded", _) => Err(WorkError::Overloaded),
                ("failed", how) => Err(WorkError::Failed(how.to_owned())),
                ("timed-out", _) => Err(WorkError::TimedOut),
                ("too-large", _) => Err(WorkError::TooLarge(5)),
                ("not-leader", _) => Err(WorkError::NotLeader),
                ("other", what) => Err(WorkError::Other(what.to_owned())),
                ("unreachable", who) => Err(WorkError::Unreachable(who.to_owned())),
                ("panic", _) => panic!("as the test wants it"),
                _ => Ok(Bytes::copy_from_slice(&task.payload)),
            }
        }
        .boxed()
    }
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a name")
}

fn group() -> GroupName {
    GroupName::new("workers").expect("a name")
}

fn member(id: &str, address: impl ToString) -> Member {
    Member { id: node(id), address: address.to_string(), labels: std::collections::BTreeMap::default() }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn peers(limits: PeerLimits) -> Peers {
    Peers::new(node("leader"), None, limits).expect("peers")
}

/// A node `w` that serves, how to reach it, and somebody who does.
fn serving(limits: PeerLimits) -> (Arc<Node>, PeerServer, Member, Peers) {
    let node = Node::new("w");
    let server = PeerServer::bind(loopback(), None, limits, node.clone()).expect("bound");
    let member = member("w", server.local_addr());
    (node, server, member, peers(PeerLimits::default()))
}

async fn ask(peers: &Peers, to: &Member, payload: impl Into<Bytes>) -> Result<Bytes, WorkError> {
    peers.send(to, &group(), Some(Epoch(3)), payload.into(), LONG).await
}

/// Starts a request that goes on in the background.
fn begin(peers: &Peers, to: &Member, payload: &'static str) -> tokio::task::JoinHandle<Result<Bytes, WorkError>> {
    let (peers, to) = (peers.clone(), to.clone());
    tokio::spawn(async move { ask(&peers, &to, payload).await })
}

fn unreachable_text(outcome: Result<Bytes, WorkError>) -> String {
    match outcome {
        Err(WorkError::Unreachable(text)) => text,
        other => panic!("expected unreachable, got {other:?}"),
    }
}

#[tokio::test]
async fn an_answer_comes_back_and_the_task_arrives_whole() {
    let (_node, _server, to, peers) = serving(PeerLimits::default());
    assert_eq!(ask(&peers, &to, "hello").await, Ok(Bytes::from_static(b"hello")));
    assert_eq!(ask(&peers, &to, "").await, Ok(Bytes::new()));
    let seven = Duration::from_secs(7);
    let told = peers.send(&to, &group(), Some(Epoch(u64::MAX)), "describe".into(), seven).await;
    assert_eq!(told, Ok(format!("workers leader Some(Epoch({})) true", u64::MAX).into()));
    let told = peers.send(&to, &group(), None, "describe".into(), seven).await;
    assert_eq!(told, Ok(Bytes::from_static(b"workers leader None true")));
    assert_eq!(peers.links(), 1, "one connection serves all");
}

#[tokio::test]
async fn every_refusal_arrives_as_it_was_given() {
    let (_node, _server, to, peers) = serving(PeerLimits::default());
    let refusals = [
        ("stale", WorkError::StaleEpoch(Epoch(u64::MAX))),
        ("overloaded", WorkError::Overloaded),
        ("failed out of paper", WorkError::Failed("out of paper".into())),
        ("timed-out", WorkError::TimedOut),
        ("too-large", WorkError::TooLarge(5)),
        ("not-leader", WorkError::NotLeader),
        ("other ünusual", WorkError::Other("ünusual".into())),
        // What a peer cannot reach is not the peer that the sender asked.
        ("unreachable x", WorkError::Other("unreachable: x".into())),
    ];
    for (payload, expected) in refusals {
        assert_eq!(ask(&peers, &to, payload).await, Err(expected));
    }
}

#[tokio::test]
async fn a_guest_s_endless_error_text_is_cut() {
    let (_node, _server, to, peers) = serving(PeerLimits::default());
    match ask(&peers, &to, format!("failed {}", "x".repeat(1 << 20))).await {
        Err(WorkError::Failed(text)) => assert!(text.len() < 20_000 && text.starts_with("xxx")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_address_that_has_passed_on_to_another_node_refuses() {
    let (_node, server, _, peers) = serving(PeerLimits::default());
    let wrong = member("somebody-else", server.local_addr());
    assert_eq!(ask(&peers, &wrong, "hello").await, Err(WorkError::UnknownMember));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_mebibytes_go_both_ways() {
    let (_node, _server, to, peers) = serving(PeerLimits::default());
    let payload: Bytes = (0..16 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(ask(&peers, &to, payload.clone()).await.expect("an answer") == payload);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_up_to_the_limit_pass_and_larger_ones_are_refused() {
    let limit = 1 << 20;
    let small = PeerLimits { message_bytes: limit, ..PeerLimits::default() };
    let (_node, server, to, generous) = serving(small.clone());
    let size = usize::try_from(limit).expect("a size");
    let too_large = Err(WorkError::TooLarge(limit));

    assert_eq!(ask(&generous, &to, vec![1; size]).await.expect("an answer").len(), size);
    assert_eq!(ask(&generous, &to, vec![1; size + 1]).await, too_large, "found when it was read");
    assert_eq!(ask(&generous, &to, vec![1; 9 * size]).await, too_large, "found before it was read");
    assert_eq!(ask(&generous, &to, format!("answer {size}")).await.expect("an answer").len(), size);
    assert_eq!(ask(&generous, &to, format!("answer {}", size + 1)).await, too_large);
    assert_eq!(ask(&generous, &to, "still here").await, Ok(Bytes::from_static(b"still here")));

    // The sender's own limit: nothing is sent at all, so that the peer need not be there.
    let strict = peers(small);
    server.shutdown(Duration::ZERO).await;
    assert_eq!(ask(&strict, &to, vec![1; size + 1]).await, too_large);
    // An answer beyond the sender's limit.
    let (_node, _server, to, _) = serving(PeerLimits::default());
    assert_eq!(ask(&strict, &to, format!("answer {}", 2 * size)).await, too_large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_requests_go_at_once() {
    let (node, _server, to, peers) = serving(PeerLimits::default());
    let all = join_all((0..200).map(|i| {
        let (peers, to) = (peers.clone(), to.clone());
        async move { (i, ask(&peers, &to, format!("wait {i}")).await) }
    }));
    // All of them are there before the first is answered: none waits for another.
    let (answers, ()) = tokio::join!(all, async {
        node.hangs(200).await;
        node.go.send_replace(true);
    });
    assert!(answers.iter().all(|(_, answer)| answer.as_deref() == Ok(b"waited")), "{answers:?}");
    assert_eq!(peers.links(), 1);
}

#[tokio::test]
async fn the_deadline_holds_and_stops_the_work() {
    let (node, _server, to, peers) = serving(PeerLimits::default());
    let started = Instant::now();
    let outcome = peers.send(&to, &group(), None, "hang".into(), Duration::from_millis(200)).await;
    assert_eq!(outcome, Err(WorkError::TimedOut));
    assert!(started.elapsed() >= Duration::from_millis(190) && started.elapsed() < LONG / 2);
    node.hangs(0).await;
    assert_eq!(peers.send(&to, &group(), None, "x".into(), Duration::ZERO).await, Err(WorkError::TimedOut));
    // No deadline is too long to be counted.
    assert_eq!(peers.send(&to, &group(), None, "x".into(), Duration::MAX).await, Ok(Bytes::from_static(b"x")));
}

#[tokio::test]
async fn the_server_cuts_deadlines_down_to_its_own() {
    let limits = PeerLimits { deadline: Duration::from_millis(100), ..PeerLimits::default() };
    let (node, _server, to, peers) = serving(limits);
    assert_eq!(ask(&peers, &to, "hang").await, Err(WorkError::TimedOut));
    node.hangs(0).await;
}

#[tokio::test]
async fn cancelling_reaches_the_server() {
    let (node, _server, to, peers) = serving(PeerLimits::default());
    let request = begin(&peers, &to, "hang");
    node.hangs(1).await;
    request.abort();
    node.hangs(0).await;
    assert_eq!(ask(&peers, &to, "hello").await, Ok(Bytes::from_static(b"hello")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_a_great_many_leaves_the_others_alone() {
    let (node, _server, to, peers) = serving(PeerLimits::default());
    let bystander = begin(&peers, &to, "wait");
    node.hangs(1).await;
    for round in 0..20 {
        let requests: Vec<_> = (0..200).map(|_| begin(&peers, &to, "hang")).collect();
        // Some are cancelled while they are on their way, some while they are worked on.
        if round % 2 == 0 {
            let mut hanging = node.hanging.subscribe();
            timeout(LONG, hanging.wait_for(|(now, _)| *now > 50)).await.expect("in time").expect("open");
        }
        for request in &requests {
            request.abort();
        }
        join_all(requests).await;
        node.hangs(1).await;
    }
    node.go.send_replace(true);
    assert_eq!(bystander.await.expect("joined"), Ok(Bytes::from_static(b"waited")));
}

#[tokio::test]
async fn a_full_server_refuses_at_once() {
    let (node, _server, to, peers) = serving(PeerLimits { in_flight: 2, ..PeerLimits::default() });
    let under_way = [begin(&peers, &to, "wait"), begin(&peers, &to, "wait")];
    node.hangs(2).await;
    assert_eq!(ask(&peers, &to, "hello").await, Err(WorkError::Overloaded));
    assert_eq!(ask(&peers, &to, vec![0; 8 << 20]).await, Err(WorkError::Overloaded), "refused before it was read");
    node.go.send_replace(true);
    for request in under_way {
        assert_eq!(request.await.expect("joined"), Ok(Bytes::from_static(b"waited")));
    }
    for _ in 0..100 {
        assert_eq!(ask(&peers, &to, "hello").await, Ok(Bytes::from_static(b"hello")), "places are free again at once");
    }
}

#[tokio::test]
async fn the_bytes_under_way_are_bounded_too() {
    let limits = PeerLimits { message_bytes: 1 << 20, in_flight_bytes: 3 << 20, ..PeerLimits::default() };
    let (node, _server, to, peers) = serving(limits);
    let large = || Bytes::from([b"wait ".as_slice(), &vec![b'x'; 1_000_000]].concat());
    let all = join_all((0..5).map(|_| ask(&peers, &to, large())));
    let (outcomes, ()) = tokio::join!(all, async {
        node.hangs(3).await;
        // A small one still finds room.
        assert_eq!(ask(&peers, &to, "hello").await, Ok(Bytes::from_static(b"hello")));
        node.go.send_replace(true);
    });
    let refused = outcomes.iter().filter(|outcome| **outcome == Err(WorkError::Overloaded)).count();
    assert!(refused >= 1 && outcomes.iter().filter(|outcome| outcome.is_ok()).count() == 5 - refused, "{outcomes:?}");
}

#[tokio::test]
async fn a_sender_bounds_what_it_has_under_way_to_one_peer() {
    let (node, _server, to, _) = serving(PeerLimits::default());
    let peers = peers(PeerLimits { per_peer: 1, ..PeerLimits::default() });
    let under_way = begin(&peers, &to, "wait");
    node.hangs(1).await;
    assert_eq!(ask(&peers, &to, "hello").await, Err(WorkError::Overloaded));
    node.go.send_replace(true);
    assert!(under_way.await.expect("joined").is_ok());
    assert!(ask(&peers, &to, "hello").await.is_ok());
}

#[tokio::test]
async fn a_dead_peer_fails_at_once_by_name() {
    let (_node, server, to, peers) = serving(PeerLimits::default());
    server.shutdown(Duration::ZERO).await;
    let text = unreachable_text(ask(&peers, &to, "hello").await);
    assert_eq!(text, format!("w at {}: connection refused", to.address));

    let text = unreachable_text(ask(&peers, &member("w", "no-such-host.invalid:7000"), "hello").await);
    assert!(text.starts_with("w at no-such-host.invalid:7000: "), "{text}");
    let text = unreachable_text(ask(&peers, &member("w", "nonsense"), "hello").await);
    assert_eq!(text, "w at nonsense: its address is not of the form host:port");
}

/// A listener whose queue is full: the kernel drops whatever else comes, as a machine does that is not there.
async fn black_hole() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(loopback()).expect("bound");
    let listener = socket.listen(1).expect("listening");
    let address = listener.local_addr().expect("an address");
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queued.push(stream.expect("connected"));
        assert!(queued.len() < 64, "the queue never fills");
    }
    (listener, queued, address)
}

#[tokio::test]
async fn a_black_hole_fails_soon_and_for_all_at_once() {
    let (_listener, _queued, address) = black_hole().await;
    let limit = Duration::from_millis(400);
    let peers = peers(PeerLimits { connect: limit, ..PeerLimits::default() });
    let to = member("w", address);
    let started = Instant::now();
    let outcomes = join_all((0..50).map(|_| ask(&peers, &to, "hello"))).await;
    // One attempt after the other would take 20 s.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    for outcome in outcomes {
        assert_eq!(unreachable_text(outcome), format!("w at {address}: no connection within 400ms"));
    }
    let soon = peers.send(&to, &group(), None, "hello".into(), Duration::from_millis(50)).await;
    assert_eq!(soon, Err(WorkError::TimedOut));
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up() {
    let listener = TcpListener::bind(loopback()).await.expect("bound");
    let to = member("w", listener.local_addr().expect("an address"));
    let peers = peers(PeerLimits { keepalive: Duration::from_millis(200), ..PeerLimits::default() });
    let (outcome, _silent) =
        tokio::join!(ask(&peers, &to, "hello"), async { listener.accept().await.expect("accepted") });
    let text = unreachable_text(outcome);
    assert_eq!(text, format!("w at {}: the peer has fallen silent: it answers no probe", to.address));
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_is_unreachable() {
    let (node, server, to, peers) = serving(PeerLimits::default());
    assert!(ask(&peers, &to, "hello").await.is_ok());
    let request = begin(&peers, &to, "hang");
    node.hangs(1).await;
    drop(server);
    let text = unreachable_text(timeout(LONG, request).await.expect("in time").expect("joined"));
    let ways = ["the peer closed the connection", "connection closed", "connection reset"];
    assert!(ways.iter().any(|way| text == format!("w at {}: {way}", to.address)), "{text}");
    node.hangs(0).await;
}

#[tokio::test]
async fn a_peer_that_restarts_is_found_again_at_the_next_send() {
    let (_node, mut server, to, peers) = serving(PeerLimits::default());
    for round in 0..10 {
        assert_eq!(ask(&peers, &to, "hello").await, Ok(Bytes::from_static(b"hello")), "round {round}");
        let address = server.local_addr();
        server.shutdown(Duration::from_secs(5)).await;
        if round % 2 == 0 {
            unreachable_text(ask(&peers, &to, "hello").await);
        }
        server = PeerServer::bind(address, None, PeerLimits::default(), Node::new("w")).expect("bound again");
    }
}

#[tokio::test]
async fn shutting_down_lets_work_end_within_its_grace() {
    let (node, server, to, peers) = serving(PeerLimits::default());
    let request = begin(&peers, &to, "wait");
    node.hangs(1).await;
    let stopping = tokio::spawn(server.shutdown(LONG));
    // Nobody listens any more, but the work goes on.
    let refused = async {
        while TcpStream::connect(&to.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, refused).await.expect("in time");
    node.go.send_replace(true);
    assert_eq!(request.await.expect("joined"), Ok(Bytes::from_static(b"waited")));
    timeout(LONG, stopping).await.expect("in time").expect("joined");
}

#[tokio::test]
async fn shutting_down_gives_up_on_work_that_does_not_end() {
    let (node, server, to, peers) = serving(PeerLimits::default());
    let request = begin(&peers, &to, "hang");
    node.hangs(1).await;
    timeout(LONG, server.shutdown(Duration::from_millis(50))).await.expect("in time");
    let text = unreachable_text(timeout(LONG, request).await.expect("in time").expect("joined"));
    assert_eq!(text, format!("w at {}: the node is stopping", to.address));
    node.hangs(0).await;
}

#[tokio::test]
async fn a_task_that_panics_harms_nobody_else() {
    let (_node, _server, to, peers) = serving(PeerLimits { in_flight: 1, ..PeerLimits::default() });
    for _ in 0..3 {
        let text = unreachable_text(ask(&peers, &to, "panic").await);
        assert_eq!(text, format!("w at {}: the peer dropped the request without an answer; see its log", to.address));
    }
    assert_eq!(ask(&peers, &to, "hello").await, Ok(Bytes::from_static(b"hello")));
}

#[tokio::test]
async fn nonsense_on_the_port_harms_nobody() {
    let (_node, server, to, peers) = serving(PeerLimits::default());
    let mut stranger = TcpStream::connect(server.local_addr()).await.expect("connected");
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    let _silent = TcpStream::connect(server.local_addr()).await.expect("connected");
    assert_eq!(ask(&peers, &to, "hello").await, Ok(Bytes::from_static(b"hello")));
    // Who says nothing does not hold up the end.
    timeout(LONG / 2, server.shutdown(LONG)).await.expect("in time");
}

#[tokio::test]
async fn connections_are_bounded() {
    let (_node, server, to, first) = serving(PeerLimits { connections: 1, ..PeerLimits::default() });
    assert!(ask(&first, &to, "hello").await.is_ok());
    let second = peers(PeerLimits::default());
    let text = unreachable_text(ask(&second, &to, "hello").await);
    assert!(text.contains("too many connections?"), "{text}");
    drop(first);
    // The place is free as soon as the server has seen the first one go.
    let again = async {
        while ask(&second, &to, "hello").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, again).await.expect("in time");
    drop(server);
}

#[tokio::test]
async fn links_are_let_go() {
    let servers: Vec<_> = (0..3).map(|_| serving(PeerLimits::default())).collect();
    let peers = peers(PeerLimits { peers: 2, ..PeerLimits::default() });
    for (_, _, to, _) in &servers {
        assert!(ask(&peers, to, "hello").await.is_ok());
    }
    let to = &servers[2].2;
    assert_eq!(peers.links(), 2, "the one that was used least recently has gone");
    peers.retain([to.address.as_str()]);
    assert_eq!(peers.links(), 1);
    peers.retain([]);
    assert_eq!(peers.links(), 0);
    assert!(ask(&peers, to, "hello").await.is_ok(), "and comes back when it is needed");
}

#[tokio::test]
async fn busy_links_are_not_let_go_for_new_ones() {
    let (node, _server, to, _) = serving(PeerLimits::default());
    let (_node, _other, other, _) = serving(PeerLimits::default());
    let peers = peers(PeerLimits { peers: 1, ..PeerLimits::default() });
    let under_way = begin(&peers, &to, "wait");
    node.hangs(1).await;
    assert_eq!(ask(&peers, &other, "hello").await, Err(WorkError::Overloaded));
    peers.retain([]);
    assert!(ask(&peers, &other, "hello").await.is_ok());
    node.go.send_replace(true);
    assert_eq!(under_way.await.expect("joined"), Ok(Bytes::from_static(b"waited")), "not cut off by `retain`");
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_on_is_named() {
    let (node, server, _, _) = serving(PeerLimits::default());
    let taken = server.local_addr();
    let error = PeerServer::bind(taken, None, PeerLimits::default(), node.clone()).expect_err("taken");
    assert!(matches!(error, PeerError::AddressInUse { address } if address == taken), "{error:?}");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = PeerServer::bind(foreign, None, PeerLimits::default(), node).expect_err("not ours");
    assert!(matches!(error, PeerError::NotLocal { address } if address == foreign), "{error:?}");
}

#[test]
fn connections_outlive_the_runtime_that_asked_for_them() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (home, guests) = (runtime(), runtime());
    let (_node, _server, to, peers) =
        home.block_on(async { serving(PeerLimits { connections: 1, ..PeerLimits::default() }) });
    assert!(guests.block_on(ask(&peers, &to, "hello")).is_ok());
    drop(guests);
    // Over the same connection: the server takes no second one.
    assert!(home.block_on(ask(&peers, &to, "hello")).is_ok());
    assert!(runtime().block_on(ask(&peers, &to, "hello")).is_ok());
}
