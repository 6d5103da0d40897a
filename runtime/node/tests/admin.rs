//! The admin API over a node that is a script.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall fail")]

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_core::callback::Step;
use bellwether_core::id::{Epoch, GroupName, NodeId, ReleaseId};
use bellwether_core::member::{Leader, Member};
use bellwether_core::release::{Artifact, Document, Numbered, Policy, Wanted};
use bellwether_core::state::Entry;
use bellwether_node::admin::{
    AdminAddress, AdminError, AdminOptions, AdminServer, Answer, CallbackCounts, Control, ControlError, DeployRequest,
    ErrorKind, ErrorReply, GroupStatus, NodeStatus, Nodes, Planned, ReleaseStatus, Role, RollbackRequest,
    RolloutStatus, SessionState, SessionStatus, StatusReply, Steer, SteerRequest, SwapOutcome, SwapReport, SwapRequest,
    TaskCounts, WatchScope,
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

/// Longer than anything here takes; only a test that has failed waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

fn member(id: &str) -> Arc<Member> {
    let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    Arc::new(Member { id: NodeId::new(id).unwrap(), address: format!("{id}.example:7001"), labels })
}

fn leader() -> Leader {
    Leader { id: NodeId::new("node-2").unwrap(), epoch: Epoch(42), address: "node-2.example:7001".to_owned() }
}

fn planned(wanted: Wanted, policy: Policy, plan: bool) -> Planned {
    let to = Numbered { number: 3, repeats: None, wanted, by: "ada".to_owned(), at: 7 };
    let waves = vec![vec![NodeId::new("node-2").unwrap()]];
    Planned { plan, current: None, to, policy, waves, leader: None }
}

fn report(outcome: SwapOutcome) -> SwapReport {
    let failed = outcome == SwapOutcome::RolledBack;
    SwapReport {
        release: Some(ReleaseId("bbbb".into())),
        from: Some(ReleaseId("aaaa".into())),
        outcome,
        step: failed.then_some(Step::Restore),
        reason: failed.then(|| "trapped: unreachable".to_owned()),
        at_ms: 12,
        pause_us: Some(90),
        rollback: false,
        steps: Vec::new(),
    }
}

/// A node whose answers depend on the group that is asked about.
struct Scripted {
    id: NodeId,
    role: Mutex<Role>,
    stops: AtomicUsize,
    steered: Mutex<Vec<(Steer, String)>>,
    /// Says that a call which never ends has begun.
    hanging: Notify,
    /// Says that the asker of such a call has gone away.
    dropped: Arc<Notify>,
}

impl Scripted {
    fn new(id: &str) -> Arc<Self> {
        Arc::new(Self {
            id: NodeId::new(id).unwrap(),
            role: Mutex::new(Role::Leader),
            stops: AtomicUsize::new(0),
            steered: Mutex::default(),
            hanging: Notify::new(),
            dropped: Arc::new(Notify::new()),
        })
    }

    async fn hang<T>(&self) -> T {
        struct Dropped(Arc<Notify>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let _dropped = Dropped(Arc::clone(&self.dropped));
        self.hanging.notify_one();
        std::future::pending().await
    }

    async fn answer<T>(&self, group: GroupName, good: T) -> Result<T, ControlError> {
        Err(match group.as_str() {
            "g" | "rolled-back" => return Ok(good),
            "follower" => ControlError::NotLeader { leader: Some(leader()) },
            "busy" => ControlError::Busy("a swap is under way".to_owned()),
            "failing" => ControlError::Failed { step: "check".to_owned(), reason: "no lifecycle".to_owned() },
            "away" => ControlError::Unavailable("ZooKeeper does not answer".to_owned()),
            "bad" => ControlError::BadRequest("no sense".to_owned()),
            "refused" => ControlError::Refused("release 2 is on its way".to_owned()),
            "hanging" => return self.hang().await,
            _ => ControlError::UnknownGroup { name: group.to_string(), known: vec!["g".to_owned()] },
        })
    }
}

impl Control for Scripted {
    fn node(&self) -> NodeId {
        self.id.clone()
    }

    fn status(&self) -> Answer<'_, NodeStatus> {
        Box::pin(async move {
            let role = *self.role.lock().unwrap();
            if role == Role::Stopped {
                return Err(ControlError::Unavailable("the node is stopping".to_owned()));
            }
            Ok(NodeStatus {
                node: self.id.clone(),
                version: "0.1.0".to_owned(),
                uptime_ms: 1500,
                address: "127.0.0.1:7001".to_owned(),
                session: SessionStatus {
                    id: Some("0x1000".to_owned()),
                    state: SessionState::Connected,
                    timeout_ms: Some(6000),
                    coordinator: "zookeeper://127.0.0.1:2181".to_owned(),
                    last_error: None,
                },
                groups: vec![GroupStatus {
                    name: GroupName::new("g").unwrap(),
                    role,
                    epoch: Some(Epoch(42)),
                    leader: Some(leader()),
                    members: vec![member("node-2")],
                    watch: WatchScope::Leader,
                    release: Some(ReleaseStatus {
                        id: ReleaseId("aaaa".into()),
                        digest: "dddd".to_owned(),
                        component: "a.wasm".to_owned(),
                        since_ms: 5,
                    }),
                    last_swap: Some(report(SwapOutcome::Committed)),
                    probation: false,
                    history: Vec::new(),
                    tasks: TaskCounts { in_flight: 1, done: 2, failed: 3, refused: 4 },
                    callbacks: CallbackCounts { called: 9, failed: 1, restarts: 1 },
                    last_error: None,
                }],
            })
        })
    }

    fn members(&self, group: GroupName) -> Answer<'_, Vec<Arc<Member>>> {
        Box::pin(self.answer(group, vec![member("node-2"), member("node-3")]))
    }

    fn swap(&self, group: GroupName, request: SwapRequest) -> Answer<'_, SwapReport> {
        assert!(request.component.as_ref().and_then(|component| component.file()).is_none_or(Path::is_absolute));
        let outcome = if group.as_str() == "rolled-back" { SwapOutcome::RolledBack } else { SwapOutcome::Committed };
        Box::pin(self.answer(group, report(outcome)))
    }

    fn resign(&self, group: GroupName) -> Answer<'_, ()> {
        Box::pin(self.answer(group, ()))
    }

    fn rollout(&self, group: GroupName) -> Answer<'_, RolloutStatus> {
        Box::pin(self.answer(group, RolloutStatus { document: Document::default(), nodes: vec![], leader: None }))
    }

    fn deploy(&self, group: GroupName, request: DeployRequest) -> Answer<'_, Planned> {
        let artifact = |reference: String| Artifact { reference, digest: "dddd".to_owned() };
        let component = artifact(request.component.unwrap_or_default());
        let wanted = Wanted { component, worker: request.worker.map(artifact), config: request.config };
        Box::pin(self.answer(group, planned(wanted, request.policy.policy(), request.plan)))
    }

    fn rollback(&self, group: GroupName, request: RollbackRequest) -> Answer<'_, Planned> {
        let reference = format!("release {:?}", request.to);
        let component = Artifact { reference, digest: "dddd".to_owned() };
        let wanted = Wanted { component, worker: None, config: None };
        Box::pin(self.answer(group, planned(wanted, request.policy.policy(), request.plan)))
    }

    fn steer(&self, group: GroupName, steer: Steer, request: SteerRequest) -> Answer<'_, RolloutStatus> {
        let by = request.by.unwrap_or_default();
        self.steered.lock().unwrap().push((steer, by));
        self.rollout(group)
    }

    fn state_list(&self, group: GroupName, prefix: String) -> Answer<'_, Vec<String>> {
        Box::pin(self.answer(group, vec![format!("{prefix}1"), format!("{prefix}2")]))
    }

    fn state_get(&self, group: GroupName, key: String) -> Answer<'_, Option<Entry>> {
        let value = (key != "absent").then(|| Entry { value: [0, 255, key.len() as u8].into(), version: 7 });
        Box::pin(self.answer(group, value))
    }

    fn stop(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
    }
}

