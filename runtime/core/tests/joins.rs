//! How the leader hears of its members: a lasting watch names who has joined or left, and only they are read; a list is asked for where that
//! watch may have missed something, or cannot be had.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use std::time::Duration;

use bellwether_core::callback::Callback;
use bellwether_core::command::Command;
use bellwether_core::event::{Event, SessionEvent};
use bellwether_core::id::SessionId;
use bellwether_core::request::Request;
use scripted::{SESSION, World};

const MEMBERS: &str = "/bw/g/service_registry";

/// A leader that knows these members.
fn knowing(members: &[&str]) -> World {
    acquaint(World::leading(&["g"]), members)
}

/// The same, at a server that has no lasting watches.
fn knowing_at_old_server(members: &[&str]) -> World {
    let mut world = World::stopped(&["g"]);
    world.old = true;
    world.event(Event::Tick);
    acquaint(world, members)
}

fn acquaint(mut world: World, members: &[&str]) -> World {
    members.iter().for_each(|id| drop(world.add_member("g", id)));
    world.members_changed("g");
    assert_eq!(known(&world), members);
    world.log.clear();
    world
}

fn lists(request: &Request) -> bool {
    matches!(request, Request::List { path, .. } if path == MEMBERS)
}

fn reads(request: &Request) -> bool {
    matches!(request, Request::GetAll { .. })
}

fn known(world: &World) -> Vec<String> {
    world.status("g").members.unwrap().iter().map(|member| member.id.to_string()).collect()
}

/// What the guest was told since: in each call who joined, who changed and who left.
fn told(world: &World) -> Vec<String> {
    let calls = world.log.iter().filter_map(|command| match command {
        Command::Call { callback: Callback::MembersChanged(change), .. } => {
            let [joined, changed] = [("+", &change.joined), ("~", &change.changed)].map(|(sign, members)| {
                members.iter().map(|member| format!("{sign}{} ", member.id)).collect::<String>()
            });
            let left = change.left.iter().map(|id| format!("-{id} ")).collect::<String>();
            Some(format!("{joined}{changed}{left}").trim_end().to_owned())
        }
        _ => None,
    });
    calls.collect()
}

/// What was asked of the registry since.
fn asked(world: &World) -> Vec<String> {
    let requests = world.log.iter().filter_map(|command| match command {
        Command::Submit { request: Request::GetAll { paths }, .. } => Some(format!("get {}", paths.join(" "))),
        Command::Submit { request: Request::WatchChildren { path }, .. } => Some(format!("watch {path}")),
        Command::Submit { request: Request::List { path, watch }, .. } => {
            Some(format!("list {path}{}", if *watch { ", watched" } else { "" }))
        }
        Command::Submit { request: Request::Delete { path, .. }, .. } => Some(format!("delete {path}")),
        _ => None,
    });
    requests.filter(|request| request.contains(MEMBERS)).map(|request| request.replace(MEMBERS, "~")).collect()
}

#[test]
fn who_joins_and_who_leaves_is_read_and_told_and_nobody_else() {
    let mut world = knowing(&["b", "d"]);
    for (id, name) in [("c", "m_0000000002"), ("e", "m_0000000003")] {
        world.log.clear();
        world.add_member("g", id);
        world.members_changed("g");
        assert_eq!(asked(&world), [format!("get ~/{name}")]);
        assert_eq!(told(&world), [format!("+{id}")]);
    }
    world.log.clear();
    world.remove_member("g", "m_0000000002");
    world.members_changed("g");
    assert_eq!((asked(&world), told(&world)), (vec!["get ~/m_0000000002".to_owned()], vec!["-c".to_owned()]));
    assert_eq!(known(&world), ["b", "d", "e"]);
}

#[test]
fn what_happens_while_members_are_read_is_read_next_and_all_of_it_at_once() {
    let mut world = knowing(&["b", "c"]);
    world.slow = reads;
    world.add_member("g", "d");
    world.members_changed("g");
    world.remove_member("g", "m_0000000000");
    world.add_member("g", "e");
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0]);
    world.let_go();
    assert_eq!(asked(&world), ["get ~/m_0000000002", "get ~/m_0000000000 ~/m_0000000003"]);
    assert_eq!(told(&world), ["+d", "+e -b"]);
}

