//! Where lines of the log are made. Making one takes longer than most of what it tells of, and whoever has just woken another thread
//! should not hold it up by that: so the program may have them made elsewhere, in the order in which they were asked for.

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;

/// What makes some lines.
pub struct Making {
    /// How many.
    pub lines: usize,
    /// Makes them.
    pub make: Box<dyn FnOnce() + Send>,
}

static ELSEWHERE: OnceLock<Box<dyn Fn(Making) + Send + Sync>> = OnceLock::new();

/// From now on, `elsewhere` is given what makes lines. It must not wait. Only the first call counts.
pub fn make_lines_elsewhere(elsewhere: impl Fn(Making) + Send + Sync + 'static) {
    // A process has one log.
    let _ = ELSEWHERE.set(Box::new(elsewhere));
}

/// Has so many lines made: elsewhere if that was set, otherwise here and now. What waits to be made is to be short.
pub(crate) fn make(lines: usize, make: impl FnOnce() + Send + 'static) {
    match ELSEWHERE.get() {
        Some(elsewhere) => elsewhere(Making { lines, make: Box::new(make) }),
        None => make(),
    }
}

/// Whether anybody may hear of what is only said for debugging.
pub(crate) fn debugging() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
}
