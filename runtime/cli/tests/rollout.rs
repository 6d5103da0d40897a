//! The verbs about rollouts, against a group whose story is a script.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bellwether_core::id::{GroupName, NodeId};
use bellwether_core::member::Member;
use bellwether_core::release::{Artifact, Document, OnFailure, Policy, Report, Staging, Wanted};
use bellwether_core::state::Entry;
use bellwether_node::admin::{
    AdminAddress, AdminServer, Answer, Control, ControlError, DeployRequest, NodeReport, NodeStatus, Planned,
    RollbackRequest, RolloutStatus, Steer, SteerRequest, SwapReport, SwapRequest,
};
use serde_json::Value;

/// A node of the group `g`, whose document changes each time it is looked at, and stays at the last.
#[derive(Default)]
struct Script {
    story: Mutex<Vec<RolloutStatus>>,
    asked: Mutex<Vec<DeployRequest>>,
}

fn unused<T>() -> Result<T, ControlError> {
    Err(ControlError::Unavailable("this is not asked here".to_owned()))
}

impl Control for Script {
    fn node(&self) -> NodeId {
        node("n1")
    }

    fn status(&self) -> Answer<'_, NodeStatus> {
        Box::pin(async { unused() })
    }

    fn members(&self, _: GroupName) -> Answer<'_, Vec<Arc<Member>>> {
        Box::pin(async { unused() })
    }

    fn swap(&self, _: GroupName, _: SwapRequest) -> Answer<'_, SwapReport> {
        Box::pin(async { unused() })
    }

    fn resign(&self, _: GroupName) -> Answer<'_, ()> {
        Box::pin(async { unused() })
    }

    fn rollout(&self, _: GroupName) -> Answer<'_, RolloutStatus> {
        let mut story = self.story.lock().unwrap();
        let now = if story.len() > 1 { story.remove(0) } else { story[0].clone() };
        Box::pin(async { Ok(now) })
    }

    fn deploy(&self, group: GroupName, request: DeployRequest) -> Answer<'_, Planned> {
        self.asked.lock().unwrap().push(request.clone());
        Box::pin(async move {
            match group.as_str() {
                "unusable" => Err(ControlError::Failed { step: "check".to_owned(), reason: "no lifecycle".to_owned() }),
                "garbage" => Err(ControlError::Failed { step: "release".to_owned(), reason: "no document".to_owned() }),
                "busy" => Err(ControlError::Refused("release 2 is on its way (running)".to_owned())),
                _ => {
                    let document = begun(request.policy.policy());
                    let to = document.rollout.unwrap().to;
                    let waves = vec![vec![node("n2")], vec![node("n1")]];
                    let policy = request.policy.policy();
                    Ok(Planned {
                        plan: request.plan,
                        current: document.current,
                        to,
                        policy,
                        waves,
                        leader: Some(node("n1")),
                    })
                }
            }
        })
    }

    fn rollback(&self, _: GroupName, request: RollbackRequest) -> Answer<'_, Planned> {
        let why = format!("there is no release {} in the group's history; there are 1, 2", request.to.unwrap_or(0));
        Box::pin(async { Err(ControlError::Refused(why)) })
    }

    fn steer(&self, group: GroupName, _: Steer, _: SteerRequest) -> Answer<'_, RolloutStatus> {
        self.rollout(group)
    }

    fn state_list(&self, _: GroupName, _: String) -> Answer<'_, Vec<String>> {
        Box::pin(async { unused() })
    }

    fn state_get(&self, _: GroupName, _: String) -> Answer<'_, Option<Entry>> {
        Box::pin(async { unused() })
    }

    fn stop(&self) {}
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn wanted(name: &str) -> Wanted {
    let component = Artifact { reference: format!("file:/{name}"), digest: name.repeat(16) };
    Wanted { component, worker: None, config: None }
}

/// Release 1 runs, and 2 is on its way.
fn begun(policy: Policy) -> Document {
    let one = Document::default().deploy(wanted("one"), Policy::default(), "ada".into(), 1).unwrap();
    one.end(&BTreeSet::new()).deploy(wanted("two"), policy, "bob".into(), 2).unwrap()
}

