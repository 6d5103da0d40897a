//! When a guest is told that a member has joined: before the list is there if that is all that has happened, and never of a view that
//! did not exist.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use std::time::Duration;

use bellwether_core::callback::Callback;
use bellwether_core::command::Command;
use bellwether_core::event::SessionEvent;
use bellwether_core::id::SessionId;
use bellwether_core::request::Request;
use scripted::{SESSION, World};

const MEMBERS: &str = "/bw/g/service_registry";

/// A leader that knows these members.
fn knowing(members: &[&str]) -> World {
    let mut world = World::leading(&["g"]);
    members.iter().for_each(|id| drop(world.add_member("g", id)));
    world.members_changed("g");
    assert_eq!(known(&world), members);
    world.log.clear();
    world
}

/// The same, and from now on no list is answered.
fn waiting(members: &[&str]) -> World {
    let mut world = knowing(members);
    world.slow = lists;
    world
}

fn lists(request: &Request) -> bool {
    matches!(request, Request::List { path, .. } if path == MEMBERS)
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
        Command::Submit { request: Request::List { path, watch: true }, .. } => Some(format!("list {path}")),
        Command::Submit { request: Request::Delete { path, .. }, .. } => Some(format!("delete {path}")),
        _ => None,
    });
    requests.filter(|request| request.contains(MEMBERS)).map(|request| request.replace(MEMBERS, "~")).collect()
}

#[test]
fn who_joins_alone_is_told_of_before_the_list_is_there_and_costs_no_more() {
    let mut world = waiting(&["b", "d"]);
    for (id, name) in [("c", "m_0000000002"), ("e", "m_0000000003")] {
        world.slow = lists;
        world.add_member("g", id);
        world.members_changed("g");
        assert_eq!(asked(&world), [format!("get ~/{name} ~"), "list ~".to_owned()]);
        assert_eq!(told(&world), [format!("+{id}")]);
        world.let_go();
        assert_eq!((asked(&world).len(), told(&world).len()), (2, 1), "the list says nothing new");
        world.log.clear();
    }
    assert_eq!(known(&world), ["b", "c", "d", "e"]);
}

#[test]
fn who_joins_is_guessed_though_the_last_one_has_left() {
    let mut world = waiting(&["b", "c"]);
    world.remove_member("g", "m_0000000001");
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0]);
    world.let_go();
    assert_eq!(told(&world), ["-c"]);
    world.slow = lists;
    world.add_member("g", "d");
    world.members_changed("g");
    assert_eq!(told(&world), ["-c", "+d"]);
}

#[test]
fn who_joins_while_another_leaves_is_told_of_with_the_list() {
    let leaves_before: fn(&mut World) = |world| {
        world.remove_member("g", "m_0000000000");
        world.add_member("g", "d");
    };
    let leaves_after: fn(&mut World) = |world| {
        world.add_member("g", "d");
        world.remove_member("g", "m_0000000000");
    };
    for happens in [leaves_before, leaves_after] {
        let mut world = waiting(&["b", "c"]);
        happens(&mut world);
        world.members_changed("g");
        assert_eq!(told(&world), [""; 0]);
        world.let_go();
        assert_eq!(told(&world), ["+d -b"]);
        assert_eq!(asked(&world), ["get ~/m_0000000002 ~", "list ~"], "it was read, and need not be read again");
    }
}

#[test]
fn of_two_who_join_nobody_is_told_before_the_list_and_then_of_both_at_once() {
    let mut world = waiting(&["b"]);
    world.add_member("g", "c");
    world.add_member("g", "d");
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0]);
    world.let_go();
    assert_eq!(told(&world), ["+c +d"]);
    assert_eq!(asked(&world), ["get ~/m_0000000001 ~", "list ~", "get ~/m_0000000002"]);
}

#[test]
fn five_hundred_who_join_at_once_are_few_calls_and_few_requests() {
    let mut world = knowing(&["b"]);
    world.add_member("g", "first");
    // The others join between the guess and the list.
    world.before = |world, request| {
        if lists(request) {
            world.before = |_, _| {};
            (0..499).for_each(|n| drop(world.add_member("g", &format!("w{n}"))));
        }
    };
    world.members_changed("g");
    assert_eq!((told(&world).len(), asked(&world).len()), (2, 4), "{:?}", asked(&world));
    assert_eq!(known(&world).len(), 501);
}

#[test]
fn who_comes_and_goes_before_the_list_is_taken_leaves_with_it() {
    let mut world = waiting(&["b"]);
    let name = world.add_member("g", "c");
    assert_eq!(name, "m_0000000001");
    world.before = |world, request| {
        if lists(request) {
            world.before = |_, _| {};
            world.remove_member("g", "m_0000000001");
        }
    };
    world.members_changed("g");
    assert_eq!(told(&world), ["+c"], "it was there");
    world.let_go();
    assert_eq!(told(&world), ["+c", "-c"]);
}

#[test]
fn the_number_of_changes_may_wrap() {
    let mut world = knowing(&["b"]);
    world.set_members_counter("g", (1 << 30) - 2);
    world.add_member("g", "c");
    world.members_changed("g");
    for id in ["d", "e", "f"] {
        world.log.clear();
        world.slow = lists;
        world.add_member("g", id);
        world.members_changed("g");
        assert_eq!(told(&world), [format!("+{id}")]);
        world.let_go();
        assert_eq!(told(&world).len(), 1);
    }
}

