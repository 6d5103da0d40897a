//! What is looked at before a request leaves, alike for every coordinator: paths, sizes, and how many are under way.

use bellwether_core::request::{CreateMode, Op, Request, RequestError};

/// The largest packet that a ZooKeeper server takes (`jute.maxbuffer`, as it is by default). It drops the connection of a client
/// that sends more, so such a request is refused before it is sent.
pub const MAX_PACKET: usize = 0xf_ffff;

/// How many requests of one session may wait for their answer. More are refused, so that nothing grows without a bound.
pub const MAX_UNDER_WAY: usize = 10_000;

/// What a packet holds around paths and data: lengths, versions, flags, and the longest ACL that we send.
const ENVELOPE: usize = 160;

/// Refuses what ZooKeeper would not take: bad paths and packets that are too large. `prefix` is the length of the chroot.
pub fn check(request: &Request, prefix: usize) -> Result<(), RequestError> {
    match request {
        Request::Create { path, mode, .. } => {
            check_path(path, *mode == CreateMode::EphemeralSequential)?;
            not_the_root(path)?;
        }
        Request::Delete { path, .. } => {
            check_path(path, false)?;
            not_the_root(path)?;
        }
        Request::Set { path, .. }
        | Request::Get { path, .. }
        | Request::List { path, .. }
        | Request::WatchChildren { path }
        | Request::Sync { path } => check_path(path, false)?,
        Request::GetAll { paths } => paths.iter().try_for_each(|path| check_path(path, false))?,
        Request::Multi(ops) => {
            for (index, op) in ops.iter().enumerate() {
                check_op(op).map_err(|error| RequestError::Multi { index, error: Box::new(error) })?;
            }
        }
    }
    let size = packet_size(request, prefix);
    if size > MAX_PACKET {
        return Err(RequestError::Refused(format!(
            "the request takes {size} bytes; ZooKeeper takes at most {MAX_PACKET} and would drop the connection"
        )));
    }
    Ok(())
}

/// The answer to a request when too many are under way.
pub fn too_many() -> RequestError {
    RequestError::Refused(format!("{MAX_UNDER_WAY} requests of this session are under way already"))
}

fn check_op(op: &Op) -> Result<(), RequestError> {
    check_path(op_path(op), false)?;
    match op {
        Op::Create { path, .. } | Op::Delete { path, .. } => not_the_root(path),
        Op::Check { .. } | Op::Set { .. } => Ok(()),
    }
}

fn op_path(op: &Op) -> &str {
    match op {
        Op::Check { path, .. } | Op::Create { path, .. } | Op::Set { path, .. } | Op::Delete { path, .. } => path,
    }
}

fn not_the_root(path: &str) -> Result<(), RequestError> {
    if path == "/" {
        return Err(RequestError::Refused("the root znode can be neither created nor deleted".to_owned()));
    }
    Ok(())
}

fn packet_size(request: &Request, prefix: usize) -> usize {
    let of = |path: &str, data: usize| ENVELOPE + prefix + path.len() + data;
    match request {
        Request::Create { path, data, .. } | Request::Set { path, data, .. } => of(path, data.len()),
        Request::Delete { path, .. }
        | Request::Get { path, .. }
        | Request::List { path, .. }
        | Request::WatchChildren { path }
        | Request::Sync { path } => of(path, 0),
        Request::GetAll { paths } => paths.iter().map(|path| of(path, 0)).sum(),
        Request::Multi(ops) => ops
            .iter()
            .map(|op| match op {
                Op::Create { path, data } | Op::Set { path, data, .. } => of(path, data.len()),
                Op::Check { path, .. } | Op::Delete { path, .. } => of(path, 0),
            })
            .sum(),
    }
}

/// ZooKeeper's rules for paths. The prefix of a sequential znode may end in a slash.
pub fn check_path(path: &str, sequential: bool) -> Result<(), RequestError> {
    let bad = |why: &str| Err(RequestError::Refused(format!("the path {path:?} is not valid: {why}")));
    let Some(rest) = path.strip_prefix('/') else { return bad("it does not begin with '/'") };
    if rest.is_empty() {
        return Ok(());
    }
    if path.chars().any(|c| matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff)) {
        return bad("it has a character that ZooKeeper does not allow");
    }
    let parts: Vec<&str> = rest.split('/').collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        if part.is_empty() && !(last && sequential) {
            return bad("it has an empty part");
        }
        if matches!(*part, "." | "..") && !(last && sequential) {
            return bad("it is relative");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked_as_zookeeper_does() {
        for good in ["/", "/a", "/a/b", "/a/.b", "/a/b..", "/ä/路径"] {
            assert_eq!(check_path(good, false), Ok(()), "{good:?}");
        }
        for bad in
            ["", "a", "a/b", "//", "/a/", "/a//b", "/.", "/a/..", "/a/./b", "/../a", "/a\0", "/a\u{1f}", "/\u{f8ff}"]
        {
            assert!(matches!(check_path(bad, false), Err(RequestError::Refused(_))), "{bad:?}");
        }
        assert_eq!(check_path("/a/", true), Ok(()));
        assert!(check_path("/a//", true).is_err());
    }

    #[test]
    fn a_request_must_fit_into_a_packet() {
        let set = |size: usize| Request::Set { path: "/a".to_owned(), data: vec![0; size].into(), version: None };
        assert_eq!(check(&set(bellwether_core::state::MAX_VALUE), 100), Ok(()));
        assert!(matches!(check(&set(MAX_PACKET), 0), Err(RequestError::Refused(_))));
        let ops = vec![Op::Create { path: "/a".to_owned(), data: vec![0; 600_000].into() }; 2];
        assert!(matches!(check(&Request::Multi(ops), 0), Err(RequestError::Refused(_))));
    }
}
