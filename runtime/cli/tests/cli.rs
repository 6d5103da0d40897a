//! The binary, against an admin API over nodes that are scripts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall fail")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_core::id::{Epoch, GroupName, NodeId, ReleaseId};
use bellwether_core::member::{Leader, Member};
use bellwether_core::release::Document;
use bellwether_core::state::Entry;
use bellwether_node::admin::{
    AdminAddress, AdminOptions, AdminServer, Answer, CallbackCounts, Control, ControlError, DeployRequest, GroupStatus,
    NodeStatus, Nodes, Planned, Role, RollbackRequest, RolloutStatus, SessionState, SessionStatus, Steer, SteerRequest,
    SwapOutcome, SwapReport, SwapRequest, TaskCounts, WatchScope,
};
use serde_json::Value;

/// A node whose second group, `h`, fails in every way; of several, `node-2` leads `g`.
struct Scripted(NodeId);

impl Scripted {
    fn leads(&self) -> bool {
        self.0.as_str() == "node-2"
    }

    async fn answer<T>(&self, group: &GroupName, good: T) -> Result<T, ControlError> {
        match group.as_str() {
            "g" => Ok(good),
            "away" => Err(ControlError::Unavailable("ZooKeeper does not answer".to_owned())),
            _ => Err(ControlError::UnknownGroup { name: group.to_string(), known: vec!["g".to_owned()] }),
        }
    }
}

impl Control for Scripted {
    fn node(&self) -> NodeId {
        self.0.clone()
    }

    fn status(&self) -> Answer<'_, NodeStatus> {
        let leader = Leader { id: NodeId::new("node-2").unwrap(), epoch: Epoch(7), address: "a:2".to_owned() };
        let group = GroupStatus {
            name: GroupName::new("g").unwrap(),
            role: if self.leads() { Role::Leader } else { Role::Worker },
            epoch: self.leads().then_some(Epoch(7)),
            leader: Some(leader),
            members: vec![],
            watch: WatchScope::Leader,
            release: None,
            last_swap: None,
            probation: false,
            history: Vec::new(),
            tasks: TaskCounts::default(),
            callbacks: CallbackCounts::default(),
            last_error: None,
        };
        let status = NodeStatus {
            node: self.0.clone(),
            version: "0.1.0".to_owned(),
            uptime_ms: 61_000,
            address: "a:1".to_owned(),
            session: SessionStatus {
                id: None,
                state: SessionState::Connected,
                timeout_ms: Some(6000),
                coordinator: "memory:".to_owned(),
                last_error: None,
            },
            groups: vec![group],
        };
        Box::pin(async move { Ok(status) })
    }

    fn members(&self, group: GroupName) -> Answer<'_, Vec<Arc<Member>>> {
        Box::pin(async move {
            let labels = [("zone".to_owned(), "a".to_owned())].into();
            // The answer shows which node was asked.
            self.answer(&group, vec![Arc::new(Member { id: self.0.clone(), address: "a:1".to_owned(), labels })]).await
        })
    }

    fn swap(&self, group: GroupName, request: SwapRequest) -> Answer<'_, SwapReport> {
        Box::pin(async move {
            // Without a component the settings decide.
            let good = match &request.component {
                Some(component) => {
                    let file = component.file();
                    file.and_then(|file| std::fs::read(file).ok()).is_some_and(|bytes| bytes == b"good")
                }
                None => request.config.get("mood").is_some_and(|mood| mood == "good=1"),
            };
            let report = SwapReport {
                release: Some(ReleaseId("bbbbbbbbbbbbbbbbbbbb".into())),
                from: Some(ReleaseId("aaaaaaaaaaaaaaaaaaaa".into())),
                outcome: if good { SwapOutcome::Committed } else { SwapOutcome::RolledBack },
                step: (!good).then_some(bellwether_core::callback::Step::Check),
                reason: (!good).then(|| "no lifecycle".to_owned()),
                at_ms: 1,
                pause_us: good.then_some(90),
                rollback: false,
                steps: Vec::new(),
            };
            self.answer(&group, report).await
        })
    }

    fn resign(&self, group: GroupName) -> Answer<'_, ()> {
        Box::pin(async move {
            self.answer(&group, ()).await?;
            if self.leads() { Ok(()) } else { Err(ControlError::NotLeader { leader: None }) }
        })
    }

    fn rollout(&self, group: GroupName) -> Answer<'_, RolloutStatus> {
        let nothing = RolloutStatus { document: Document::default(), nodes: vec![], leader: None };
        Box::pin(async move { self.answer(&group, nothing).await })
    }

    fn deploy(&self, group: GroupName, _: DeployRequest) -> Answer<'_, Planned> {
        let step = format!("read of {group}");
        Box::pin(async { Err(ControlError::Failed { step, reason: "no such file".to_owned() }) })
    }

    fn rollback(&self, group: GroupName, request: RollbackRequest) -> Answer<'_, Planned> {
        let why = format!("there is no release {:?} of {group}", request.to);
        Box::pin(async { Err(ControlError::Refused(why)) })
    }

    fn steer(&self, group: GroupName, _: Steer, _: SteerRequest) -> Answer<'_, RolloutStatus> {
        self.rollout(group)
    }

    fn state_list(&self, group: GroupName, prefix: String) -> Answer<'_, Vec<String>> {
        Box::pin(async move {
            let keys = if prefix == "none" { vec![] } else { vec![format!("{prefix}a"), format!("{prefix}b")] };
            self.answer(&group, keys).await
        })
    }

    fn state_get(&self, group: GroupName, key: String) -> Answer<'_, Option<Entry>> {
        Box::pin(async move {
            let value: Option<Vec<u8>> = match key.as_str() {
                "absent" => None,
                "binary" => Some(vec![0, 255, 10]),
                "large" => Some(vec![b'x'; 4 << 20]),
                _ => Some(b"text".to_vec()),
            };
            self.answer(&group, value.map(|value| Entry { value: value.into(), version: 3 })).await
        })
    }

    fn stop(&self) {}
}

