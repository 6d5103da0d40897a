//! Numbered work: a leader that hands it out and counts, and workers that do each piece exactly once.
//!
//! Whatever is lost or done twice shows: each piece makes a file of its own that must not be there yet, and each batch ends with a
//! fenced write that expects exactly the version which the batch before it left.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bellwether::runtime::{cluster, state, workers};
use crate::wasi::logging::logging::{Level, log};

/// Where the leader keeps its counts.
const KEY: &str = "load";

/// What the leader has counted; a swap carries it over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Batches that ended with a write.
    pub batches: u64,
    /// Pieces handed out.
    pub issued: u64,
    /// Pieces that a worker says it has done.
    pub answered: u64,
    /// Pieces that came back with an error.
    pub failed: u64,
}

static TALLY: Mutex<Tally> = Mutex::new(Tally { batches: 0, issued: 0, answered: 0, failed: 0 });

/// The counts.
pub fn tally() -> MutexGuard<'static, Tally> {
    TALLY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// As part of a snapshot.
    pub fn words(self) -> String {
        format!("{} {} {} {}", self.batches, self.issued, self.answered, self.failed)
    }

    /// What [`Tally::words`] wrote.
    pub fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut next = || words.next()?.parse().ok();
        Some(Self { batches: next()?, issued: next()?, answered: next()?, failed: next()? })
    }
}

/// Hands `count` pieces to the members, in turn, and writes the counts down; nothing if `folder` holds a file `stop`.
pub fn batch(count: u64, timeout_ms: u32, folder: &str) -> Result<(), String> {
    let members = cluster::members();
    if members.is_empty() || std::fs::exists(format!("{folder}/stop")).unwrap_or(false) {
        return Ok(());
    }
    let mut tally = tally();
    let assignments: Vec<_> = (0..count)
        .map(|n| {
            let piece = tally.issued + n;
            let to = members[(piece % members.len() as u64) as usize].id.clone();
            workers::Assignment { to, payload: format!("once {folder} {piece}").into_bytes() }
        })
        .collect();
    for (answer, assignment) in workers::scatter(&assignments, timeout_ms).into_iter().zip(&assignments) {
        tally.issued += 1;
        match answer {
            Ok(_) => tally.answered += 1,
            Err(error) => {
                tally.failed += 1;
                let piece = String::from_utf8_lossy(&assignment.payload);
                log(Level::Error, "load", &format!("{piece} at {}: {error:?}", assignment.to));
            }
        }
    }
    let expect = match tally.batches {
        0 => state::Expectation::Absent,
        written => state::Expectation::Version(written as u32 - 1),
    };
    tally.batches += 1;
    let epoch = cluster::epoch().unwrap_or_default();
    let text = format!("{} {epoch}", tally.words());
    state::put(KEY, text.as_bytes(), expect).map(drop).map_err(|error| format!("{text:?} was not written: {error:?}"))
}

/// What a piece takes, so that a swap finds some under way.
const WORK: Duration = Duration::from_millis(5);

/// Does one piece, by making its file; an error if somebody has done it before.
pub fn once(folder: &str, piece: &str) -> Result<Vec<u8>, String> {
    std::thread::sleep(WORK);
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(format!("{folder}/{piece}"));
    match made {
        Ok(_) => Ok(piece.as_bytes().to_vec()),
        Err(error) => {
            // Told by a file as well: the leader may not hear of it.
            let _ = std::fs::write(format!("{folder}/{piece}.again"), error.to_string());
            Err(format!("piece {piece} was done before, or cannot be done: {error}"))
        }
    }
}