#[test]
fn at_the_end_of_the_counter_nothing_is_guessed() {
    let mut world = knowing(&["b"]);
    world.set_members_counter("g", i32::MAX - 1);
    world.add_member("g", "c");
    world.members_changed("g");
    world.log.clear();
    world.add_member_as("g", "d", "m_0123456789abcdef_2147483647");
    world.members_changed("g");
    assert_eq!(asked(&world), ["list ~", "get ~/m_0123456789abcdef_2147483647"]);
    assert_eq!(told(&world), ["+d"]);
}

#[test]
fn a_registry_that_was_made_anew_is_another_one_however_it_counts() {
    let mut world = waiting(&["b", "c"]);
    world.make_registry_anew("g");
    // As many as there were, and one more; the same names.
    for id in ["x", "y", "z"] {
        world.add_member("g", id);
    }
    world.members_changed("g");
    assert_eq!(asked(&world), ["get ~/m_0000000002 ~", "list ~"]);
    assert_eq!(told(&world), [""; 0]);
    world.let_go();
    assert_eq!(told(&world), ["+x +y +z -b -c"]);
}

#[test]
fn what_is_no_member_is_not_told_and_does_not_stand_in_the_way() {
    let mut world = waiting(&["b"]);
    world.put_member("g", "m_0000000001", b"{".to_vec());
    world.members_changed("g");
    world.let_go();
    world.put_member("g", "other", Vec::new());
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0]);
    world.slow = lists;
    world.add_member("g", "c");
    world.members_changed("g");
    assert_eq!(told(&world), ["+c"]);
    assert_eq!(known(&world), ["b", "c"]);
}

#[test]
fn who_stands_twice_is_told_of_as_changed_and_the_latest_counts() {
    let mut world = waiting(&["b", "c"]);
    // With another session; of one session, the former one would be a ghost.
    world.put_member_of("g", "m_0000000002", br#"{"id":"b","address":"h:2"}"#.to_vec(), SessionId(9));
    world.members_changed("g");
    assert_eq!(told(&world), ["~b"]);
    world.let_go();
    assert_eq!(told(&world), ["~b"]);
    // The former one goes: nobody need be told.
    world.remove_member("g", "m_0000000000");
    world.members_changed("g");
    assert_eq!(told(&world), ["~b"]);
}

#[test]
fn a_ghost_of_our_own_is_taken_away_and_not_told() {
    let mut world = waiting(&["b"]);
    let data = br#"{"id":"a","address":"h:1"}"#.to_vec();
    world.put_member_of("g", "m_0000000001", data, SESSION);
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0]);
    assert_eq!(asked(&world), ["get ~/m_0000000001 ~", "list ~", "delete ~/m_0000000001"]);
}

#[test]
fn after_a_connection_is_lost_the_list_decides() {
    let mut world = knowing(&["b", "c"]);
    world.session(SessionEvent::Disconnected);
    world.remove_member("g", "m_0000000000");
    world.add_member("g", "d");
    world.session(SessionEvent::Reconnected { session: SESSION });
    assert_eq!(asked(&world), ["list ~", "get ~/m_0000000002"]);
    assert_eq!(told(&world), ["+d -b"]);
    // And one that is lost while a list is under way.
    world.slow = lists;
    world.add_member("g", "e");
    world.members_changed("g");
    assert_eq!(told(&world), ["+d -b", "+e"]);
    world.session(SessionEvent::Disconnected);
    world.add_member("g", "f");
    world.session(SessionEvent::Reconnected { session: SESSION });
    world.let_go();
    assert_eq!(told(&world), ["+d -b", "+e", "+f"]);
}

#[test]
fn when_the_list_fails_the_next_one_decides() {
    let mut world = knowing(&["b"]);
    world.broken = lists;
    world.add_member("g", "c");
    world.members_changed("g");
    assert_eq!(told(&world), ["+c"]);
    world.broken = |_| false;
    world.add_member("g", "d");
    world.log.clear();
    world.pass(Duration::from_secs(1));
    assert_eq!(asked(&world), ["list ~", "get ~/m_0000000002"]);
    assert_eq!(told(&world), ["+d"]);
}

#[test]
fn members_that_could_not_be_read_have_not_left() {
    let mut world = knowing(&["b"]);
    (0..300).for_each(|n| drop(world.add_member("g", &format!("w{n}"))));
    world.broken = |request| matches!(request, Request::GetAll { paths } if paths.len() == 256);
    world.members_changed("g");
    assert_eq!(told(&world), [""; 0], "a part of them is no view");
    world.broken = |_| false;
    world.pass(Duration::from_secs(1));
    assert_eq!((told(&world).len(), known(&world).len()), (1, 301));
}

#[test]
fn who_left_between_the_list_and_its_reading_is_nobody() {
    let mut world = knowing(&["b"]);
    for id in ["c", "d"] {
        world.add_member("g", id);
    }
    world.before = |world, request| {
        if matches!(request, Request::GetAll { paths } if paths.len() == 1) {
            world.before = |_, _| {};
            world.remove_member("g", "m_0000000002");
        }
    };
    world.members_changed("g");
    assert_eq!(told(&world), ["+c"]);
    // The list still counted it: one more now is not one more than that.
    world.slow = lists;
    world.add_member("g", "e");
    world.members_changed("g");
    assert_eq!(told(&world), ["+c"]);
    world.let_go();
    assert_eq!(told(&world), ["+c", "+e"]);
    assert_eq!(known(&world), ["b", "c", "e"]);
}
