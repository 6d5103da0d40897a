//! What the environment says about the tests; `TRAPS.md` has the list.

use std::str::FromStr;

use anyhow::{Result, bail};

/// A number from the environment.
///
/// # Errors
/// When it is none.
pub fn setting<T: FromStr>(name: &str, otherwise: T) -> Result<T> {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => bail!("{name}={text} is not a number: give one, or leave the variable out"),
        },
        Err(_) => Ok(otherwise),
    }
}
