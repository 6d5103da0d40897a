//! A node and its group's document, against a server that answers at once: what it runs, what it writes, and what it refuses.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use std::time::Duration;

use bellwether_core::command::{Answer, Command, SwapOutcome};
use bellwether_core::event::{Ask, Asker, Event, SessionEvent, Source};
use bellwether_core::id::{GroupName, InstanceId, NodeId, RequestId};
use bellwether_core::release::{
    Artifact, Document, Outcome, Phase, Policy, Refusal, ReleaseError, ReleaseOp, ReleaseReply, Report, Rollout,
    Staging, Wanted,
};
use bellwether_core::request::{Op, Request};
use bellwether_core::status::Role;
use scripted::{SESSION, World};

const RELEASE: &str = "/bw/g/release";

fn group() -> GroupName {
    GroupName::new("g").unwrap()
}

fn wanted(digest: &str) -> Wanted {
    let component = Artifact { reference: "file:/x".into(), digest: digest.into() };
    Wanted { component, worker: None, config: None }
}

fn policy() -> Policy {
    Policy { patience: Duration::from_secs(20), ..Policy::default() }
}

fn deploy(digest: &str) -> ReleaseOp {
    ReleaseOp::Deploy { wanted: Box::new(wanted(digest)), policy: policy(), by: "ada".into(), at: 1 }
}

fn answers(world: &World) -> Vec<Answer> {
    let answer = |command: &Command| match command {
        Command::Answer { answer, .. } => Some(answer.clone()),
        _ => None,
    };
    world.log.iter().filter_map(answer).collect()
}

fn ask(world: &mut World, op: ReleaseOp) -> Result<Box<ReleaseReply>, ReleaseError> {
    world.log.clear();
    let asker = Asker::Operator;
    world.event(Event::Ask { group: group(), request: RequestId(1), asker, ask: Ask::Release(op) });
    match answers(world).pop() {
        Some(Answer::Release(result)) => result,
        other => panic!("{other:?}"),
    }
}

fn document(world: &World) -> Document {
    Document::parse(&world.data(RELEASE).unwrap()).unwrap()
}

fn rollout(world: &World) -> Rollout {
    document(world).rollout.unwrap()
}

fn report(world: &World, node: &str) -> Option<Report> {
    Report::parse(&world.data(&format!("/bw/g/running/{node}"))?)
}

fn put_report(world: &mut World, node: &str, running: Option<u64>, state: Staging) {
    let report = Report { running, release: "r".into(), digest: "d".into(), state, address: "h:1".into() };
    world.put(&format!("/bw/g/running/{node}"), serde_json::to_vec(&report).unwrap());
}

fn prepared(world: &World) -> Vec<Option<u64>> {
    let number = |command: &Command| match command {
        Command::Prepare { source: Source::Wanted(release), .. } => Some(Some(release.number)),
        Command::Prepare { .. } => Some(None),
        _ => None,
    };
    world.log.iter().filter_map(number).collect()
}

#[test]
fn no_guest_is_prepared_before_it_is_known_what_the_group_runs() {
    let mut world = World::stopped(&["g"]);
    world.broken = |request| matches!(request, Request::Get { path, .. } if path == RELEASE);
    world.event(Event::Tick);
    world.pass(Duration::from_secs(3));
    assert_eq!(prepared(&world), []);
    world.broken = |_| false;
    world.pass(Duration::from_secs(10));
    assert_eq!(prepared(&world), [None], "nothing was ever deployed: the manifest's");
    assert_eq!(world.role("g").0, Role::Leader);
    assert!(report(&world, "a").is_none(), "and nothing is reported");
}

#[test]
fn a_node_that_starts_runs_what_is_deployed() {
    let mut world = World::stopped(&["g"]);
    let deployed = Document::default().deploy(wanted("one"), policy(), "ada".into(), 1).unwrap();
    for path in ["/bw", "/bw/g", "/bw/g/running"] {
        world.put(path, Vec::new());
    }
    world.put(RELEASE, deployed.end(&Default::default()).encode());
    world.pass(Duration::from_secs(3));
    assert_eq!(prepared(&world), [Some(1)]);
    assert_eq!(world.status("g").deployed, Some(1));
    assert!(report(&world, "a").unwrap().settled(Some(1)));
}

