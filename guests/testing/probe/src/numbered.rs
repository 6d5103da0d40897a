//! Numbered work that outlives its leader: each batch of numbers is reserved by a fenced write before it is handed out, so that a
//! successor goes on behind it. What a leader had in hand when it died is one batch at most.

use crate::bellwether::runtime::{cluster, state, workers};
use crate::wasi::logging::logging::{Level, log};

/// Where the next number that nobody has reserved stands.
const KEY: &str = "next";

fn complain(what: &str) {
    log(Level::Error, "numbered", what);
}

/// Reserves `count` numbers and hands them to the members, in turn; nothing if `folder` holds a file `stop`. What fails is logged.
pub fn work(count: u64, timeout_ms: u32, folder: &str) {
    let members = cluster::members();
    if members.is_empty() || std::fs::exists(format!("{folder}/stop")).unwrap_or(false) {
        return;
    }
    let (next, expect) = match state::get(KEY) {
        Ok(None) => (0, state::Expectation::Absent),
        Ok(Some(entry)) => match String::from_utf8_lossy(&entry.value).parse::<u64>() {
            Ok(next) => (next, state::Expectation::Version(entry.version)),
            Err(error) => return complain(&format!("the next number cannot be read: {error}")),
        },
        Err(error) => return complain(&format!("the next number cannot be had: {error:?}")),
    };
    if let Err(error) = state::put(KEY, (next + count).to_string().as_bytes(), expect) {
        return complain(&format!("{next} and more were not reserved: {error:?}"));
    }
    let assignments: Vec<_> = (next..next + count)
        .map(|piece| {
            let to = members[(piece % members.len() as u64) as usize].id.clone();
            workers::Assignment { to, payload: format!("once {folder} {piece}").into_bytes() }
        })
        .collect();
    for (answer, assignment) in workers::scatter(&assignments, timeout_ms).into_iter().zip(&assignments) {
        if let Err(error) = answer {
            let piece = String::from_utf8_lossy(&assignment.payload);
            complain(&format!("{piece} at {}: {error:?}", assignment.to));
        }
    }
}