struct Dev(Mutex<Vec<Arc<dyn Control>>>);

impl Nodes for Dev {
    fn list(&self) -> Vec<Arc<dyn Control>> {
        self.0.lock().unwrap().clone()
    }

    fn kill(&self, node: NodeId) -> Answer<'_, ()> {
        self.0.lock().unwrap().retain(|other| other.node() != node);
        Box::pin(async { Ok(()) })
    }
}

/// A process with some nodes, and a folder to call it from.
struct World {
    folder: tempfile::TempDir,
    address: AdminAddress,
    _server: AdminServer,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    fn new(nodes: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join(".bellwether/data");
        std::fs::create_dir_all(&data).unwrap();
        Self::at(folder, nodes, &AdminAddress::Unix(data.join("admin.sock")))
    }

    fn at(folder: tempfile::TempDir, nodes: &[&str], address: &AdminAddress) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let nodes = nodes.iter().map(|id| Arc::new(Scripted(NodeId::new(id).unwrap())) as Arc<dyn Control>).collect();
        let nodes = Arc::new(Dev(Mutex::new(nodes)));
        let server = runtime.block_on(AdminServer::bind_nodes(address, nodes, AdminOptions::default())).unwrap();
        let address = server.address().clone();
        Self { folder, address, _server: server, _runtime: runtime }
    }

    /// Runs the binary in the folder.
    fn run(&self, arguments: &[&str]) -> Ran {
        run_in(self.folder.path(), arguments)
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.folder.path().join(name), content).unwrap();
    }
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn good(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    #[track_caller]
    fn bad(self, code: i32, says: &str) -> String {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        assert!(self.err.starts_with("error: "), "{}", self.err);
        assert!(self.err.contains(says), "{says:?} is not in\n{}", self.err);
        self.out
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for name in ["BELLWETHER_ADMIN", "BELLWETHER_LOG", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    command
}

fn run_in(folder: &Path, arguments: &[&str]) -> Ran {
    ran(command(folder, arguments).output().unwrap())
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_one_socket_of_the_folder_is_found() {
    let world = World::new(&["node-1"]);
    let shown = world.run(&["status"]).good();
    assert!(
        shown.starts_with("node-1  a:1  up 1m 1s  version 0.1.0\nsession connected, timeout 6s, memory:\n"),
        "{shown}"
    );
    assert!(!shown.contains('\x1b'), "no colours in a pipe: {shown}");
    let status = json(&world.run(&["status", "--json"]).good());
    assert_eq!(status["nodes"][0]["groups"][0]["role"], "worker");
    assert!(world.run(&["--color", "always", "status"]).good().contains('\x1b'));
}

#[test]
fn the_address_can_be_given_in_each_way() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::at(folder, &["node-1"], &"127.0.0.1:0".parse().unwrap());
    let address = world.address.to_string();
    world.run(&["status"]).bad(7, "help: give --admin ADDRESS");
    world.run(&["--admin", &address, "status"]).good();
    world.run(&["status", "--admin", &address]).good();
    let by_env = command(world.folder.path(), &["status"]).env("BELLWETHER_ADMIN", &address).output().unwrap();
    ran(by_env).good();
}

#[test]
fn no_node_is_exit_code_7() {
    let folder = tempfile::tempdir().unwrap();
    let run = |address: &str| run_in(folder.path(), &["status", "--admin", address]);
    run("unix:absent.sock").bad(7, "no node answers at unix:absent.sock\n  there is no such socket\n  help: start it");
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("stale.sock")).unwrap());
    run("unix:stale.sock").bad(7, "nobody listens there");
    // Something answers, but it does not speak HTTP.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let other = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        let _ = stream.read(&mut [0; 1024]);
    });
    run(&address).bad(7, "broke off before it answered");
    other.join().unwrap();
}

