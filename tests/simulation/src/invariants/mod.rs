//! What must hold: one invariant a file.

mod demotion_first;
mod epochs_grow;
mod fenced_workers;
mod fenced_writes;
mod members_at_rest;
mod one_leader_at_rest;

use crate::world::World;

/// What must hold after every step.
///
/// # Errors
/// What does not.
pub fn always(world: &World) -> Result<(), String> {
    fenced_writes::check(world)?;
    fenced_workers::check(world)?;
    epochs_grow::check(world)?;
    demotion_first::check(world)
}

/// What must hold when everything was mended some time ago.
///
/// # Errors
/// What does not.
pub fn at_rest(world: &World) -> Result<(), String> {
    one_leader_at_rest::check(world)?;
    members_at_rest::check(world)
}