#[test]
fn five_hundred_who_join_at_once_are_few_calls_and_few_requests() {
    let mut world = knowing(&["b"]);
    (0..500).for_each(|n| drop(world.add_member("g", &format!("w{n}"))));
    world.members_changed("g");
    assert_eq!((told(&world).len(), asked(&world).len()), (2, 3), "{:?}", asked(&world));
    assert_eq!(known(&world).len(), 501);
}

#[test]
fn who_comes_and_goes_before_anybody_looks_is_not_told_of() {
    let mut world = knowing(&["b"]);
    let name = world.add_member("g", "c");
    world.remove_member("g", &name);
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0]);
}

#[test]
fn what_is_told_before_an_older_answer_is_looked_at_again() {
    let mut world = knowing(&["b"]);
    world.slow = reads;
    let name = world.add_member("g", "c");
    world.members_changed("g");
    world.remove_member("g", &name);
    world.members_changed("g");
    // The answer is of before it left, and comes after that was told.
    world.let_go();
    assert_eq!(told(&world), ["+c", "-c"]);
    // A list as well.
    world.session(SessionEvent::Disconnected);
    world.slow = lists;
    world.session(SessionEvent::Reconnected { session: SESSION });
    world.remove_member("g", "m_0000000000");
    world.add_member("g", "d");
    world.members_changed("g");
    world.let_go();
    assert_eq!(known(&world), ["d"]);
}

#[test]
fn who_leaves_while_it_is_read_is_told_of_as_it_was_found() {
    let mut world = knowing(&["b"]);
    world.before = |world, request| {
        if reads(request) {
            world.before = |_, _| {};
            world.remove_member("g", "m_0000000001");
        }
    };
    world.add_member("g", "c");
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0], "it was read after it had left");
}

#[test]
fn a_member_that_stands_under_the_same_name_again_is_another_one() {
    // At the end of the server's counter, names come again.
    let mut world = knowing(&["b"]);
    world.remove_member("g", "m_0000000000");
    world.add_member_as("g", "z", "m_0000000000");
    world.members_changed("g");
    assert_eq!(told(&world), ["+z -b"]);
}

#[test]
fn what_happens_between_the_watch_and_the_list_is_in_the_list_and_is_read_once() {
    let mut world = World::stopped(&["g"]);
    world.before = |world, request| {
        if lists(request) {
            world.before = |_, _| {};
            world.add_member("g", "c");
        }
    };
    world.event(Event::Tick);
    assert_eq!(asked(&world), ["watch ~", "list ~", "get ~/m_0000000000"]);
    assert_eq!(told(&world), ["+c"]);
}

#[test]
fn a_registry_that_was_made_anew_is_another_one_with_another_watch() {
    let mut world = knowing(&["b", "c"]);
    world.make_registry_anew("g");
    for id in ["x", "y", "z"] {
        world.add_member("g", id);
    }
    world.members_changed("g");
    assert!(
        asked(&world).starts_with(&["get ~/m_0000000000".into(), "watch ~".into(), "list ~".into()]),
        "{:?}",
        asked(&world)
    );
    assert_eq!(known(&world), ["x", "y", "z"]);
    world.log.clear();
    world.add_member("g", "w");
    world.members_changed("g");
    assert_eq!(told(&world), ["+w"]);
}

#[test]
fn what_is_no_member_is_not_told_and_does_not_stand_in_the_way() {
    let mut world = knowing(&["b"]);
    world.put_member("g", "m_0000000001", b"{".to_vec());
    world.put_member("g", "other", Vec::new());
    world.members_changed("g");
    assert_eq!((asked(&world), told(&world)), (vec!["get ~/m_0000000001".to_owned()], Vec::new()));
    world.add_member("g", "c");
    world.members_changed("g");
    assert_eq!(told(&world), ["+c"]);
    assert_eq!(known(&world), ["b", "c"]);
}

