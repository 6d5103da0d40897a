//! What a change of leader costs, in requests, and that nothing is taken for granted to save one.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use std::time::Duration;

use bellwether_core::command::Command;
use bellwether_core::event::{Ask, Asker, Event};
use bellwether_core::id::{GroupName, RequestId};
use bellwether_core::request::{Op, Request};
use bellwether_core::status::Role;
use scripted::World;

/// A candidate's name.
fn named(id: &str, counter: usize) -> String {
    format!("{id}-{}-n_{counter:010}", "1".repeat(32))
}

/// A node behind these.
fn behind(others: &[&str]) -> World {
    let mut world = World::stopped(&["g"]);
    for (n, other) in others.iter().enumerate() {
        world.add_candidate("g", &named(other, n));
    }
    world.event(Event::Tick);
    assert_eq!(world.role("g").0, Role::Worker);
    world.log.clear();
    world
}

/// What it has asked for since, in order.
fn requests(world: &World) -> Vec<&Request> {
    let submitted = world.log.iter().filter_map(|command| match command {
        Command::Submit { request, .. } => Some(request),
        _ => None,
    });
    submitted.collect()
}

fn claims(request: &Request) -> bool {
    matches!(request, Request::Multi(ops) if ops.iter().any(|op| matches!(op, Op::Set { path, .. } if path == "/bw/g/epoch")))
}

fn lists(request: &Request) -> bool {
    matches!(request, Request::List { path, .. } if path == "/bw/g/election")
}

#[test]
fn whoever_had_few_before_it_claims_without_another_look_and_proves_that_they_are_gone() {
    for others in [&["b"][..], &["b", "c", "d"]] {
        let mut world = behind(others);
        // Only one of them is watched.
        let (last, rest) = others.split_last().unwrap();
        rest.iter().for_each(|other| world.remove_candidate("g", &format!("{other}-")));
        assert_eq!(world.log, [], "nobody is woken by the others");
        world.remove_candidate("g", &format!("{last}-"));
        let requests = requests(&world);
        assert!(claims(requests[0]), "{requests:#?}");
        let Request::Multi(ops) = requests[0] else { unreachable!() };
        for (n, other) in others.iter().enumerate() {
            let made = format!("/bw/g/election/{}", named(other, n));
            assert!(ops.iter().any(|op| matches!(op, Op::Create { path, .. } if *path == made)), "{ops:#?}");
        }
        assert!(!requests.iter().any(|request| lists(request)), "{requests:#?}");
        assert_eq!((world.role("g").0, world.candidates("g")), (Role::Leader, 1), "what the proof makes does not stay");
    }
}

#[test]
fn a_watch_that_fired_although_somebody_is_before_us_leads_to_no_epoch() {
    let comes_back: fn(&mut World) = |world| world.replace_candidate("g", &named("b", 0));
    let another_leads: fn(&mut World) = |world| world.remove_candidate("g", "c-");
    for (others, what) in [(&["b"][..], comes_back), (&["b", "c"], another_leads)] {
        let mut world = behind(others);
        let epoch = world.data("/bw/g/epoch");
        what(&mut world);
        let requests = requests(&world);
        assert!(claims(requests[0]) && requests.iter().any(|request| lists(request)), "{requests:#?}");
        assert_eq!(world.role("g").0, Role::Worker);
        assert_eq!(world.data("/bw/g/epoch"), epoch);
        // It watches again.
        world.remove_candidate("g", "b-");
        assert_eq!(world.role("g").0, Role::Leader);
    }
}

#[test]
fn whoever_is_further_behind_looks_before_it_claims() {
    let others = ["b", "c", "d", "e"];
    let mut world = behind(&others);
    others.iter().for_each(|other| world.remove_candidate("g", &format!("{other}-")));
    let requests = requests(&world);
    let first = requests.iter().position(|request| claims(request)).unwrap();
    assert!(requests[..first].iter().any(|request| lists(request)), "{requests:#?}");
    assert_eq!(world.role("g").0, Role::Leader);
}

fn resign() -> Event {
    let group = GroupName::new("g").unwrap();
    Event::Ask { group, request: RequestId(1), asker: Asker::Operator, ask: Ask::Resign }
}

/// A server reads a connection's requests one by one: what need not be asked now would hold up the deletion, and the successor's claim.
#[test]
fn a_leader_that_resigns_asks_for_nothing_else_until_its_successor_has_claimed() {
    let mut world = World::leading(&["g"]);
    world.add_candidate("g", &named("b", 9));
    world.add_member("g", "b");
    world.members_changed("g");
    world.log.clear();
    world.event(resign());
    let sent = world.log.iter().filter_map(|command| match command {
        Command::Submit { request: Request::Delete { .. }, .. } => Some("delete"),
        Command::Submit { .. } => Some("other"),
        Command::Forget { .. } => Some("forget"),
        _ => None,
    });
    // The guard's watch goes while the guest is being told, the one on the members afterwards.
    assert_eq!(sent.collect::<Vec<_>>(), ["forget", "delete", "forget"]);
    assert_eq!(world.candidates("g"), 1);
    world.pass(Duration::from_millis(100));
    assert_eq!(world.candidates("g"), 2, "it stands behind its successor again");
    assert_eq!(world.role("g").0, Role::Worker);
}

