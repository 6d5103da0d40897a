//! A node on bad days, against a server that answers at once: what it must do when it is denied, paused, refused or stopped at
//! the wrong moment.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use std::sync::Arc;
use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, Returned};
use bellwether_core::command::{Answer, Command, SwapOutcome};
use bellwether_core::event::{Ask, Asker, Event, SessionEvent, Source};
use bellwether_core::id::{GroupName, InstanceId, RequestId};
use bellwether_core::request::Request;
use bellwether_core::state::{Expectation, StateOp, StateReply};
use bellwether_core::status::Role;
use scripted::{SESSION, World};

fn position(commands: &[Command], what: impl Fn(&Command) -> bool) -> Option<usize> {
    commands.iter().position(what)
}

fn is_revoke(command: &Command) -> bool {
    matches!(command, Command::Revoke { .. })
}

fn tells_demotion(command: &Command) -> bool {
    matches!(command, Command::Call { callback: Callback::Demoted(_), .. })
}

#[test]
fn a_snapshot_that_is_refused_leaves_the_old_instance_as_it_was() {
    let mut world = World::leading(&["g"]);
    let before = world.role("g").1;
    world.answer_call = |callback| match callback {
        Callback::Snapshot => Err(CallFailure::Refused("the snapshot is too large".into())),
        _ => Ok(Returned::Done),
    };
    let ask = Ask::Swap(Source::Component("next.wasm".into()));
    world.event(Event::Ask { group: group("g"), request: RequestId(1), asker: Asker::Operator, ask });
    let answered = |command: &Command| {
        matches!(command, Command::Answer { answer: Answer::Swapped(SwapOutcome::RolledBack(_)), .. })
    };
    assert!(position(&world.log, answered).is_some(), "{:?}", world.log);
    let stopped: Vec<_> = world.log.iter().filter(|command| matches!(command, Command::Stop { .. })).collect();
    assert_eq!(stopped.len(), 1, "the new instance and no other: {stopped:?}");
    assert_eq!(world.role("g").1, before, "the old release runs on");
    assert_eq!(world.restarts("g"), 0);
}

#[test]
fn a_leader_whose_groups_state_was_deleted_makes_it_again() {
    for expect in [Expectation::Anything, Expectation::Absent] {
        let mut world = World::leading(&["g"]);
        world.delete_state("g");
        let op = StateOp::Put { key: "k".into(), value: Arc::from(*b"v"), expect };
        let (group, asker) = (group("g"), Asker::Guest(InstanceId(1)));
        world.event(Event::Ask { group, request: RequestId(1), asker, ask: Ask::State(op) });
        let answered = position(&world.log, |command| {
            matches!(command, Command::Answer { answer: Answer::State(Ok(StateReply::Version(0))), .. })
        });
        assert!(answered.is_some(), "{:?}", world.log);
        assert_eq!(world.data("/bw/g/state/k").as_deref(), Some(&b"v"[..]));
        assert_eq!(world.role("g").0, Role::Leader);
    }
}

#[test]
fn who_watches_an_absent_key_hears_of_it_though_the_state_was_deleted_meanwhile() {
    let mut world = World::leading(&["g"]);
    let ask = |op| Event::Ask {
        group: group("g"),
        request: RequestId(1),
        asker: Asker::Guest(InstanceId(1)),
        ask: Ask::State(op),
    };
    world.delete_state("g");
    world.event(ask(StateOp::Watch("k".into())));
    // Somebody else makes it again, and the key.
    world.put("/bw/g/state", Vec::new());
    world.put("/bw/g/state/k", b"v".to_vec());
    world.log.clear();
    world.pass(Duration::from_secs(3));
    let told = |command: &Command| matches!(command, Command::Call { callback: Callback::StateChanged { .. }, .. });
    assert!(position(&world.log, told).is_some(), "{:?}", world.log);
}

