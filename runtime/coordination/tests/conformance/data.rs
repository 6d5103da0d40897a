//! Znodes: what requests do and answer.

use anyhow::{Result, bail, ensure};
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError, Stat};

use super::bed::{Bed, create, delete, get, list, set};

fn op_set(path: &str, data: &[u8], version: Option<i32>) -> Op {
    Op::Set { path: path.to_owned(), data: data.into(), version }
}

fn op_create(path: &str) -> Op {
    Op::Create { path: path.to_owned(), data: (*b"made").into() }
}

fn op_delete(path: &str) -> Op {
    Op::Delete { path: path.to_owned(), version: None }
}

fn op_check(path: &str, version: Option<i32>) -> Op {
    Op::Check { path: path.to_owned(), version }
}

fn stats(reply: Reply) -> Result<Vec<Option<Stat>>> {
    match reply {
        Reply::Multi(stats) => Ok(stats),
        other => bail!("not a multi: {other:?}"),
    }
}

pub async fn create_get_set_delete(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let made = client.ok(create("/a", b"one", CreateMode::Persistent)).await?;
    assert_eq!(made, Reply::Created { path: "/a".to_owned() });
    let (data, first) = client.get("/a").await?;
    assert_eq!(&*data, b"one");
    assert_eq!((first.version, first.owner), (0, None));
    let second = client.set("/a", b"two").await?;
    assert_eq!(second.version, 1);
    ensure!(second.mzxid > first.mzxid);
    assert_eq!(client.get("/a").await?, (b"two"[..].into(), second));
    let Reply::Written(third) = client.ok(set("/a", b"", Some(1))).await? else { bail!("not written") };
    assert_eq!(third.version, 2);
    assert_eq!(client.get("/a").await?, (b""[..].into(), third));
    client.create("/a/b", b"").await?;
    assert_eq!(client.list("/a").await?, ["b"]);
    assert_eq!(client.list("/").await?, ["a"]);
    assert_eq!(client.ok(delete("/a/b", Some(0))).await?, Reply::Deleted);
    assert_eq!(client.ok(delete("/a", None)).await?, Reply::Deleted);
    assert_eq!(client.list("/").await?, Vec::<String>::new());
    // A znode that is made again begins anew.
    client.create("/a", b"").await?;
    assert_eq!(client.get("/a").await?.1.version, 0);
    client.close().await
}

pub async fn every_error(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    client.create("/a", b"").await?;
    client.create("/a/b", b"").await?;
    client.ok(create("/e", b"", CreateMode::Ephemeral)).await?;
    for missing in [get("/x", false), list("/x", true), set("/x", b"", None), delete("/x", None)] {
        assert_eq!(client.err(missing).await?, RequestError::NoNode);
    }
    assert_eq!(client.err(create("/x/y", b"", CreateMode::Persistent)).await?, RequestError::NoNode);
    assert_eq!(client.err(create("/a", b"", CreateMode::Ephemeral)).await?, RequestError::NodeExists);
    assert_eq!(client.err(set("/a", b"", Some(5))).await?, RequestError::BadVersion);
    assert_eq!(client.err(delete("/a/b", Some(5))).await?, RequestError::BadVersion);
    // The version is looked at before the children.
    assert_eq!(client.err(delete("/a", Some(5))).await?, RequestError::BadVersion);
    assert_eq!(client.err(delete("/a", Some(0))).await?, RequestError::NotEmpty);
    let below = client.err(create("/e/x", b"", CreateMode::Persistent)).await?;
    ensure!(matches!(below, RequestError::Refused(_)), "{below:?}");
    client.close().await
}

pub async fn bad_paths(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    for path in ["", "a", "/a/", "//", "/a//b", "/./a", "/..", "/a\u{1}"] {
        for request in [
            create(path, b"", CreateMode::Persistent),
            get(path, true),
            list(path, true),
            set(path, b"", None),
            delete(path, None),
            Request::Sync { path: path.to_owned() },
        ] {
            let error = client.err(request).await?;
            ensure!(matches!(error, RequestError::Refused(_)), "{path:?}: {error:?}");
        }
        let error = client.err(Request::Multi(vec![op_check("/", None), op_delete(path)])).await?;
        ensure!(
            matches!(&error, RequestError::Multi { index: 1, error } if matches!(**error, RequestError::Refused(_)))
        );
    }
    for root in [create("/", b"", CreateMode::Persistent), delete("/", None)] {
        let error = client.err(root).await?;
        ensure!(matches!(error, RequestError::Refused(_)), "{error:?}");
    }
    client.close().await
}