struct Dev(Mutex<Vec<Arc<dyn Control>>>);

impl Nodes for Dev {
    fn list(&self) -> Vec<Arc<dyn Control>> {
        self.0.lock().unwrap().clone()
    }

    fn kill(&self, node: NodeId) -> Answer<'_, ()> {
        Box::pin(async move {
            self.0.lock().unwrap().retain(|other| other.node() != node);
            Ok(())
        })
    }
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        assert!(self.head.contains("application/json"), "{}", self.head);
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer").unwrap();
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a complete head");
    let head = String::from_utf8(answer[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head, body: answer[split + 4..].to_vec() }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

struct Served {
    server: AdminServer,
    folder: tempfile::TempDir,
}

impl Served {
    async fn with(nodes: Arc<dyn Nodes>, options: AdminOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = AdminAddress::Unix(folder.path().join("admin.sock"));
        let server = AdminServer::bind_nodes(&address, nodes, options).await.unwrap();
        Self { server, folder }
    }

    async fn one(node: &Arc<Scripted>) -> Self {
        Self::with(Arc::new(Dev(Mutex::new(vec![Arc::clone(node) as _]))), AdminOptions::default()).await
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    async fn raw(&self, request: &str) -> Reply {
        exchange(UnixStream::connect(self.path()).await.unwrap(), request).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.raw(&request("GET", path, "", "")).await
    }

    async fn post(&self, path: &str, body: &str) -> Reply {
        self.raw(&request("POST", path, "content-type: application/json\r\n", body)).await
    }
}

const SWAP: &str = r#"{"component":"/srv/new.wasm"}"#;

#[tokio::test]
async fn the_status_comes_back_as_it_was_given() {
    let node = Scripted::new("node-1");
    let served = Served::one(&node).await;
    let reply = served.get("/v1/status").await;
    assert_eq!(reply.status, 200);
    let status: StatusReply = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(status, StatusReply { nodes: vec![node.status().await.unwrap()], unanswered: vec![] });

    let json = reply.json();
    let group = &json["nodes"][0]["groups"][0];
    assert_eq!(json["nodes"][0]["node"], "node-1");
    assert_eq!(group["role"], "leader");
    assert_eq!(group["epoch"], 42);
    assert_eq!(group["leader"]["id"], "node-2");
    assert_eq!(group["members"][0], json!({"id":"node-2","address":"node-2.example:7001","labels":{"zone":"a"}}));
    assert_eq!(group["release"]["id"], "aaaa");
    assert_eq!(group["last_swap"]["outcome"], "committed");
    assert_eq!(served.get("/v1/nodes/node-1").await.json(), json["nodes"][0]);
    assert_eq!(served.get("/v1/nodes/node-1/groups/g").await.json(), *group);
    assert_eq!(served.get("/v1/nodes").await.json(), json!({"nodes":["node-1"]}));
}

#[tokio::test]
async fn each_call_reaches_the_node() {
    let node = Scripted::new("node-1");
    let served = Served::one(&node).await;
    let base = "/v1/nodes/node-1/groups/g";

    let members = served.get(&format!("{base}/members")).await.json();
    assert_eq!(members["members"][1]["id"], "node-3");

    let swap = served.post(&format!("{base}/swap"), SWAP).await;
    assert_eq!((swap.status, &swap.json()["outcome"]), (200, &json!("committed")));
    let configured = served.post(&format!("{base}/swap"), r#"{"config":{"workers":"4"}}"#).await;
    assert_eq!(configured.status, 200);

    assert_eq!(served.post(&format!("{base}/resign"), "").await.status, 204);

    assert_eq!(served.get(&format!("{base}/state?prefix=a%2Fb")).await.json(), json!({"keys":["a/b1","a/b2"]}));
    assert_eq!(served.get(&format!("{base}/state")).await.json(), json!({"keys":["1","2"]}));

    let value = served.get(&format!("{base}/state/value?key=a%2F..%2Fb+c")).await;
    assert_eq!(value.body, [0, 255, 8]);
    assert!(value.head.contains("bellwether-version: 7"), "{}", value.head);
    assert!(value.head.contains("application/octet-stream"), "{}", value.head);

    assert_eq!(served.post("/v1/nodes/node-1/stop", "").await.status, 202);
    assert_eq!(node.stops.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn each_error_has_its_status_and_says_what_it_knows() {
    let served = Served::one(&Scripted::new("node-1")).await;
    for (group, status, kind) in [
        ("elsewhere", 404, ErrorKind::UnknownGroup),
        ("follower", 409, ErrorKind::NotLeader),
        ("busy", 409, ErrorKind::Busy),
        ("failing", 422, ErrorKind::Failed),
        ("away", 503, ErrorKind::Unavailable),
        ("bad", 400, ErrorKind::BadRequest),
        ("refused", 409, ErrorKind::Refused),
        ("no%20name", 400, ErrorKind::BadRequest),
    ] {
        let base = format!("/v1/nodes/node-1/groups/{group}");
        for reply in [
            served.get(&format!("{base}/members")).await,
            served.post(&format!("{base}/swap"), SWAP).await,
            served.post(&format!("{base}/resign"), "").await,
            served.get(&format!("{base}/state")).await,
            served.get(&format!("{base}/state/value?key=k")).await,
            served.get(&format!("{base}/rollout")).await,
            served.post(&format!("{base}/rollout/abort"), "{}").await,
            served.post(&format!("{base}/rollback"), "{}").await,
            served.post(&format!("{base}/deploy"), r#"{"component":"file:/a"}"#).await,
        ] {
            let error: ErrorReply = serde_json::from_value(reply.json()).unwrap();
            assert_eq!((reply.status, error.error.kind), (status, kind), "{group}: {}", reply.text());
            assert!(!error.error.message.is_empty());
        }
    }

    let body = |reply: Reply| serde_json::from_value::<ErrorReply>(reply.json()).unwrap().error;
    let unknown = body(served.get("/v1/nodes/node-1/groups/elsewhere").await);
    assert_eq!(unknown.message, "no group \"elsewhere\" on this node; it has g");
    assert_eq!(unknown.known, ["g"]);
    let unknown = body(served.get("/v1/nodes/node-9").await);
    assert_eq!(unknown.message, "no node \"node-9\" in this process; it runs node-1");
    assert_eq!((unknown.kind, unknown.known), (ErrorKind::UnknownNode, vec!["node-1".to_owned()]));
    let follower = body(served.post("/v1/nodes/node-1/groups/follower/resign", "").await);
    assert_eq!(follower.leader, Some(leader()));
    assert_eq!(follower.message, "this node does not lead; node-2 does, since epoch e42");
    let failed = body(served.post("/v1/nodes/node-1/groups/failing/swap", SWAP).await);
    assert_eq!((failed.step.as_deref(), failed.reason.as_deref()), (Some("check"), Some("no lifecycle")));
    let absent = served.get("/v1/nodes/node-1/groups/g/state/value?key=absent").await;
    assert_eq!(absent.status, 404);
    assert_eq!(body(absent).kind, ErrorKind::UnknownKey);
}

#[tokio::test]
async fn a_swap_that_was_rolled_back_is_an_error_with_its_report() {
    let served = Served::one(&Scripted::new("node-1")).await;
    let reply = served.post("/v1/nodes/node-1/groups/rolled-back/swap", SWAP).await;
    assert_eq!(reply.status, 422);
    let error = serde_json::from_value::<ErrorReply>(reply.json()).unwrap().error;
    assert_eq!(error.kind, ErrorKind::Failed);
    assert_eq!(error.message, "rolled back: restore failed: trapped: unreachable; the old release serves");
    assert_eq!(error.report, Some(report(SwapOutcome::RolledBack)));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_in_json() {
    let served = Served::one(&Scripted::new("node-1")).await;
    let swap = "/v1/nodes/node-1/groups/g/swap";
    let plain = request("POST", swap, "content-type: text/plain\r\n", SWAP);
    let large = format!(r#"{{"component":"/{}"}}"#, "x".repeat(100_000));
    for (reply, status) in [
        (served.post(swap, "{").await, 400),
        (served.post(swap, "{}").await, 400),
        (served.post(swap, r#"{"component":"/a","force":true}"#).await, 400),
        (served.post(swap, r#"{"component":"relative.wasm"}"#).await, 400),
        (served.post(swap, r#"{"config":{}}"#).await, 400),
        (served.post(swap, r#"{"config":{"workers":4}}"#).await, 400),
        (served.post(swap, r#"{"component":"https://host/x.wasm"}"#).await, 400),
        (served.post(swap, r#"{"component":"oci://me:hunter2@host/x:v1"}"#).await, 400),
        (served.post(swap, &large).await, 413),
        (served.raw(&plain).await, 415),
        (served.get("/v1/nodes/node-1/groups/g/state/value").await, 400),
        (served.post("/v1/nodes/node-1/kill", "").await, 204),
    ] {
        assert_eq!(reply.status, status, "{}", reply.text());
        if status != 204 {
            assert_eq!(reply.json()["error"]["kind"], "bad-request", "{}", reply.text());
        }
    }
    for (reply, status) in [
        (served.get("/v2/status").await, 404),
        (served.get(swap).await, 405),
        (served.post("/v1/status", "").await, 405),
    ] {
        assert_eq!((reply.status, &reply.json()["error"]["kind"]), (status, &json!("unknown-call")));
    }
}

#[tokio::test]
async fn the_calls_about_rollouts_reach_the_node() {
    let node = Scripted::new("node-1");
    let served = Served::one(&node).await;
    let base = "/v1/nodes/node-1/groups/g";
    assert_eq!(served.get(&format!("{base}/rollout")).await.json()["document"]["last"], 0);
    for steer in ["pause", "resume", "abort"] {
        assert_eq!(served.post(&format!("{base}/rollout/{steer}"), r#"{"by":"ada"}"#).await.status, 200, "{steer}");
    }
    let expected = [Steer::Pause, Steer::Resume, Steer::Abort].map(|steer| (steer, "ada".to_owned()));
    assert_eq!(*node.steered.lock().unwrap(), expected);

    let deploy = json!({
        "component": "file:/a.wasm", "config": {"key": "x".repeat(90_000)}, "plan": true,
        "policy": {"canaries": 2, "settle_ms": 1500, "on_failure": "halt"}
    });
    let planned = served.post(&format!("{base}/deploy"), &deploy.to_string()).await;
    assert_eq!(planned.status, 200, "{}", planned.text());
    let planned = planned.json();
    assert_eq!((&planned["plan"], &planned["to"]["wanted"]["config"]), (&json!(true), &deploy["config"]));
    let policy = json!({"canaries":2,"max_unavailable":1,"settle":1500,"patience":300_000,"on_failure":"halt"});
    assert_eq!(planned["policy"], policy);
    let back = served.post(&format!("{base}/rollback"), r#"{"to":2}"#).await.json();
    assert_eq!(back["to"]["wanted"]["component"]["reference"], "release Some(2)");
}

#[tokio::test]
async fn deployments_that_make_no_sense_are_refused_in_json() {
    let served = Served::one(&Scripted::new("node-1")).await;
    let base = "/v1/nodes/node-1/groups/g";
    for (call, body) in [
        ("deploy", "{"),
        ("deploy", r#"{"componet":"file:/a"}"#),
        ("deploy", r#"{"config":{"nested":{}}}"#),
        ("deploy", r#"{"policy":{"settle":1}}"#),
        ("deploy", r#"{"policy":{"on_failure":"panic"}}"#),
        ("deploy", r#"{"worker":"file:/w","no_worker":true}"#),
        ("deploy", r#"{"config":{},"manifest_config":true}"#),
        ("rollback", r#"{"to":"one"}"#),
        ("rollout/abort", r#"{"force":true}"#),
    ] {
        let reply = served.post(&format!("{base}/{call}"), body).await;
        assert_eq!((reply.status, &reply.json()["error"]["kind"]), (400, &json!("bad-request")), "{call} {body}");
    }
}

#[tokio::test]
async fn only_dev_can_kill_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let server = AdminServer::bind(&AdminAddress::Unix(path.clone()), Scripted::new("node-1")).await.unwrap();
    let kill = request("POST", "/v1/nodes/node-1/kill", "", "");
    let reply = exchange(UnixStream::connect(&path).await.unwrap(), &kill).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("bellwether dev"), "{}", reply.text());
    server.shutdown(PATIENCE).await;

    let nodes: Vec<Arc<dyn Control>> = vec![Scripted::new("node-1"), Scripted::new("node-2")];
    let served = Served::with(Arc::new(Dev(Mutex::new(nodes))), AdminOptions::default()).await;
    assert_eq!(served.get("/v1/status").await.json()["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(served.post("/v1/nodes/node-1/kill", "").await.status, 204);
    assert_eq!(served.get("/v1/nodes").await.json(), json!({"nodes":["node-2"]}));
    assert_eq!(served.post("/v1/nodes/node-1/kill", "").await.status, 404);
}

#[tokio::test]
async fn health_is_the_process_and_readiness_the_registration() {
    let node = Scripted::new("node-1");
    let served = Served::one(&node).await;
    for (role, status) in [
        (Role::Starting, 503),
        (Role::Worker, 200),
        (Role::Leader, 200),
        (Role::SittingOut, 200),
        (Role::Demoting, 503),
        (Role::Stopped, 503),
    ] {
        *node.role.lock().unwrap() = role;
        let ready = served.get("/readyz").await;
        assert_eq!(ready.status, status, "{role}: {}", ready.text());
        assert_eq!(ready.json()["ready"], status == 200);
        assert_eq!(served.get("/healthz").await.status, 200);
    }
    let waiting = served.get("/readyz").await.json();
    assert_eq!(waiting["waiting"][0], json!({"node":"node-1","why":"not available: the node is stopping"}));
    let status = served.get("/v1/status").await.json();
    assert_eq!(status["unanswered"][0]["node"], "node-1");
    assert_eq!(served.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn metrics_are_in_prometheus_text_format() {
    let served = Served::one(&Scripted::new("node-1")).await;
    let reply = served.get("/metrics").await;
    assert!(reply.head.contains("text/plain; version=0.0.4"), "{}", reply.head);
    let text = reply.text();
    for line in [
        "bellwether_info{node=\"node-1\",version=\"0.1.0\"} 1",
        "bellwether_uptime_seconds{node=\"node-1\"} 1.5",
        "bellwether_leading{node=\"node-1\",group=\"g\"} 1",
        "bellwether_epoch{node=\"node-1\",group=\"g\"} 42",
        "bellwether_tasks_total{node=\"node-1\",group=\"g\",result=\"refused\"} 4",
        "bellwether_last_swap_pause_seconds{node=\"node-1\",group=\"g\"} 0.00009",
        "# TYPE bellwether_tasks_total counter",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    let families: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let unique: std::collections::BTreeSet<_> = families.iter().collect();
    assert_eq!(families.len(), unique.len(), "each family comes once");
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let served = Served::one(&Scripted::new("node-1")).await;
    let path = served.path();
    let meta = std::fs::metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let Served { server, folder } = served;
    server.shutdown(PATIENCE).await;
    assert!(!path.exists());

    let server = AdminServer::bind(&AdminAddress::Unix(path.clone()), Scripted::new("node-1")).await.unwrap();
    drop(server);
    assert!(!path.exists());
    drop(folder);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let address = AdminAddress::Unix(path.clone());
    // A crash leaves the file behind, with nobody listening.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = AdminServer::bind(&address, Scripted::new("node-1")).await.unwrap();

    let error = AdminServer::bind(&address, Scripted::new("node-2")).await.unwrap_err();
    assert!(matches!(error, AdminError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("is this node running already?"), "{error}");
    let reply = exchange(UnixStream::connect(&path).await.unwrap(), &request("GET", "/v1/nodes", "", "")).await;
    assert_eq!(reply.json(), json!({"nodes":["node-1"]}));
    server.shutdown(PATIENCE).await;

    // Somebody who serves there without our lock is respected just the same.
    let foreign = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = AdminServer::bind(&address, Scripted::new("node-2")).await.unwrap_err();
    assert!(matches!(error, AdminError::InUse { .. }), "{error:?}");
    drop(foreign);
}

#[tokio::test]
async fn of_many_servers_at_once_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = AdminAddress::Unix(path.clone());
    let all = (0..16).map(|_| AdminServer::bind(&address, Scripted::new("node-1")));
    let won: Vec<_> = futures::future::join_all(all).await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(won.len(), 1);
    let reply = exchange(UnixStream::connect(&path).await.unwrap(), &request("GET", "/healthz", "", "")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = AdminServer::bind(&AdminAddress::Unix(path.clone()), Scripted::new("n")).await.unwrap_err();
    assert!(matches!(error, AdminError::NotASocket(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");

    let long = folder.path().join("x".repeat(120));
    let error = AdminServer::bind(&AdminAddress::Unix(long), Scripted::new("n")).await.unwrap_err();
    assert!(error.to_string().contains("at most 107"), "{error}");
    let nowhere = folder.path().join("absent/admin.sock");
    let error = AdminServer::bind(&AdminAddress::Unix(nowhere), Scripted::new("n")).await.unwrap_err();
    assert!(matches!(error, AdminError::Bind { .. }), "{error:?}");
}

async fn tcp() -> (AdminServer, std::net::SocketAddr) {
    let server = AdminServer::bind(&"127.0.0.1:0".parse().unwrap(), Scripted::new("node-1")).await.unwrap();
    let AdminAddress::Tcp(address) = *server.address() else { panic!("{}", server.address()) };
    assert_ne!(address.port(), 0);
    (server, address)
}

#[tokio::test]
async fn on_tcp_web_pages_are_kept_out() {
    let (_server, address) = tcp().await;
    let port = address.port();
    let ask = async |head: String| {
        let stream = TcpStream::connect(address).await.unwrap();
        exchange(stream, &format!("{head}\r\n\r\n")).await
    };
    for host in ["localhost".to_owned(), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        assert_eq!(ask(format!("GET /v1/status HTTP/1.1\r\nhost: {host}")).await.status, 200, "{host}");
    }
    for head in [
        "GET /v1/status HTTP/1.1\r\nhost: evil.example".to_owned(),
        format!("GET /v1/status HTTP/1.1\r\nhost: evil.example:{port}"),
        "GET /healthz HTTP/1.1\r\nhost: evil.example".to_owned(),
        "GET /no-such-call HTTP/1.1\r\nhost: evil.example".to_owned(),
        "GET /v1/status HTTP/1.0".to_owned(),
        "GET /v1/status HTTP/1.1\r\nhost: localhost\r\nhost: evil.example".to_owned(),
        "GET http://evil.example/v1/status HTTP/1.1\r\nhost: localhost".to_owned(),
        "POST /v1/nodes/node-1/stop HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example".to_owned(),
        "POST /v1/nodes/node-1/stop HTTP/1.1\r\nhost: localhost\r\norigin: null".to_owned(),
        "POST /v1/nodes/node-1/stop HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site".to_owned(),
    ] {
        let reply = ask(head.clone()).await;
        assert_eq!((reply.status, &reply.json()["error"]["kind"]), (403, &json!("forbidden")), "{head}");
        assert!(!reply.head.to_lowercase().contains("access-control"), "{}", reply.head);
    }
}

#[tokio::test]
async fn tcp_is_for_the_loopback_alone_and_one_server() {
    for text in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let address = AdminAddress::Tcp(text.parse().unwrap());
        let error = AdminServer::bind(&address, Scripted::new("n")).await.unwrap_err();
        assert!(error.to_string().contains("not a loopback address"), "{error}");
    }
    let (_server, address) = tcp().await;
    let error = AdminServer::bind(&AdminAddress::Tcp(address), Scripted::new("n")).await.unwrap_err();
    assert!(matches!(error, AdminError::InUse { .. }), "{error:?}");
}

#[tokio::test]
async fn a_node_that_does_not_answer_holds_nobody_up() {
    let options = AdminOptions {
        read: Duration::from_millis(50),
        change: Duration::from_millis(50),
        swap: Duration::from_millis(50),
        ..AdminOptions::default()
    };
    let nodes: Vec<Arc<dyn Control>> = vec![Scripted::new("node-1")];
    let served = Served::with(Arc::new(Dev(Mutex::new(nodes))), options).await;
    let base = "/v1/nodes/node-1/groups/hanging";
    for reply in [
        served.get(&format!("{base}/members")).await,
        served.post(&format!("{base}/swap"), SWAP).await,
        served.post(&format!("{base}/resign"), "").await,
    ] {
        assert_eq!((reply.status, &reply.json()["error"]["kind"]), (504, &json!("timed-out")), "{}", reply.text());
    }
    assert_eq!(served.get("/v1/status").await.status, 200);
}

#[tokio::test]
async fn clients_that_say_nothing_lose_their_place() {
    let options = AdminOptions { connections: 2, header: Duration::from_millis(100), ..AdminOptions::default() };
    let nodes: Vec<Arc<dyn Control>> = vec![Scripted::new("node-1")];
    let served = Served::with(Arc::new(Dev(Mutex::new(nodes))), options).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(UnixStream::connect(served.path()).await.unwrap());
    }
    assert_eq!(served.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_shutdown_lets_requests_end_and_cuts_off_those_that_do_not() {
    let node = Scripted::new("node-1");
    let served = Served::one(&node).await;
    let path = served.path();
    let asking = tokio::spawn({
        let path = path.clone();
        async move {
            let mut stream = UnixStream::connect(path).await.unwrap();
            let swap =
                request("POST", "/v1/nodes/node-1/groups/hanging/swap", "content-type: application/json\r\n", SWAP);
            stream.write_all(swap.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            // Cut off: the end of the stream, or a reset.
            let _ = stream.read_to_end(&mut rest).await;
            rest
        }
    });
    tokio::time::timeout(PATIENCE, node.hanging.notified()).await.expect("the request to arrive");
    served.server.shutdown(Duration::from_millis(20)).await;
    assert!(!path.exists());
    assert_eq!(tokio::time::timeout(PATIENCE, asking).await.expect("the client to be cut off").unwrap(), b"");
    tokio::time::timeout(PATIENCE, node.dropped.notified()).await.expect("the call to be dropped");
}

#[tokio::test]
async fn an_asker_who_leaves_frees_its_place() {
    let node = Scripted::new("node-1");
    let options = AdminOptions { connections: 1, ..AdminOptions::default() };
    let nodes: Vec<Arc<dyn Control>> = vec![Arc::clone(&node) as _];
    let served = Served::with(Arc::new(Dev(Mutex::new(nodes))), options).await;
    let mut asker = UnixStream::connect(served.path()).await.unwrap();
    let resign = request("POST", "/v1/nodes/node-1/groups/hanging/resign", "", "");
    asker.write_all(resign.as_bytes()).await.unwrap();
    tokio::time::timeout(PATIENCE, node.hanging.notified()).await.expect("the request to arrive");
    drop(asker);
    tokio::time::timeout(PATIENCE, node.dropped.notified()).await.expect("the call to be dropped");
    assert_eq!(served.get("/healthz").await.status, 200);
}

/// The examples of ADMIN.md: method, path and body.
fn examples() -> Vec<(&'static str, String, String)> {
    let text = include_str!("../ADMIN.md").replace("\\\n", " ");
    let curls = text.lines().filter(|line| line.starts_with("curl "));
    let example = |line: &str| {
        let (before, url) = line.split_once("http://localhost").expect("each example names a URL");
        let quoted = |from: &str| from.split('\'').next().unwrap_or_default().to_owned();
        let body = before.split_once("-d '").map(|(_, rest)| quoted(rest)).unwrap_or_default();
        let method = if before.contains("-X POST") || !body.is_empty() { "POST" } else { "GET" };
        (method, quoted(url.trim()).replace("wordcount", "g"), body)
    };
    curls.map(example).collect()
}

#[tokio::test]
async fn every_example_of_the_documentation_works() {
    // Two nodes, because one example kills the first.
    let nodes: Vec<Arc<dyn Control>> = vec![Scripted::new("node-1"), Scripted::new("node-2")];
    let served = Served::with(Arc::new(Dev(Mutex::new(nodes))), AdminOptions::default()).await;
    let examples = examples();
    assert_eq!(examples.len(), 20, "every call has its example: {examples:?}");
    for (method, path, body) in examples {
        let reply = if method == "GET" { served.get(&path).await } else { served.post(&path, &body).await };
        assert!((200..300).contains(&reply.status), "{method} {path}: {} {}", reply.status, reply.text());
    }
}

#[tokio::test]
async fn every_metric_is_documented() {
    let served = Served::one(&Scripted::new("node-1")).await;
    let text = served.get("/metrics").await.text();
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(include_str!("../ADMIN.md").contains(&format!("| `{name}` |")), "{name} is not in ADMIN.md");
    }
}