#[test]
fn a_report_is_made_again_when_the_document_is_another_one_however_often_that_was_written() {
    let mut world = World::stopped(&["g"]);
    let deployed = Document::default().deploy(wanted("one"), policy(), "ada".into(), 1).unwrap();
    let document = deployed.end(&Default::default()).encode();
    for path in ["/bw", "/bw/g", "/bw/g/running"] {
        world.put(path, Vec::new());
    }
    world.put(RELEASE, document.clone());
    world.pass(Duration::from_secs(3));
    assert!(report(&world, "a").is_some());
    for path in [RELEASE, "/bw/g/running/a"] {
        world.delete(path);
    }
    world.put(RELEASE, Vec::new());
    world.put(RELEASE, document);
    world.pass(Duration::from_secs(3));
    assert!(report(&world, "a").unwrap().settled(Some(1)));
}

#[test]
fn a_rollout_of_one_node_goes_through_its_probation_and_ends() {
    let mut world = World::leading(&["g"]);
    assert!(ask(&mut world, deploy("one")).is_ok());
    world.pass(Duration::from_secs(3));
    assert_eq!(report(&world, "a").unwrap().state, Staging::Proving);
    assert_eq!(rollout(&world).phase, Phase::Running);
    world.pass(Duration::from_secs(12));
    let document = document(&world);
    assert_eq!((document.rollout, document.current.map(|current| current.number)), (None, Some(1)));
    assert_eq!(document.history.last().unwrap().outcome, Outcome::Done);
    assert_eq!(ask(&mut world, deploy("one")), Err(ReleaseError::Refused(Refusal::Unchanged { number: 1 })));
}

#[test]
fn workers_come_first_and_every_step_of_the_leader_is_fenced() {
    let mut world = World::leading(&["g"]);
    world.add_member("g", "b");
    world.session(SessionEvent::Disconnected);
    world.session(SessionEvent::Reconnected { session: SESSION });
    put_report(&mut world, "b", None, Staging::Settled);
    ask(&mut world, deploy("one")).unwrap();
    world.pass(Duration::from_secs(3));
    let b = NodeId::new("b").unwrap();
    assert_eq!(rollout(&world).admitted.into_iter().collect::<Vec<_>>(), [b]);
    assert_eq!(prepared(&world), [], "the leader itself waits");
    put_report(&mut world, "b", Some(1), Staging::Settled);
    world.pass(Duration::from_secs(3));
    assert_eq!(prepared(&world), [Some(1)]);
    let steps: Vec<&Vec<Op>> = (world.log.iter())
        .filter_map(|command| match command {
            Command::Submit { request: Request::Multi(operations), .. } => Some(operations),
            _ => None,
        })
        .filter(|operations| operations.iter().any(|op| matches!(op, Op::Set { path, .. } if path == RELEASE)))
        .collect();
    assert_eq!(steps.len(), 2);
    for step in steps {
        let [
            Op::Check { path: own, .. },
            Op::Check { path: epoch, version: Some(_) },
            Op::Set { version: Some(_), .. },
        ] = step.as_slice()
        else {
            panic!("{step:?}");
        };
        assert!(own.starts_with("/bw/g/election/a-") && epoch == "/bw/g/epoch", "{step:?}");
    }
    assert_eq!(world.role("g").0, Role::Leader);
}