pub async fn sequential_names(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    client.create("/q", b"").await?;
    let mode = CreateMode::EphemeralSequential;
    for expected in ["/q/n-0000000000", "/q/n-0000000001"] {
        let made = client.ok(create("/q/n-", b"me", mode)).await?;
        assert_eq!(made, Reply::Created { path: expected.to_owned() });
        assert_eq!(client.get(expected).await?.1.owner, Some(client.id));
    }
    // The counter belongs to the parent: other names and other kinds of children count, deletions do not.
    client.create("/q/plain", b"").await?;
    client.ok(delete("/q/n-0000000001", None)).await?;
    let made = client.ok(create("/q/other", b"", mode)).await?;
    assert_eq!(made, Reply::Created { path: "/q/other0000000003".to_owned() });
    let made = client.ok(create("/q/", b"", mode)).await?;
    assert_eq!(made, Reply::Created { path: "/q/0000000004".to_owned() });
    assert_eq!(client.list("/q").await?, ["0000000004", "n-0000000000", "other0000000003", "plain"]);
    client.close().await
}

pub async fn ephemerals(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mut other = bed.client().await?;
    ensure!(client.id != other.id);
    client.ok(create("/e", b"x", CreateMode::Ephemeral)).await?;
    assert_eq!(other.get("/e").await?.1.owner, Some(client.id));
    // Whoever writes it, it stays its maker's.
    assert_eq!(other.set("/e", b"y").await?.owner, Some(client.id));
    assert_eq!(other.err(create("/e", b"", CreateMode::Ephemeral)).await?, RequestError::NodeExists);
    other.close().await?;
    assert_eq!(&*client.get("/e").await?.0, b"y");
    client.close().await
}

pub async fn large_values(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let large = vec![b'x'; bellwether_core::state::MAX_VALUE];
    client.create("/large", &large).await?;
    assert_eq!(client.get("/large").await?.0.len(), large.len());
    let multi = vec![op_check("/large", Some(0)), op_set("/large", &large, None)];
    client.ok(Request::Multi(multi)).await?;
    // Larger than a packet: refused here, since the server would drop the connection.
    for request in [
        create("/larger", &vec![0; 1 << 20], CreateMode::Persistent),
        set("/large", &vec![0; 1 << 20], None),
        Request::Multi(vec![op_set("/large", &large, None), op_set("/large", &large, None)]),
    ] {
        let error = client.call(request).await?;
        ensure!(
            matches!(&error, Err(RequestError::Refused(why)) if why.contains("1048575")),
            "not refused as too large"
        );
    }
    assert_eq!(client.get("/large").await?.1.version, 1);
    client.close().await
}

pub async fn no_auth(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    bed.forbid("/theirs").await?;
    assert_eq!(client.err(set("/theirs", b"", None)).await?, RequestError::NoAuth);
    assert_eq!(client.err(create("/theirs/x", b"", CreateMode::Ephemeral)).await?, RequestError::NoAuth);
    client.create("/ours", b"").await?;
    let error = client.err(Request::Multi(vec![op_set("/ours", b"x", None), op_set("/theirs", b"", None)])).await?;
    assert_eq!(error, RequestError::Multi { index: 1, error: Box::new(RequestError::NoAuth) });
    assert_eq!(client.get("/ours").await?.1.version, 0);
    client.close().await
}

pub async fn multi_is_atomic(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    client.create("/a", b"0").await?;
    // Later operations see what earlier ones did.
    let ops = vec![op_create("/a/b"), op_set("/a/b", b"1", Some(0)), op_set("/a", b"1", None), op_check("/a", Some(1))];
    let answer = stats(client.ok(Request::Multi(ops)).await?)?;
    ensure!(answer[0].is_none() && answer[3].is_none(), "{answer:?}");
    let (Some(b), Some(a)) = (answer[1], answer[2]) else { bail!("{answer:?}") };
    assert_eq!((b.version, a.version), (1, 1));
    assert_eq!(a.mzxid, b.mzxid);
    assert_eq!(client.get("/a").await?, (b"1"[..].into(), a));
    assert_eq!(client.get("/a/b").await?, (b"1"[..].into(), b));
    // Made and deleted at once: whether it was there before shows, and nothing else.
    let absent = |path: &str| Request::Multi(vec![op_create(path), op_delete(path)]);
    assert_eq!(stats(client.ok(absent("/a/c")).await?)?, [None, None]);
    assert_eq!(client.list("/a").await?, ["b"]);
    let error = client.err(absent("/a/b")).await?;
    assert_eq!(error, RequestError::Multi { index: 0, error: Box::new(RequestError::NodeExists) });
    // One fails, so nothing is done.
    let ops = vec![op_set("/a", b"2", None), op_delete("/a/b"), op_create("/c"), op_check("/a", Some(9))];
    let error = client.err(Request::Multi(ops)).await?;
    assert_eq!(error, RequestError::Multi { index: 3, error: Box::new(RequestError::BadVersion) });
    assert_eq!(client.get("/a").await?, (b"1"[..].into(), a));
    assert_eq!(client.list("/").await?, ["a"]);
    assert_eq!(client.list("/a").await?, ["b"]);
    let ops = vec![op_delete("/a/b"), op_delete("/a")];
    assert_eq!(stats(client.ok(Request::Multi(ops)).await?)?, [None, None]);
    assert_eq!(stats(client.ok(Request::Multi(Vec::new())).await?)?, []);
    client.close().await
}

