//! The reaper's side: listens until the node is dead, then clears away.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::time::{Duration, Instant};

use bellwether_coordination::estate::Holdings;
use bellwether_coordination::zookeeper::{ConfigError, ReapError, ZookeeperConfig, ZookeeperCoordinator};
use bellwether_core::id::{NodeId, SessionId};

use super::Line;

/// What there was to do when the node had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attended {
    /// Nothing: it had closed its session, or never had one.
    Nothing,
    /// So many znodes of the node's session were deleted, within this time.
    Reaped {
        /// The node.
        node: NodeId,
        /// Its session.
        session: SessionId,
        /// How many.
        znodes: usize,
        /// From the node's death on.
        within: Duration,
    },
}

/// Why what was left behind stays until the session's timeout.
#[derive(Debug, thiserror::Error)]
pub enum AttendError {
    /// The pipe cannot be read.
    #[error("what the node tells cannot be read: {0}")]
    Pipe(#[from] std::io::Error),
    /// This is not what a node tells.
    #[error("this is not what a node tells: {0}; `bellwether run` starts the reaper by itself")]
    Line(#[from] serde_json::Error),
    /// The node told something else first.
    #[error("a node tells first who it is; `bellwether run` starts the reaper by itself")]
    Order,
    /// The servers.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It could not be cleared away.
    #[error("node {node}: the znodes of session {session} stay until it times out: {error}")]
    Reap {
        /// The node.
        node: NodeId,
        /// Its session.
        session: SessionId,
        /// Why.
        error: ReapError,
    },
}

/// Listens to a node until its end of the pipe is closed, which it is when its process is dead. If it has left a session open
/// then, deletes what that session owns, or goes on trying until the session has timed out by itself. Blocks.
///
/// # Errors
/// When the node cannot be understood, or not all could be deleted in the time that the session has.
pub fn attend(node: impl BufRead) -> Result<Attended, AttendError> {
    let mut lines = node.lines();
    let Some(first) = lines.next() else { return Ok(Attended::Nothing) };
    let Line::Node { id: node, zookeeper } = serde_json::from_str(&first?)? else { return Err(AttendError::Order) };
    let coordinator = ZookeeperCoordinator::new(ZookeeperConfig::from(zookeeper))?;
    let mut holdings = None;
    for line in lines {
        let line = line?;
        match serde_json::from_str(&line) {
            Ok(Line::Farewell) => return Ok(Attended::Nothing),
            Ok(line) => hear(&mut holdings, line),
            // The node died while it wrote; what it meant to say is not known.
            Err(error) if error.is_eof() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let Some(holdings) = holdings.filter(|holdings| !holdings.znodes.is_empty()) else { return Ok(Attended::Nothing) };
    let died = Instant::now();
    let session = holdings.session;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reaped = runtime.block_on(coordinator.reap(&holdings, died + holdings.timeout));
    // A look-up of a name may hang for long.
    runtime.shutdown_background();
    match reaped {
        Ok(znodes) => Ok(Attended::Reaped { node, session, znodes, within: died.elapsed() }),
        Err(error) => Err(AttendError::Reap { node, session, error }),
    }
}

fn hear(holdings: &mut Option<Holdings>, line: Line) {
    match (line, holdings) {
        (Line::Session { id, timeout_ms }, holdings) => {
            let (session, timeout) = (SessionId(id), Duration::from_millis(timeout_ms));
            *holdings = Some(Holdings { session, timeout, znodes: BTreeSet::new() });
        }
        (Line::Ended, holdings) => *holdings = None,
        (Line::Owns(path), Some(holdings)) => {
            holdings.znodes.insert(path);
        }
        (Line::Released(path), Some(holdings)) => {
            holdings.znodes.remove(&path);
        }
        // Who the node is has been told, and without a session nothing is owned.
        (Line::Node { .. } | Line::Owns(_) | Line::Released(_) | Line::Farewell, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::Servers;
    use super::*;

    fn told(lines: &[Line]) -> Vec<u8> {
        // Nobody listens there: whatever is to be done cannot be.
        let zookeeper = Servers { servers: vec!["127.0.0.1:1".into()], chroot: None, credentials: None };
        let first = Line::Node { id: NodeId::new("a").unwrap(), zookeeper };
        let lines = std::iter::once(&first).chain(lines).map(|line| serde_json::to_string(line).unwrap() + "\n");
        lines.collect::<String>().into_bytes()
    }

    const SESSION: Line = Line::Session { id: 7, timeout_ms: 50 };

    #[test]
    fn where_nothing_is_left_there_is_nothing_to_do() {
        let owns = Line::Owns("/e/n_1".into());
        let cases: [&[Line]; 5] = [
            &[],
            &[SESSION, owns.clone(), Line::Farewell],
            &[SESSION],
            &[SESSION, owns.clone(), Line::Released("/e/n_1".into())],
            &[SESSION, owns.clone(), Line::Ended],
        ];
        for lines in cases {
            assert_eq!(attend(told(lines).as_slice()).unwrap(), Attended::Nothing, "{lines:?}");
        }
        assert_eq!(attend([].as_slice()).unwrap(), Attended::Nothing, "it died before it said a word");
        let mut cut_short = told(&[SESSION]);
        cut_short.extend(&serde_json::to_vec(&owns).unwrap()[..9]);
        assert_eq!(attend(cut_short.as_slice()).unwrap(), Attended::Nothing, "and in the middle of one");
    }

    #[test]
    fn it_gives_up_when_the_session_has_ended_by_itself() {
        let lines = told(&[SESSION, Line::Owns("/e/n_1".into())]);
        let error = attend(lines.as_slice()).unwrap_err();
        assert!(matches!(error, AttendError::Reap { error: ReapError::Late(_), .. }), "{error}");
    }

    #[test]
    fn what_is_no_node_is_told_so() {
        assert!(matches!(attend(b"hello\n".as_slice()), Err(AttendError::Line(_))));
        assert!(matches!(attend(b"\"ended\"\n".as_slice()), Err(AttendError::Order)));
    }

    #[test]
    fn a_password_is_not_shown() {
        let credentials = Some(("user".to_owned(), "secret".to_owned()));
        let zookeeper = Servers { servers: Vec::new(), chroot: None, credentials };
        assert!(!format!("{zookeeper:?}").contains("secret"));
    }
}
