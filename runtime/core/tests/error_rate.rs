//! A release on probation that fails too often, though no single failure of it is one too many.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use std::time::Duration;

use bellwether_core::callback::{CallFailure, Callback, Step};
use bellwether_core::command::{Answer, Command, SwapOutcome};
use bellwether_core::config::{Probation, Rate};
use bellwether_core::event::{Ask, Asker, Event, SessionEvent, Source};
use bellwether_core::id::{GroupName, ReleaseId, RequestId};
use bellwether_core::status::Role;
use bellwether_core::work::Outcomes;
use scripted::{SESSION, World};

fn group() -> GroupName {
    GroupName::new("g").unwrap()
}

/// Swaps to the release of this name; gives the outcome.
fn swap(world: &mut World, name: &str) -> SwapOutcome {
    let from = world.log.len();
    let ask = Ask::Swap(Source::Component(name.into()));
    world.event(Event::Ask { group: group(), request: RequestId(1), asker: Asker::Operator, ask });
    let mut answers = world.log[from..].iter().filter_map(|command| match command {
        Command::Answer { answer: Answer::Swapped(outcome), .. } => Some(outcome.clone()),
        _ => None,
    });
    answers.next_back().unwrap()
}

fn tasks(world: &mut World, release: &str, ended: u64, failed: u64) {
    let outcomes = Outcomes { ended, failed };
    world.event(Event::TasksEnded { group: group(), release: ReleaseId(release.into()), outcomes });
}

fn runs(world: &World) -> String {
    world.role("g").1.unwrap().to_string()
}

#[test]
fn a_release_whose_tasks_fail_is_taken_back_and_remembered() {
    let mut world = World::leading(&["g"]);
    let (before, epoch) = (runs(&world), world.status("g").epoch);
    assert!(matches!(swap(&mut world, "bad"), SwapOutcome::Committed { .. }));
    tasks(&mut world, "bad", 19, 19);
    assert_eq!(runs(&world), "bad", "too few to tell");
    tasks(&mut world, "bad", 20, 10);
    assert_eq!(runs(&world), "bad", "as many as may");
    tasks(&mut world, &before, 1000, 1000);
    assert_eq!(runs(&world), "bad", "another release's tasks");
    tasks(&mut world, "bad", 24, 15);
    assert_eq!(runs(&world), before);
    assert_eq!((world.role("g").0, world.status("g").epoch), (Role::Leader, epoch), "leadership stays");
    assert_eq!(world.restarts("g"), 0);

    let status = world.status("g");
    let back = status.swaps.last().unwrap();
    let why = "15 of its 24 tasks failed, where probation allows 50 % (`error_rate`)";
    assert!(back.rollback && matches!(back.outcome, SwapOutcome::Committed { .. }), "{back:?}");
    assert_eq!((back.why.as_deref(), status.last_error.as_deref()), (Some(why), Some(why)));

    // What comes late changes nothing, and the release is not tried again.
    tasks(&mut world, "bad", 1000, 1000);
    assert_eq!(runs(&world), before);
    let SwapOutcome::RolledBack(failure) = swap(&mut world, "bad") else { panic!("it was tried again") };
    assert_eq!(failure.step, Step::Probation);
    assert!(failure.reason.contains(why), "{failure}");
    assert!(matches!(swap(&mut world, "better"), SwapOutcome::Committed { .. }), "another one is");
}

#[test]
fn a_release_that_has_proved_itself_may_fail() {
    // Shorter than the lease, which nobody renews here.
    let probation = Probation { lasts: Duration::from_secs(1), ..Probation::default() };
    let mut world = World::with_probation(&["g"], probation);
    let first = runs(&world);
    tasks(&mut world, &first, 1000, 1000);
    assert!(world.status("g").swaps.is_empty(), "the first release has nothing to go back to");
    swap(&mut world, "good");
    world.now += probation.lasts;
    tasks(&mut world, "good", 1000, 1000);
    assert_eq!(runs(&world), "good");
}

#[test]
fn a_limit_of_all_is_none() {
    let probation = Probation { error_rate: Rate::ALL, at_least: 1, ..Probation::default() };
    let mut world = World::with_probation(&["g"], probation);
    swap(&mut world, "new");
    tasks(&mut world, "new", 1000, 1000);
    assert_eq!(runs(&world), "new");
}

#[test]
fn a_release_whose_callbacks_return_errors_is_taken_back() {
    let probation =
        Probation { failures: 1000, error_rate: Rate::new(0.5).unwrap(), at_least: 6, lasts: Duration::from_secs(60) };
    let mut world = World::with_probation(&["g"], probation);
    let before = runs(&world);
    assert!(matches!(swap(&mut world, "bad"), SwapOutcome::Committed { .. }));
    // An instance's first list of members is taken, each change after it is refused.
    world.answer_call = |callback| match callback {
        Callback::MembersChanged(change) if change.version > 1 => Err(CallFailure::Refused("no".into())),
        callback => scripted::well(callback),
    };
    let mut changes = 0;
    while runs(&world) == "bad" && changes < 20 {
        changes += 1;
        world.add_member("g", &format!("m{changes}"));
        world.session(SessionEvent::Disconnected);
        world.session(SessionEvent::Reconnected { session: SESSION });
    }
    assert_eq!((runs(&world), changes), (before, 6), "{:?}", world.status("g"));
    let why = world.status("g").swaps.last().unwrap().why.clone().unwrap();
    assert!(why.contains("of its 6 callbacks failed"), "{why}");
}

#[test]
fn a_release_that_takes_over_from_an_instance_that_was_lost_is_on_probation_too() {
    let mut world = World::leading(&["g"]);
    let before = runs(&world);
    world.answer_call = |callback| match callback {
        Callback::MembersChanged(change) if change.version > 1 => Err(CallFailure::Trapped("unreachable".into())),
        callback => scripted::well(callback),
    };
    for member in ["m1", "m2"] {
        world.add_member("g", member);
        world.session(SessionEvent::Disconnected);
        world.session(SessionEvent::Reconnected { session: SESSION });
    }
    assert_eq!(world.role("g").1, None, "the next instance follows after a pause");
    let outcome = swap(&mut world, "bad");
    assert!(
        matches!(&outcome, SwapOutcome::Committed { from: Some(from), .. } if from.to_string() == before),
        "{outcome:?}"
    );
    assert!(world.status("g").probation);
    tasks(&mut world, "bad", 24, 15);
    assert_eq!(runs(&world), before);
}
