//! The model of a ZooKeeper service by itself: pure, deterministic, a value.

use std::time::Duration;

use bellwether_coordination::memory::Server;
use bellwether_core::event::SessionEvent;
use bellwether_core::id::{SessionId, Tag};
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError};
use bellwether_core::time::Moment;
use proptest::prelude::*;

const T: Duration = Duration::from_secs(6);

fn at(seconds: u64) -> Moment {
    Moment::from_boot(Duration::from_secs(seconds))
}

fn create(path: &str, mode: CreateMode) -> Request {
    Request::Create { path: path.to_owned(), data: (*b"").into(), mode }
}

fn set(path: &str) -> Request {
    Request::Set { path: path.to_owned(), data: (*b"new").into(), version: None }
}

fn get(path: &str, watch: bool) -> Request {
    Request::Get { path: path.to_owned(), watch }
}

fn list(path: &str) -> Request {
    Request::List { path: path.to_owned(), watch: true }
}

fn fired(tag: u64) -> SessionEvent {
    SessionEvent::Fired { tag: Tag(tag) }
}

#[test]
fn sessions_expire_unless_touched() {
    let mut server = Server::new();
    assert_eq!(server.next_expiry(), None);
    let (one, two) = (server.open(at(0), T), server.open(at(1), T));
    assert_eq!(server.sessions(), [one, two]);
    assert_eq!(server.next_expiry(), Some(at(6)));
    server.apply(one, Tag(1), create("/e", CreateMode::Ephemeral)).unwrap();
    server.apply(two, Tag(2), get("/e", true)).unwrap();
    server.apply(two, Tag(3), list("/")).unwrap();
    server.apply(one, Tag(4), list("/")).unwrap();
    assert!(server.touch(two, at(3)));
    // Time does not go back.
    assert!(server.touch(two, at(2)));
    assert_eq!(server.expire(at(5)), []);
    assert_eq!(server.expire(at(6)), [one]);
    // The dead hear nothing.
    assert_eq!(server.take_told(), [(two, fired(2)), (two, fired(3))]);
    assert_eq!(server.take_told(), []);
    assert_eq!(server.children("/"), Some(vec![]));
    assert!(!server.touch(one, at(6)));
    assert!(!server.close(one));
    assert_eq!(server.apply(one, Tag(5), get("/", false)), Err(RequestError::SessionEnded));
    assert_eq!(server.next_expiry(), Some(at(9)));
    assert_eq!(server.watch_count(), 0);
}

#[test]
fn the_counter_of_sequential_names_stays_at_its_end() {
    let mut server = Server::new();
    let session = server.open(at(0), T);
    server.apply(session, Tag(1), create("/q", CreateMode::Persistent)).unwrap();
    server.set_counter("/q", i32::MAX).unwrap();
    let mut next = |tag, prefix| match server.apply(session, Tag(tag), create(prefix, CreateMode::EphemeralSequential))
    {
        Ok(Reply::Created { path }) => Ok(path),
        Err(error) => Err(error),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(2, "/q/n-").as_deref(), Ok("/q/n-2147483647"));
    assert_eq!(next(3, "/q/m-").as_deref(), Ok("/q/m-2147483647"));
    assert_eq!(next(4, "/q/n-"), Err(RequestError::NodeExists));
    assert_eq!(server.set_counter("/x", 0), Err(RequestError::NoNode));
    server.set_counter("/q", -1).unwrap();
    let Ok(Reply::Created { path }) = server.apply(session, Tag(5), create("/q/n-", CreateMode::EphemeralSequential))
    else {
        panic!("not created")
    };
    assert_eq!(path, "/q/n--000000001");
}

#[test]
fn a_clone_is_a_snapshot() {
    let mut server = Server::new();
    let session = server.open(at(0), T);
    server.apply(session, Tag(1), create("/a", CreateMode::Persistent)).unwrap();
    let stale = server.clone();
    server.apply(session, Tag(2), set("/a")).unwrap();
    server.apply(session, Tag(3), create("/a/b", CreateMode::Ephemeral)).unwrap();
    let names = |server: &Server| match server.read(&list("/a")) {
        Ok(Reply::Children { names, .. }) => names,
        other => panic!("{other:?}"),
    };
    let Ok(Reply::Data { data, stat }) = stale.read(&get("/a", true)) else { panic!("not read") };
    assert_eq!((&*data, stat.version), (&b""[..], 0));
    assert_eq!(names(&stale), Vec::<String>::new());
    assert_eq!(names(&server), ["b"]);
    assert!(matches!(stale.read(&set("/a")), Err(RequestError::Refused(_))));
    assert_eq!((stale.watch_count(), server.watch_count()), (0, 0));
    assert!(stale.zxid() < server.zxid());
}

#[test]
fn denied_paths_are_denied_to_sessions_only() {
    let mut server = Server::new();
    let session = server.open(at(0), T);
    server.apply(session, Tag(1), create("/a", CreateMode::Persistent)).unwrap();
    server.apply(session, Tag(1), create("/ab", CreateMode::Persistent)).unwrap();
    server.deny("/a");
    for request in [set("/a"), get("/a", true), list("/a"), create("/a/b", CreateMode::Ephemeral), get("/a/x", false)] {
        assert_eq!(server.apply(session, Tag(2), request), Err(RequestError::NoAuth));
    }
    assert_eq!(server.watch_count(), 0);
    assert!(server.apply(session, Tag(3), set("/ab")).is_ok());
    assert_eq!(server.apply(session, Tag(4), Request::Sync { path: "/a".to_owned() }), Ok(Reply::Synced));
    // What fails first is told, whether it is the permission or not.
    let check = |path: &str, version| Op::Check { path: path.to_owned(), version };
    let multi = |ops| Request::Multi(ops);
    let failed = |index, error| Err(RequestError::Multi { index, error: Box::new(error) });
    let ops = vec![check("/ab", Some(9)), check("/a", None)];
    assert_eq!(server.apply(session, Tag(5), multi(ops)), failed(0, RequestError::BadVersion));
    let ops = vec![check("/ab", None), check("/a", None), check("/x", None)];
    assert_eq!(server.apply(session, Tag(6), multi(ops)), failed(1, RequestError::NoAuth));
    assert!(server.operate(set("/a")).is_ok());
    assert!(matches!(server.operate(create("/e", CreateMode::Ephemeral)), Err(RequestError::Refused(_))));
    assert_eq!(server.apply(session, Tag(7), set("/a")), Err(RequestError::NoAuth));
}