#[test]
fn another_node_with_a_copy_of_our_guid_is_another_candidate() {
    let mut world = World::stopped(&["g"]);
    world.add_candidate("g", &format!("b-{}-n_0000000000", "0".repeat(32)));
    world.event(Event::Tick);
    assert_eq!(world.role("g").0, Role::Worker, "{:?}", world.log);
    // A new connection surveys who is there and what of it is its own.
    world.session(SessionEvent::Disconnected);
    world.session(SessionEvent::Reconnected { session: SESSION });
    assert_eq!(world.role("g").0, Role::Worker, "{:?}", world.log);
    world.remove_candidate("g", "b-");
    assert_eq!(world.role("g").0, Role::Leader);
}

#[test]
fn members_are_published_before_a_guest_hears_of_them() {
    let mut world = World::leading(&["g"]);
    world.add_member("g", "b");
    // A new connection looks at everything again.
    world.session(SessionEvent::Disconnected);
    world.session(SessionEvent::Reconnected { session: SESSION });
    let published = position(
        &world.log,
        |command| matches!(command, Command::Publish { members, .. } if members.iter().any(|member| member.id.as_str() == "b")),
    );
    let told = position(
        &world.log,
        |command| matches!(command, Command::Call { callback: Callback::MembersChanged(change), .. } if !change.joined.is_empty()),
    );
    assert!(
        published.unwrap() < told.unwrap(),
        "a guest may send work to whom it has just been told of: {:?}",
        world.log
    );
}

#[test]
fn a_leader_that_is_denied_is_demoted_before_anything_else_and_makes_room() {
    for denied in ["/election/", "/service_registry"] {
        let mut world = World::leading(&["g", "h"]);
        world.denied = denied;
        world.deny_in = "/bw/g";
        world.session(SessionEvent::Disconnected);
        world.session(SessionEvent::Reconnected { session: SESSION });
        let revoked = position(&world.log, is_revoke).unwrap();
        let told = position(&world.log, tells_demotion).unwrap();
        assert!(revoked < told);
        assert_eq!(world.role("g").0, Role::Denied);
        assert_eq!(world.candidates("g"), 0, "its znode keeps nobody waiting ({denied})");
        assert!(!world.log.iter().any(|c| matches!(c, Command::Grant { .. })), "it does not lead again ({denied})");
        assert_eq!((world.role("h").0, world.candidates("h")), (Role::Leader, 1), "the other group is not concerned");
    }
}

#[test]
fn after_a_pause_the_lease_is_dealt_with_before_whatever_came_first() {
    let mut world = World::leading(&["g", "h"]);
    world.now += Duration::from_secs(12);
    world.session(SessionEvent::Disconnected);
    assert_eq!(world.log.iter().filter(|command| is_revoke(command)).count(), 2);
    assert!(is_revoke(&world.log[0]), "{:?}", world.log[0]);
    assert!(world.leaders().is_empty());
}

#[test]
fn a_session_that_ends_during_a_shutdown_is_not_waited_for() {
    let mut world = World::leading(&["g"]);
    world.event(Event::Shutdown);
    world.session(SessionEvent::Ended { reason: "expired".into(), permanent: false });
    world.now += Duration::from_secs(3);
    world.event(Event::Tick);
    assert!(world.node.deadline(world.at()).is_none_or(|at| at > world.at()), "it would ring without end");
    world.event(Event::Drained { group: group("g") });
    assert!(world.log.iter().any(|command| matches!(command, Command::Finished { error: None })));
}

#[test]
fn a_node_has_stopped_only_when_its_session_is_closed() {
    let mut world = World::leading(&["g"]);
    world.event(Event::Shutdown);
    world.event(Event::Drained { group: group("g") });
    let finished = |command: &Command| matches!(command, Command::Finished { .. });
    assert!(position(&world.log, |command| matches!(command, Command::CloseSession { .. })).is_some());
    world.event(Event::Tick);
    assert_eq!(position(&world.log, finished), None, "an unrelated event is no reason to go");
    world.session(SessionEvent::Ended { reason: "closed".into(), permanent: false });
    assert!(position(&world.log, finished).is_some());
}