#[test]
fn what_makes_no_sense_is_exit_code_2() {
    let world = World::new(&["node-1"]);
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["swap", "g"],
        &["swap", "g", "--config"],
        &["swap", "g", "--config", "mood"],
        &["swap", "g", "--config", "=good"],
        &["swap", "g", "--config", "a=1", "--config", "a=2"],
        &["dev", "--nodes", "0"],
        &["--admin", "0.0.0.0:80", "status"],
        &["status", "--color", "pink"],
        &["status", "--watch=0"],
    ] {
        let ran = world.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {}", ran.err);
    }
    world.run(&["members", "no name"]).bad(2, "is not a valid group name");
    world.run(&["check", "--log", "info,["]).bad(2, "is no log filter");
}

#[test]
fn a_manifest_that_is_not_there_is_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    for verb in ["run", "dev", "check"] {
        run_in(folder.path(), &[verb]).bad(3, "bellwether.toml");
        run_in(folder.path(), &[verb, "other.toml"]).bad(3, "other.toml");
    }
    // One that is there, and wrong, is told of where it would have been used.
    std::fs::write(folder.path().join("bellwether.toml"), "[bad").unwrap();
    run_in(folder.path(), &["status"]).bad(3, "");
}

#[test]
fn a_component_that_is_not_there_is_exit_code_4() {
    let world = World::new(&["node-1"]);
    world.run(&["check", "absent.wasm"]).bad(4, "absent.wasm");
    world.run(&["swap", "g", "absent.wasm"]).bad(4, "cannot use the component absent.wasm");
    world.run(&["swap", "g", "."]).bad(4, "it is not a file");
}

#[test]
fn a_swap_tells_how_it_ended() {
    let world = World::new(&["node-1"]);
    world.file("v2.wasm", "good");
    world.file("v3.wasm", "poor");
    let said = world.run(&["swap", "g", "v2.wasm"]).good();
    assert_eq!(said, "g: aaaaaaaaaaaa to bbbbbbbbbbbb committed, callbacks waited 0.09 ms\n");
    assert_eq!(json(&world.run(&["swap", "g", "v2.wasm", "--json"]).good())["outcome"], "committed");
    world.run(&["swap", "g", "--config", "mood=good=1", "--config", "other="]).good();
    world.run(&["swap", "g", "--config", "mood="]).bad(1, "rolled back");

    let said = world.run(&["swap", "g", "v3.wasm"]).bad(1, "rolled back: check failed: no lifecycle; the old release");
    assert_eq!(said, "");
    let said = world.run(&["swap", "g", "v3.wasm", "--json"]).bad(1, "rolled back");
    assert_eq!(json(&said)["step"], "check");
}

#[test]
fn refusals_have_their_exit_codes() {
    let world = World::new(&["node-1"]);
    world.run(&["members", "x"]).bad(1, "no group \"x\" on this node; it has g");
    world.run(&["members", "away"]).bad(5, "ZooKeeper does not answer");
    world.run(&["resign", "g"]).bad(1, "help: `bellwether status` tells who leads");
    world.run(&["members", "g", "--node", "node-9"]).bad(1, "no node \"node-9\" in this process; it runs node-1");
}