#[test]
fn a_watch_that_fired_can_still_be_forgotten() {
    let mut server = Server::new();
    let session = server.open(at(0), T);
    server.apply(session, Tag(1), get("/", true)).unwrap();
    server.apply(session, Tag(2), get("/", true)).unwrap();
    server.apply(session, Tag(3), set("/")).unwrap();
    server.forget(session, Tag(1));
    assert_eq!(server.take_told(), [(session, fired(2))]);
}

const PATHS: [&str; 5] = ["/a", "/b", "/a/x", "/a/y", "/a/x/z"];

fn requests() -> impl Strategy<Value = Vec<(usize, Request)>> {
    let path = || prop::sample::select(&PATHS[..]).prop_map(str::to_owned);
    let version = || prop_oneof![Just(None), (0..2).prop_map(Some)];
    let op = prop_oneof![
        (path(), version()).prop_map(|(path, version)| Op::Check { path, version }),
        path().prop_map(|path| Op::Create { path, data: (*b"").into() }),
        (path(), version()).prop_map(|(path, version)| Op::Set { path, data: (*b"").into(), version }),
        (path(), version()).prop_map(|(path, version)| Op::Delete { path, version }),
    ];
    let mode = prop_oneof![
        3 => Just(CreateMode::Persistent),
        1 => Just(CreateMode::Ephemeral),
        1 => Just(CreateMode::EphemeralSequential),
    ];
    let request = prop_oneof![
        4 => (path(), mode).prop_map(|(path, mode)| create(&path, mode)),
        2 => path().prop_map(|path| set(&path)),
        2 => (path(), version()).prop_map(|(path, version)| Request::Delete { path, version }),
        2 => path().prop_map(|path| get(&path, true)),
        2 => path().prop_map(|path| list(&path)),
        2 => path().prop_map(|path| Request::WatchChildren { path }),
        3 => prop::collection::vec(op, 1..5).prop_map(Request::Multi),
    ];
    prop::collection::vec((0..3usize, request), 0..80)
}

type Played = (Server, Vec<Result<Reply, RequestError>>, Vec<(SessionId, SessionEvent)>);

fn play(requests: &[(usize, Request)]) -> Played {
    let mut server = Server::new();
    let sessions: Vec<SessionId> = (0..3).map(|_| server.open(at(0), T)).collect();
    let (mut answers, mut told) = (Vec::new(), Vec::new());
    for (index, (who, request)) in requests.iter().enumerate() {
        answers.push(server.apply(sessions[*who], Tag(index as u64), request.clone()));
        told.extend(server.take_told());
    }
    (server, answers, told)
}

proptest! {
    #[test]
    fn the_same_calls_leave_the_same_value(requests in requests()) {
        prop_assert_eq!(play(&requests), play(&requests));
    }

    #[test]
    fn what_fails_leaves_no_trace_and_ids_only_grow(requests in requests()) {
        let mut server = Server::new();
        let session = server.open(at(0), T);
        let mut last = server.zxid();
        for (index, (_, request)) in requests.into_iter().enumerate() {
            let before = server.clone();
            let write =
                !matches!(request, Request::Get { .. } | Request::List { .. } | Request::WatchChildren { .. });
            match server.apply(session, Tag(index as u64), request) {
                Err(_) => prop_assert_eq!(&server, &before),
                Ok(reply) => {
                    prop_assert_eq!(server.zxid(), last + i64::from(write));
                    last = server.zxid();
                    if let Reply::Written(stat) = reply {
                        prop_assert_eq!(stat.mzxid, last);
                    }
                }
            }
        }
    }

    #[test]
    fn the_tree_stays_a_tree(requests in requests()) {
        let (mut server, ..) = play(&requests);
        let mut open = vec!["/".to_owned()];
        let mut persistent = Vec::new();
        while let Some(path) = open.pop() {
            let (_, stat) = server.data(&path).expect("a listed child exists");
            let children = server.children(&path).expect("it exists");
            prop_assert!(stat.owner.is_none() || children.is_empty(), "{} is ephemeral and has children", path);
            if stat.owner.is_none() {
                persistent.push(path.clone());
            }
            open.extend(children.iter().map(|name| format!("{}/{name}", path.trim_end_matches('/'))));
        }
        // The ephemeral znodes go with their sessions, the others stay.
        for session in server.sessions() {
            server.close(session);
        }
        let mut left = Vec::new();
        let mut open = vec!["/".to_owned()];
        while let Some(path) = open.pop() {
            let children = server.children(&path).expect("it exists");
            open.extend(children.iter().map(|name| format!("{}/{name}", path.trim_end_matches('/'))));
            left.push(path);
        }
        persistent.sort();
        left.sort();
        prop_assert_eq!(left, persistent);
        prop_assert_eq!(server.watch_count(), 0);
    }
}
