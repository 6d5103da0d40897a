//! Where lines of the log are made. Making one takes longer than most of what it tells of, and whoever has just woken another thread
//! should not hold it up by that: so the program may have them made elsewhere, in the order in which they were asked for.

use std::sync::OnceLock;

/// Makes some lines.
pub type Making = Box<dyn FnOnce() + Send>;

static ELSEWHERE: OnceLock<Box<dyn Fn(Making) + Send + Sync>> = OnceLock::new();

/// From now on, `elsewhere` is given what makes lines. It must not wait. Only the first call counts.
pub fn make_lines_elsewhere(elsewhere: impl Fn(Making) + Send + Sync + 'static) {
    // A process has one log.
    let _ = ELSEWHERE.set(Box::new(elsewhere));
}

/// Has lines made: elsewhere if that was set, otherwise here and now.
pub(crate) fn make(making: impl FnOnce() + Send + 'static) {
    match ELSEWHERE.get() {
        Some(elsewhere) => elsewhere(Box::new(making)),
        None => making(),
    }
}
