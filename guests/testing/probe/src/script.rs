//! Orders from a file, so that a test can give them one after the other: each line is carried out once, in order, and what came
//! of it is logged as `N: result`.

use std::sync::Mutex;

use crate::orders::act;
use crate::wasi::logging::logging::{Level, log};

static DONE: Mutex<usize> = Mutex::new(0);

/// Carries out the lines of `file` that have not been yet.
pub fn run(file: &str) -> Result<Vec<u8>, String> {
    let Ok(text) = std::fs::read_to_string(file) else { return Ok(Vec::new()) };
    // The last line may still be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut done = DONE.lock().map_err(|error| error.to_string())?;
    for order in whole.lines().skip(*done) {
        *done += 1;
        let result = act(order).map(|answer| String::from_utf8_lossy(&answer).into_owned());
        log(Level::Info, "script", &format!("{}: {}", *done, result.unwrap_or_else(|error| format!("error {error}"))));
    }
    Ok(Vec::new())
}