#[test]
fn a_group_whose_election_stays_unclear_takes_the_session_from_a_quiet_leader() {
    let mut world = World::leading(&["g", "h"]);
    // The survey of g never ends well again, while h leads and has nothing to do.
    world.broken = |request| matches!(request, Request::List { path, .. } if path.ends_with("/g/election"));
    world.delete_candidates("g");
    for _ in 0..400 {
        world.now += Duration::from_millis(500);
        world.event(Event::Tick);
        if world.log.iter().any(|command| matches!(command, Command::CloseSession { .. })) {
            break;
        }
    }
    let closed = position(&world.log, |command| matches!(command, Command::CloseSession { .. }));
    let told = world.log.iter().rposition(tells_demotion);
    assert!(told < closed && told.is_some(), "h is told before its session is closed: {told:?} {closed:?}");
}

/// Waits as long as a node may.
fn pass(world: &mut World, seconds: u64) {
    for _ in 0..seconds * 4 {
        world.now += Duration::from_millis(250);
        world.event(Event::Tick);
    }
}

#[test]
fn at_the_end_of_the_counter_whoever_was_made_later_is_behind() {
    const OTHER: &str = "b-11111111111111111111111111111111-n_2147483647";
    // A server carries this out of turn now and then; after it, suffixes go back.
    const LATER: &str = "c-22222222222222222222222222222222-n_-2147483648";
    const LAST: &str = "d-33333333333333333333333333333333-n_2147483647";
    let mut world = World::leading(&["g"]);
    world.counted_out = true;
    world.add_candidate("g", OTHER);
    world.add_candidate("g", LATER);
    world.remove_candidate("g", "a-");
    pass(&mut world, 2);
    // Our suffix is the same as one's, and less than the other's.
    assert_eq!((world.role("g").0, world.candidates("g")), (Role::Worker, 3));
    world.add_candidate("g", LAST);
    world.remove_candidate("g", OTHER);
    pass(&mut world, 2);
    assert_eq!(world.role("g").0, Role::Worker, "there is another one before us");
    world.remove_candidate("g", LATER);
    pass(&mut world, 2);
    assert_eq!(world.role("g").0, Role::Leader, "the last one has come later");
    let said = |command: &Command| matches!(command, Command::Notice(notice) if notice.what == "counter-high");
    let said: Vec<_> = world.log.iter().filter(|command| said(command)).collect();
    let about = |what: &str| said.iter().filter(|notice| format!("{notice:?}").contains(what)).count();
    assert_eq!((about("/election has come to its end"), about("/service_registry has come to its end")), (1, 1));
}

#[test]
fn a_predecessor_that_came_back_under_its_old_name_is_behind() {
    const OTHER: &str = "b-11111111111111111111111111111111-n_2147483647";
    let mut world = World::leading(&["g"]);
    world.counted_out = true;
    world.add_candidate("g", OTHER);
    world.remove_candidate("g", "a-");
    pass(&mut world, 2);
    assert_eq!(world.role("g").0, Role::Worker);
    world.replace_candidate("g", OTHER);
    pass(&mut world, 2);
    assert_eq!(world.role("g").0, Role::Leader);
}

#[test]
fn at_the_end_of_the_counter_a_member_finds_a_name() {
    let mut world = World::leading(&["g"]);
    world.counted_out = true;
    world.add_member_as("g", "b", "m_2147483647");
    world.add_candidate("g", "b-11111111111111111111111111111111-n_2147483647");
    world.remove_candidate("g", "a-");
    pass(&mut world, 5);
    assert_eq!(world.role("g").0, Role::Worker);
    let members = world.members("g");
    assert_eq!(members.len(), 2, "{members:?}");
    assert!(members.iter().all(|name| name.ends_with("2147483647")), "{members:?}");
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}