pub async fn multi_names_what_failed(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    client.create("/a", b"").await?;
    client.create("/a/b", b"").await?;
    for (op, expected) in [
        (op_check("/x", None), RequestError::NoNode),
        (op_check("/a", Some(3)), RequestError::BadVersion),
        (op_create("/a"), RequestError::NodeExists),
        (op_create("/x/y"), RequestError::NoNode),
        (op_set("/x", b"", None), RequestError::NoNode),
        (op_set("/a", b"", Some(3)), RequestError::BadVersion),
        (op_delete("/a"), RequestError::NotEmpty),
        (op_delete("/x"), RequestError::NoNode),
    ] {
        for index in 0..3 {
            let mut ops = vec![op_check("/a", None), op_check("/a/b", Some(0))];
            ops.insert(index, op.clone());
            let error = client.err(Request::Multi(ops)).await?;
            assert_eq!(error, RequestError::Multi { index, error: Box::new(expected.clone()) }, "{op:?}");
        }
    }
    client.close().await
}

pub async fn transaction_ids_only_grow(bed: Bed) -> Result<()> {
    let mut one = bed.client().await?;
    let mut two = bed.client().await?;
    one.create("/a", b"").await?;
    one.create("/b", b"").await?;
    let mut last = one.get("/b").await?.1.mzxid;
    for round in 0..10 {
        let (own, other) = if round % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        let multi = own.ok(Request::Multi(vec![op_check("/b", None), op_set("/a", b"", None)])).await?;
        let Some(Some(stat)) = stats(multi)?.pop() else { bail!("no stat") };
        ensure!(stat.mzxid > last, "{} after {last}", stat.mzxid);
        let written = other.set("/b", b"").await?;
        ensure!(written.mzxid > stat.mzxid, "{} after {}", written.mzxid, stat.mzxid);
        last = written.mzxid;
    }
    // Neither does a node that is made again go back.
    one.ok(delete("/a", None)).await?;
    one.create("/a", b"").await?;
    ensure!(one.get("/a").await?.1.mzxid > last);
    one.close().await?;
    two.close().await
}

pub async fn order_of_submission(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mut tags = vec![client.submit(create("/a", b"", CreateMode::Persistent))];
    for version in 0..200 {
        tags.push(client.submit(set("/a", version.to_string().as_bytes(), Some(version))));
        tags.push(client.submit(get("/a", false)));
    }
    let mut answers = Vec::new();
    for tag in &tags {
        answers.push(client.answer(*tag).await??);
    }
    for (index, answer) in answers.iter().skip(2).step_by(2).enumerate() {
        let Reply::Data { data, .. } = answer else { bail!("{answer:?}") };
        assert_eq!(&**data, index.to_string().as_bytes());
    }
    client.close().await
}

pub async fn several_at_once(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    client.create("/a", b"one").await?;
    client.create("/b", b"two").await?;
    let all = |paths: &[&str]| Request::GetAll { paths: paths.iter().map(ToString::to_string).collect() };
    let (one, two) = (client.get("/a").await?, client.get("/b").await?);
    let found = client.ok(all(&["/b", "/none", "/a", "/b"])).await?;
    assert_eq!(found, Reply::Found(vec![Some(two.clone()), None, Some(one), Some(two)]));
    assert_eq!(client.ok(all(&[])).await?, Reply::Found(vec![]));
    let refused = client.call(all(&["/a", "b"])).await?;
    ensure!(matches!(refused, Err(RequestError::Refused(_))), "{refused:?}");
    client.close().await
}

/// Names of children come again when their parent was made anew, which its stat shows.
pub async fn what_is_made_anew_is_another(bed: Bed) -> Result<()> {
    let mut client = bed.client().await?;
    let mode = CreateMode::EphemeralSequential;
    let first = Reply::Created { path: "/q/m_0000000000".to_owned() };
    client.create("/q", b"").await?;
    assert_eq!(client.ok(create("/q/m_", b"", mode)).await?, first);
    let before = client.stat("/q").await?;
    assert_eq!(client.get("/q").await?.1.czxid, before.czxid);
    client.ok(delete("/q/m_0000000000", None)).await?;
    client.ok(delete("/q", None)).await?;
    client.create("/q", b"").await?;
    assert_eq!(client.ok(create("/q/m_", b"", mode)).await?, first);
    ensure!(client.stat("/q").await?.czxid > before.czxid);
    client.close().await
}

pub async fn sync_then_list(bed: Bed) -> Result<()> {
    let mut writer = bed.client().await?;
    let mut reader = bed.client().await?;
    writer.create("/a", b"").await?;
    let sync = reader.submit(Request::Sync { path: "/".to_owned() });
    let listed = reader.submit(list("/", false));
    assert_eq!(reader.answer(sync).await??, Reply::Synced);
    let Reply::Children { names, .. } = reader.answer(listed).await?? else { bail!("not a list") };
    assert_eq!(names, ["a"]);
    writer.close().await?;
    reader.close().await
}
