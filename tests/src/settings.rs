//! What the environment says about the tests; `TRAPS.md` has the list.

use anyhow::{Context, Result};

/// A number from the environment.
///
/// # Errors
/// When it is none.
pub fn setting(name: &str, otherwise: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
        Err(_) => Ok(otherwise),
    }
}