fn at(document: Document, reports: &[(&str, u64, Staging)]) -> RolloutStatus {
    let nodes = reports.iter().map(|(name, running, state)| NodeReport {
        node: node(name),
        target: document.target(&node(name)).map(|target| target.number),
        report: Some(Report {
            running: Some(*running),
            release: "r".to_owned(),
            digest: "d".to_owned(),
            state: state.clone(),
            address: "h:1".to_owned(),
        }),
    });
    RolloutStatus { nodes: nodes.collect(), document, leader: Some(node("n1")) }
}

struct World {
    script: Arc<Script>,
    folder: tempfile::TempDir,
    _server: AdminServer,
    _runtime: tokio::runtime::Runtime,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl World {
    fn new(story: Vec<RolloutStatus>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = Arc::new(Script { story: Mutex::new(story), asked: Mutex::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = AdminAddress::Unix(folder.path().join("admin.sock"));
        let server = runtime.block_on(AdminServer::bind(&address, Arc::clone(&script) as _)).unwrap();
        std::fs::write(folder.path().join("v2.wasm"), b"\0asm").unwrap();
        Self { script, folder, _server: server, _runtime: runtime }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            .args(["--admin", &format!("unix:{}", self.folder.path().join("admin.sock").display())])
            .args(arguments)
            .current_dir(self.folder.path())
            .env("USER", "ada")
            .env_remove("SUDO_USER")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn asked(&self) -> DeployRequest {
        self.script.asked.lock().unwrap().pop().unwrap()
    }
}

/// The canary, then the leader; `end` is how it ends.
fn story(end: impl Fn(Document) -> RolloutStatus) -> Vec<RolloutStatus> {
    let begun = begun(Policy::default());
    let canary = begun.clone().admit([node("n2")].into(), BTreeSet::new());
    let all = canary.clone().admit([node("n1")].into(), [node("n2")].into());
    vec![
        at(begun, &[("n1", 1, Staging::Settled), ("n2", 1, Staging::Settled)]),
        at(canary.clone(), &[("n1", 1, Staging::Settled), ("n2", 1, Staging::Staging)]),
        at(canary, &[("n1", 1, Staging::Settled), ("n2", 2, Staging::Proving)]),
        at(all.clone(), &[("n1", 1, Staging::Settled), ("n2", 2, Staging::Settled)]),
        end(all),
    ]
}

fn done(document: Document) -> RolloutStatus {
    at(document.end(&BTreeSet::new()), &[("n1", 2, Staging::Settled), ("n2", 2, Staging::Settled)])
}

#[test]
fn what_the_command_line_says_reaches_the_node() {
    let world = World::new(story(done));
    std::fs::write(world.folder.path().join("config.toml"), "level = 1\nname = \"n\"\n").unwrap();
    let ran = world.run(&[
        "deploy",
        "g",
        "v2.wasm",
        "--worker",
        "oci://registry/tasks:1",
        "--config-file",
        "config.toml",
        "--config",
        "level=2",
        "--canaries",
        "2",
        "--max-unavailable",
        "3",
        "--settle",
        "1m 30s",
        "--patience",
        "10m",
        "--on-failure",
        "halt",
        "--plan",
    ]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("would be rolled out") && ran.out.contains("nothing was written"), "{}", ran.out);
    let asked = world.asked();
    assert_eq!(asked.component, Some(format!("file:{}", world.folder.path().join("v2.wasm").display())));
    assert_eq!(asked.worker.as_deref(), Some("oci://registry/tasks:1"));
    let config = BTreeMap::from([("level".to_owned(), "2".to_owned()), ("name".to_owned(), "n".to_owned())]);
    assert_eq!((asked.config, asked.plan, asked.by.as_deref()), (Some(config), true, Some("ada")));
    assert_eq!((asked.policy.canaries, asked.policy.max_unavailable), (Some(2), Some(3)));
    assert_eq!((asked.policy.settle_ms, asked.policy.patience_ms), (Some(90_000), Some(600_000)));
    assert_eq!(asked.policy.on_failure, Some(OnFailure::Halt));

    assert_eq!(world.run(&["deploy", "g", "--config", "level=2"]).code, 0);
    let asked = world.asked();
    assert_eq!((asked.component, asked.plan, asked.policy.canaries), (None, false, None));
}

#[test]
fn command_lines_that_make_no_sense_are_refused_before_anybody_is_asked() {
    let world = World::new(story(done));
    for (arguments, code) in [
        (&["deploy", "g", "not-there.wasm"][..], 4),
        (&["deploy", "g", "--config", "level"], 2),
        (&["deploy", "g", "--config", "a=1", "--config", "a=2"], 2),
        (&["deploy", "g", "--config-file", "not-there.toml"], 2),
        (&["deploy", "g", "--settle", "soon"], 2),
        (&["deploy", "g", "--max-unavailable", "0"], 2),
        (&["deploy", "g", "--on-failure", "panic"], 2),
        (&["deploy", "g", "--plan", "--wait"], 2),
        (&["deploy", "g", "--manifest-config", "--config", "a=1"], 2),
        (&["rollout", "g"], 2),
    ] {
        let ran = world.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
        assert!(ran.err.starts_with("error: "), "{arguments:?}: {}", ran.err);
    }
    assert!(world.script.asked.lock().unwrap().is_empty());
}

#[test]
fn a_rollout_is_followed_to_its_end() {
    let ran = World::new(story(done)).run(&["deploy", "g", "v2.wasm", "--wait"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    let lines: Vec<&str> = ran.out.lines().skip_while(|line| !line.starts_with("release ")).collect();
    let expected = [
        "release 2 is running",
        "n2 prepares it",
        "n2 is on probation",
        "n1 prepares it",
        "n2 runs release 2",
        "n1 runs release 2",
        "release 2 runs on every node",
    ];
    assert_eq!(lines, expected, "{}", ran.out);

    let ran = World::new(story(done)).run(&["deploy", "g", "v2.wasm", "--wait", "--json"]);
    let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["to"]["number"], 2, "first what has begun");
    assert_eq!(lines[1]["event"], "phase");
    assert_eq!((&lines[2]["node"], &lines[2]["state"]), (&"n2".into(), &"staging".into()));
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["outcome"]), (&"ended".into(), &"done".into()), "{}", ran.out);
}

#[test]
fn each_way_to_end_has_a_code_of_its_own() {
    let failed = |document: Document| {
        let back = document.fail(node("n2"), "on-tick trapped".into()).end(&BTreeSet::new());
        at(back, &[("n1", 1, Staging::Settled), ("n2", 1, Staging::Settled)])
    };
    let ran = World::new(story(failed)).run(&["deploy", "g", "v2.wasm", "--wait"]);
    assert_eq!(ran.code, 8, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("n2: on-tick trapped"), "{}", ran.err);

    let aborted = |document: Document| at(document.abort("eve".into()).unwrap().end(&BTreeSet::new()), &[]);
    let ran = World::new(story(aborted)).run(&["deploy", "g", "v2.wasm", "--wait"]);
    assert_eq!(ran.code, 10, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("aborted by eve"), "{}", ran.err);
    let ran = World::new(story(aborted)).run(&["rollout", "abort", "g", "--wait"]);
    assert_eq!(ran.code, 0, "it is what was wished for: {}", ran.err);

    let halted = |mut document: Document| {
        document.rollout.as_mut().unwrap().policy.on_failure = OnFailure::Halt;
        at(document.fail(node("n2"), "on-tick trapped".into()), &[])
    };
    let ran = World::new(story(halted)).run(&["rollout", "status", "g", "--wait"]);
    assert_eq!(ran.code, 8, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("is halted") && ran.err.contains("rollout abort"), "{}", ran.err);

    let world = World::new(story(done));
    let refused = world.run(&["deploy", "busy", "v2.wasm"]);
    assert_eq!(refused.code, 9, "{}", refused.err);
    assert!(refused.err.contains("release 2 is on its way"), "{}", refused.err);
    assert_eq!(world.run(&["rollback", "g", "--to", "9"]).code, 9);
    let unusable = world.run(&["deploy", "unusable", "v2.wasm"]);
    assert_eq!(unusable.code, 4, "{}", unusable.err);
    assert!(unusable.err.contains("nothing was written"), "{}", unusable.err);
    assert_eq!(world.run(&["deploy", "garbage", "v2.wasm"]).code, 1, "that is not the component's fault");
}
