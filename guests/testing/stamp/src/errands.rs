//! What a leader sends its workers, and how long that took.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::bellwether::runtime::{cluster, workers};
use crate::wasi::config::store;
use crate::wasi::logging::logging::{Level, log};

/// How many of the orders have been carried out.
static DONE: Mutex<usize> = Mutex::new(0);

/// So long a piece may take.
const TIMEOUT_MS: u32 = 30_000;

/// Carries out the next order of the configuration's `errands`, words of the form `BYTES/WORKERS/PIECES/TIMES`: so many times, hands out
/// so many pieces of so many bytes to so many workers, and waits for the answers. Then it says how long that took, in
/// nanoseconds: `ORDER TOTAL P50 P99`. While there are too few workers, nothing is done.
pub fn next() -> Result<(), String> {
    let Ok(Some(orders)) = store::get("errands") else { return Ok(()) };
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(order) = orders.split_whitespace().nth(*done) else { return Ok(()) };
    let numbers: Vec<usize> = order.split('/').filter_map(|number| number.parse().ok()).collect();
    let [bytes, workers, pieces, times] = numbers[..] else { return Err(format!("{order:?} is no order")) };
    let members = cluster::members();
    if members.len() < workers {
        return Ok(());
    }
    let piece = |n: usize| workers::Assignment { to: members[n % workers].id.clone(), payload: vec![7; bytes] };
    let assignments: Vec<_> = (0..pieces).map(piece).collect();
    let mut took = Vec::with_capacity(times);
    let began = Instant::now();
    for _ in 0..times {
        let began = Instant::now();
        let answers = match &assignments[..] {
            [one] => vec![workers::send(&one.to, &one.payload, TIMEOUT_MS)],
            many => workers::scatter(many, TIMEOUT_MS),
        };
        took.push(began.elapsed());
        for answer in answers {
            let answer = answer.map_err(|error| format!("{order}: {error:?}"))?;
            if answer.len() != bytes {
                return Err(format!("{order}: an answer of {} bytes", answer.len()));
            }
        }
    }
    let total = began.elapsed();
    took.sort_unstable();
    let at = |percent: usize| took.get((took.len() * percent).div_ceil(100).max(1) - 1).map_or(0, |one| one.as_nanos());
    *done += 1;
    log(Level::Info, "errand", &format!("{order} {} {} {}", total.as_nanos(), at(50), at(99)));
    Ok(())
}