#[test]
fn a_node_that_does_not_settle_in_time_fails_the_rollout_and_is_not_waited_for_on_the_way_back() {
    let mut world = World::leading(&["g"]);
    world.add_member("g", "b");
    world.session(SessionEvent::Disconnected);
    world.session(SessionEvent::Reconnected { session: SESSION });
    ask(&mut world, deploy("one")).unwrap();
    world.pass(Duration::from_secs(15));
    assert_eq!(rollout(&world).phase, Phase::Running);
    world.pass(Duration::from_secs(10));
    let rollout = rollout(&world);
    assert!(matches!(rollout.phase, Phase::Back { .. }), "{rollout:?}");
    assert!(rollout.failed.unwrap().1.contains("does not report"), "an operator is told what to look at");
    world.pass(Duration::from_secs(25));
    let outcome = document(&world).history.pop().unwrap().outcome;
    let Outcome::Failed { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("not back yet: b"), "it does not go back for ever: {reason}");
}

#[test]
fn a_step_is_concluded_from_the_document_as_it_is() {
    let mut world = World::leading(&["g"]);
    world.add_member("g", "b");
    world.session(SessionEvent::Disconnected);
    world.session(SessionEvent::Reconnected { session: SESSION });
    ask(&mut world, deploy("one")).unwrap();
    ask(&mut world, ReleaseOp::Pause).unwrap();
    assert_eq!(rollout(&world).admitted.len(), 1);
    put_report(&mut world, "b", Some(1), Staging::Settled);
    world.pass(Duration::from_secs(10));
    let held = rollout(&world);
    assert_eq!((held.phase, held.admitted.len()), (Phase::Paused, 1), "nobody is admitted while it is paused");
    ask(&mut world, ReleaseOp::Resume).unwrap();
    world.pass(Duration::from_secs(3));
    assert_eq!(rollout(&world).admitted.len(), 2);
    let by = "ada".to_owned();
    ask(&mut world, ReleaseOp::Abort { by: by.clone() }).unwrap();
    world.pass(Duration::from_secs(5));
    assert!(matches!(rollout(&world).phase, Phase::Back { .. }), "b is not back yet");
    put_report(&mut world, "b", None, Staging::Settled);
    world.pass(Duration::from_secs(5));
    assert_eq!(document(&world).history.pop().unwrap().outcome, Outcome::Aborted { by });
    assert!(report(&world, "a").unwrap().settled(None));
}

#[test]
fn a_node_that_cannot_load_what_comes_runs_what_the_others_run_and_says_so() {
    let mut world = World::stopped(&["g"]);
    world.unfit = |source| matches!(source, Source::Wanted(release) if release.number == 2);
    let document =
        Document::default().deploy(wanted("one"), policy(), "ada".into(), 1).unwrap().end(&Default::default());
    let document = document.deploy(wanted("two"), policy(), "ada".into(), 1).unwrap();
    let document = document.admit([NodeId::new("a").unwrap()].into(), Default::default());
    for path in ["/bw", "/bw/g", "/bw/g/running"] {
        world.put(path, Vec::new());
    }
    world.put(RELEASE, document.encode());
    world.pass(Duration::from_secs(1));
    assert_eq!(prepared(&world), [Some(2), Some(1)]);
    // It leads again, and finds that it has failed itself.
    world.pass(Duration::from_secs(5));
    let document = self::document(&world);
    assert_eq!((document.rollout.is_none(), document.current.map(|current| current.number)), (true, Some(1)));
    assert!(matches!(document.history.last().unwrap().outcome, Outcome::Failed { .. }));
    assert_eq!(prepared(&world), [Some(2), Some(1)], "what failed is not tried again");
}

#[test]
fn a_swap_that_fails_is_reported_and_not_tried_again() {
    let mut world = World::leading(&["g"]);
    let runs = world.role("g").1;
    world.unfit = |source| matches!(source, Source::Wanted(_));
    world.add_member("g", "b");
    world.session(SessionEvent::Disconnected);
    world.session(SessionEvent::Reconnected { session: SESSION });
    let mut halting = policy();
    halting.on_failure = bellwether_core::release::OnFailure::Halt;
    let begun = Document::default().deploy(wanted("one"), halting, "ada".into(), 1).unwrap();
    world.put(RELEASE, begun.admit([NodeId::new("a").unwrap()].into(), Default::default()).encode());
    world.pass(Duration::from_secs(30));
    assert_eq!(prepared(&world), [Some(1)]);
    let report = report(&world, "a").unwrap();
    assert_eq!(report.failed(1), Some("compile: unfit"));
    assert_eq!((report.running, world.role("g").1), (None, runs), "the old release goes on");
    assert!(matches!(rollout(&world).phase, Phase::Halted { .. }));
}