#[test]
fn of_several_nodes_the_leader_is_asked_and_a_swap_needs_a_name() {
    let world = World::new(&["node-1", "node-2", "node-3"]);
    world.file("v2.wasm", "good");
    assert_eq!(world.run(&["members", "g"]).good(), "ID      ADDRESS  LABELS\nnode-2  a:1      zone=a\n");
    let one = json(&world.run(&["members", "g", "--json", "--node", "node-3"]).good());
    assert_eq!(one["members"][0]["id"], "node-3");
    assert_eq!(world.run(&["resign", "g"]).good(), "g: resigning\n");
    world.run(&["swap", "g", "v2.wasm"]).bad(2, "help: give --node with one of: node-1, node-2, node-3");
    world.run(&["swap", "g", "v2.wasm", "--node", "node-3"]).good();
    world.run(&["members", "x"]).bad(1, "no group \"x\"");

    assert_eq!(world.run(&["kill", "node-2"]).good(), "node-2: killed\n");
    world.run(&["kill", "node-2"]).bad(1, "it runs node-1, node-3");
    let status = json(&world.run(&["status", "--json"]).good());
    assert_eq!(status["nodes"].as_array().unwrap().len(), 2);
    let one = json(&world.run(&["status", "--json", "--node", "node-3"]).good());
    assert_eq!(one["nodes"][0]["node"], "node-3");
    world.run(&["kill", "node-1"]).good();
    world.run(&["kill", "node-3"]).good();
    assert_eq!(world.run(&["status"]).good(), "no node runs in this process any more\n");
    world.run(&["members", "g"]).bad(1, "no node runs in it any more");
}

#[test]
fn the_state_comes_as_it_is() {
    let world = World::new(&["node-1"]);
    let raw = command(world.folder.path(), &["state", "get", "g", "binary"]).output().unwrap();
    assert_eq!(raw.stdout, [0, 255, 10]);
    assert_eq!(world.run(&["state", "get", "g", "k"]).good(), "text");
    let coded = json(&world.run(&["state", "get", "g", "binary", "--json"]).good());
    assert_eq!(coded, serde_json::json!({"key":"binary","version":3,"value_base64":"AP8K"}));
    let text = json(&world.run(&["state", "get", "g", "a/b c", "--json"]).good());
    assert_eq!(text, serde_json::json!({"key":"a/b c","version":3,"value":"text"}));
    assert_eq!(world.run(&["state", "get", "g", "absent"]).bad(1, "no key \"absent\""), "");
    assert_eq!(world.run(&["state", "list", "g", "r/"]).good(), "r/a\nr/b\n");
    assert_eq!(world.run(&["state", "list", "g"]).good(), "a\nb\n");
    assert_eq!(world.run(&["state", "list", "g", "none"]).good(), "");
    assert_eq!(json(&world.run(&["state", "list", "g", "r/", "--json"]).good())["keys"][1], "r/b");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let world = World::new(&["node-1"]);
    for arguments in [&["state", "get", "g", "large"][..], &["status", "--watch", "--json"], &["completions", "bash"]] {
        let mut child =
            command(world.folder.path(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 1]).unwrap();
        drop(out);
        let ended = ran(child.wait_with_output().unwrap());
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{arguments:?}");
    }
    // Gone before the first byte.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for arguments in [&["--help"][..], &["schema"], &["status"]] {
        let out = writer.try_clone().unwrap();
        let ended = ran(command(world.folder.path(), arguments).stdout(out).stderr(Stdio::piped()).output().unwrap());
        assert!(!ended.err.contains("panicked") && ended.code == 0, "{arguments:?}: {} {}", ended.code, ended.err);
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let help = run_in(folder.path(), &["--help"]).good();
    for text in ["Exit codes:", "7  no node answers", "--admin <ADDRESS>", "Examples:"] {
        assert!(help.contains(text), "{text:?} is not in\n{help}");
    }
    assert!(run_in(folder.path(), &["--version"]).good().starts_with("bellwether "));
    assert!(run_in(folder.path(), &["schema"]).good().contains("$schema"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run_in(folder.path(), &["completions", shell]).good().contains("bellwether"));
    }
}

#[test]
fn watching_goes_on_until_the_node_is_gone() {
    let world = World::new(&["node-1"]);
    let mut child = command(world.folder.path(), &["status", "--watch", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for _ in 0..2 {
        assert_eq!(json(&lines.next().unwrap().unwrap())["nodes"][0]["node"], "node-1");
    }
    let World { folder, _server, _runtime, .. } = world;
    _runtime.block_on(_server.shutdown(Duration::from_secs(30)));
    assert!(lines.all(|line| line.is_ok()));
    ran(child.wait_with_output().unwrap()).bad(7, "no node answers");
    drop(folder);
}