fn joins(request: &Request) -> bool {
    matches!(request, Request::Create { path, .. } if path.contains("/election/"))
}

fn registers(request: &Request) -> bool {
    matches!(request, Request::Create { path, .. } if path.contains("/service_registry/"))
}

fn looks_at_predecessor(request: &Request) -> bool {
    matches!(request, Request::Get { path, watch: true } if path.contains("/election/"))
}

/// The requests of an election.
fn asked(world: &World) -> Vec<&'static str> {
    let requests = requests(world).into_iter();
    requests
        .map(|request| match request {
            Request::Delete { .. } => "leave",
            Request::Get { path, watch: false } if path == "/bw/g/epoch" => "epoch",
            request if joins(request) => "join",
            request if lists(request) => "list",
            request if looks_at_predecessor(request) => "predecessor",
            request if registers(request) => "member",
            request if claims(request) => "claim",
            _ => "other",
        })
        .collect()
}

/// A leader that has resigned before another candidate, and comes back where such requests are answered late or not at all.
fn comes_back(slow: fn(&Request) -> bool, broken: fn(&Request) -> bool) -> World {
    let mut world = World::leading(&["g"]);
    world.add_candidate("g", &named("b", 9));
    (world.slow, world.broken) = (slow, broken);
    world.event(resign());
    world
}

#[test]
fn a_leader_that_has_resigned_joins_again_by_five_requests_in_two_rounds() {
    let whole = ["leave", "join", "list", "predecessor", "epoch", "member"];
    let world = comes_back(|request| joins(request) || lists(request), |_| false);
    assert_eq!(asked(&world), whole[..3], "the list does not wait for the znode");
    let world = comes_back(looks_at_predecessor, |_| false);
    assert_eq!(asked(&world), whole, "neither epoch nor member waits for the watch");
    let world = comes_back(|_| false, |_| false);
    assert_eq!(asked(&world), whole);
    assert_eq!(world.role("g").0, Role::Worker);
}

#[test]
fn whoever_could_not_join_is_not_placed_by_the_list_that_came_with_it() {
    let mut world = comes_back(|_| false, joins);
    assert_eq!((asked(&world), world.candidates("g")), (vec!["leave", "join", "list"], 1));
    world.broken = |_| false;
    world.pass(Duration::from_secs(10));
    assert_eq!((world.role("g").0, world.candidates("g")), (Role::Worker, 2));
    // Nor by one that is answered first.
    let mut world = comes_back(joins, |_| false);
    assert!(!asked(&world).contains(&"member"), "{:?}", asked(&world));
    world.let_go();
    world.pass(Duration::from_secs(10));
    assert_eq!((world.role("g").0, world.candidates("g")), (Role::Worker, 2));
}

#[test]
fn a_znode_whose_making_is_answered_after_a_denial_goes() {
    let mut world = World::leading(&["g"]);
    world.add_candidate("g", &named("b", 9));
    (world.slow, world.deny_in, world.denied) = (joins, "/bw/g/election", "election");
    world.event(resign());
    assert_eq!((asked(&world), world.candidates("g")), (vec!["leave", "join", "list"], 2));
    world.let_go();
    assert_eq!(world.candidates("g"), 1, "nobody could lead before its session ends: {:?}", asked(&world));
}

#[test]
fn whoever_becomes_the_lowest_while_its_member_is_made_claims_when_that_is_settled() {
    let mut world = comes_back(registers, |_| false);
    world.remove_candidate("g", "b-");
    assert!(!asked(&world).contains(&"claim"), "{:?}", asked(&world));
    world.let_go();
    assert!(asked(&world).contains(&"claim"), "{:?}", asked(&world));
    assert_eq!((world.role("g").0, world.members("g").len()), (Role::Leader, 0), "its member is gone");
}

#[test]
fn a_new_leader_reads_the_members_at_once_and_of_a_newcomer_no_more_than_its_own() {
    let mut world = behind(&["b"]);
    for n in 1000..1300 {
        world.add_member_as("g", &format!("w{n}"), &format!("m_{n:010}"));
    }
    world.remove_candidate("g", "b-");
    let reads = |world: &World| {
        let paths = requests(world).into_iter().filter_map(|request| match request {
            Request::GetAll { paths } => Some(paths.len()),
            _ => None,
        });
        paths.collect::<Vec<_>>()
    };
    assert_eq!(reads(&world), [256, 44]);
    assert_eq!(world.status("g").members.unwrap().len(), 300);
    world.log.clear();
    world.add_member("g", "w1300");
    world.members_changed("g");
    let asked = requests(&world);
    assert_eq!((asked.len(), reads(&world)), (1, vec![1]), "{asked:#?}");
    assert_eq!(world.status("g").members.unwrap().len(), 301);
}