#[test]
fn a_document_that_is_not_understood_is_reported_and_the_node_serves_on() {
    let mut world = World::leading(&["g"]);
    ask(&mut world, deploy("one")).unwrap();
    world.pass(Duration::from_secs(20));
    assert_eq!(world.status("g").deployed, Some(1));
    for (bad, says) in [(&br#"{"format":99}"#[..], "format 99"), (b"garbage", "no document")] {
        world.log.clear();
        world.put(RELEASE, bad.to_vec());
        world.pass(Duration::from_secs(5));
        let trouble = world.status("g").last_error.unwrap();
        assert!(trouble.contains(says) && trouble.contains(RELEASE), "{trouble}");
        assert_eq!((world.status("g").deployed, prepared(&world)), (Some(1), vec![]));
        assert!(matches!(ask(&mut world, deploy("two")), Err(ReleaseError::Unreadable { .. })));
        assert_eq!(world.data(RELEASE).unwrap(), bad, "nobody writes over what others may need");
    }
    world.put(RELEASE, Vec::new());
    world.pass(Duration::from_secs(2));
    assert_eq!(document(&world).current.unwrap().number, 1, "what is lost is put back");
    assert_eq!(world.status("g").last_error, None);
}

#[test]
fn one_node_alone_is_given_no_other_release_once_the_group_has_one() {
    let mut world = World::leading(&["g"]);
    let swap = |world: &mut World| {
        world.log.clear();
        let ask = Ask::Swap(Source::Component("next.wasm".into()));
        world.event(Event::Ask { group: group(), request: RequestId(2), asker: Asker::Operator, ask });
        answers(world).pop()
    };
    assert!(matches!(swap(&mut world), Some(Answer::Swapped(SwapOutcome::Committed { .. }))));
    ask(&mut world, deploy("one")).unwrap();
    assert!(matches!(swap(&mut world), Some(Answer::Swapped(SwapOutcome::Refused(_)))));
    world.pass(Duration::from_secs(20));
    assert_eq!(document(&world).rollout, None);
    assert!(matches!(swap(&mut world), Some(Answer::Swapped(SwapOutcome::Refused(_)))));
}

#[test]
fn operators_alone_ask_and_are_told_who_is_there() {
    let mut world = World::leading(&["g"]);
    for asker in [Asker::Worker, Asker::Guest(InstanceId(1))] {
        world.log.clear();
        world.event(Event::Ask { group: group(), request: RequestId(1), asker, ask: Ask::Release(ReleaseOp::Get) });
        assert_eq!(answers(&world), [Answer::Release(Err(ReleaseError::NotAllowed))]);
    }
    world.add_member("g", "b");
    put_report(&mut world, "c", Some(4), Staging::Settled);
    let reply = ask(&mut world, ReleaseOp::Nodes).unwrap();
    let reports = |node: &str| reply.nodes.get(&NodeId::new(node).unwrap()).map(Option::is_some);
    assert_eq!((reports("a"), reports("b"), reports("c"), reports("d")), (Some(false), Some(false), Some(true), None));
    assert_eq!((reply.leader.as_ref().map(NodeId::as_str), reply.document.deployed()), (Some("a"), false));
    assert_eq!(ask(&mut world, ReleaseOp::Resume), Err(ReleaseError::Refused(Refusal::NoRollout)));
    world.session(SessionEvent::Disconnected);
    assert!(matches!(ask(&mut world, ReleaseOp::Get), Err(ReleaseError::Unavailable(_))));
}