#[test]
fn who_stands_twice_is_told_of_as_changed_and_the_latest_counts() {
    let mut world = knowing(&["b", "c"]);
    // With another session; of one session, the former one would be a ghost.
    world.put_member_of("g", "m_0000000002", br#"{"id":"b","address":"h:2"}"#.to_vec(), SessionId(9));
    world.members_changed("g");
    assert_eq!(told(&world), ["~b"]);
    // The former one goes: nobody need be told.
    world.remove_member("g", "m_0000000000");
    world.members_changed("g");
    assert_eq!(told(&world), ["~b"]);
    world.remove_member("g", "m_0000000002");
    world.members_changed("g");
    assert_eq!(told(&world), ["~b", "-b"]);
}

#[test]
fn a_ghost_of_our_own_is_taken_away_and_not_told() {
    let mut world = knowing(&["b"]);
    let data = br#"{"id":"a","address":"h:1"}"#.to_vec();
    world.put_member_of("g", "m_0000000001", data, SESSION);
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0]);
    assert_eq!(asked(&world)[..2], ["get ~/m_0000000001", "delete ~/m_0000000001"]);
}

#[test]
fn after_a_connection_is_lost_there_is_another_watch_and_the_list_decides() {
    let mut world = knowing(&["b", "c"]);
    world.session(SessionEvent::Disconnected);
    world.remove_member("g", "m_0000000000");
    world.add_member("g", "d");
    world.session(SessionEvent::Reconnected { session: SESSION });
    assert_eq!(asked(&world), ["watch ~", "list ~", "get ~/m_0000000002"]);
    assert_eq!(told(&world), ["+d -b"]);
    // And one that is lost while members are read.
    world.slow = reads;
    world.add_member("g", "e");
    world.members_changed("g");
    world.session(SessionEvent::Disconnected);
    world.remove_member("g", "m_0000000003");
    world.add_member("g", "f");
    world.session(SessionEvent::Reconnected { session: SESSION });
    assert_eq!(told(&world), ["+d -b"]);
    world.let_go();
    assert_eq!(told(&world), ["+d -b", "+f"]);
}

#[test]
fn when_the_list_fails_the_next_one_decides() {
    let mut world = knowing(&["b"]);
    world.broken = lists;
    world.session(SessionEvent::Disconnected);
    world.add_member("g", "c");
    world.session(SessionEvent::Reconnected { session: SESSION });
    assert_eq!((asked(&world), told(&world)), (vec!["watch ~".to_owned(), "list ~".to_owned()], Vec::new()));
    // What the watch tells meanwhile is nothing without a list.
    world.add_member("g", "d");
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0]);
    world.broken = |_| false;
    world.log.clear();
    world.pass(Duration::from_secs(1));
    assert_eq!(asked(&world), ["list ~", "get ~/m_0000000001 ~/m_0000000002"], "the watch still stands");
    assert_eq!(told(&world), ["+c +d"]);
}

#[test]
fn members_that_could_not_be_read_have_not_left() {
    let mut world = knowing(&["b"]);
    world.broken = |request| matches!(request, Request::GetAll { paths } if paths.len() == 256);
    (0..301).for_each(|n| drop(world.add_member("g", &format!("w{n}"))));
    world.members_changed("g");
    assert_eq!(told(&world).len(), 1, "a part of them is no view");
    world.broken = |_| false;
    world.pass(Duration::from_secs(1));
    assert_eq!((told(&world).len(), known(&world).len()), (2, 302));
}

#[test]
fn a_server_without_lasting_watches_is_asked_for_lists() {
    let mut world = knowing_at_old_server(&["b"]);
    world.add_member("g", "c");
    world.members_changed("g");
    assert_eq!(asked(&world), ["list ~, watched", "get ~/m_0000000001"]);
    assert_eq!(told(&world), ["+c"]);
    world.log.clear();
    world.remove_member("g", "m_0000000000");
    world.members_changed("g");
    assert_eq!((asked(&world), told(&world)), (vec!["list ~, watched".to_owned()], vec!["-b".to_owned()]));
    // The next server may be a newer one.
    world.log.clear();
    world.session(SessionEvent::Disconnected);
    world.old = false;
    world.session(SessionEvent::Reconnected { session: SESSION });
    assert_eq!(asked(&world), ["watch ~", "list ~"]);
}
