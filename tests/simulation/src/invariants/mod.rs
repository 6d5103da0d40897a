//! What must hold: one invariant a file.

mod calls;
mod demotion_first;
mod epochs_grow;
mod fenced_workers;
mod fenced_writes;
mod gate_within_lease;
mod handover;
mod members_at_rest;
mod never_gives_up;
mod one_gate;
mod one_leader_at_rest;
mod releases;
mod releases_at_rest;
mod rollout_admits;
mod rollout_fenced;
mod rollout_waves;
mod stops_in_time;
mod watches_at_rest;
mod znodes_at_rest;

use crate::world::World;

/// The name of an invariant, and what was found instead.
pub type Broken = (&'static str, String);

type Check = fn(&World) -> Result<(), String>;

const ALWAYS: [(&str, Check); 14] = [
    ("fenced_writes", fenced_writes::check),
    ("fenced_workers", fenced_workers::check),
    ("epochs_grow", epochs_grow::check),
    ("demotion_first", demotion_first::check),
    ("one_gate", one_gate::check),
    ("gate_within_lease", gate_within_lease::check),
    ("calls", calls::check),
    ("handover", handover::check),
    ("releases", releases::check),
    ("rollout_admits", rollout_admits::check),
    ("rollout_waves", rollout_waves::check),
    ("rollout_fenced", rollout_fenced::check),
    ("stops_in_time", stops_in_time::check),
    ("never_gives_up", never_gives_up::check),
];

const AT_REST: [(&str, Check); 5] = [
    ("one_leader_at_rest", one_leader_at_rest::check),
    ("members_at_rest", members_at_rest::check),
    ("znodes_at_rest", znodes_at_rest::check),
    ("watches_at_rest", watches_at_rest::check),
    ("releases_at_rest", releases_at_rest::check),
];

fn all(checks: &[(&'static str, Check)], world: &World) -> Result<(), Broken> {
    let mut checks = checks.iter().filter(|(name, _)| world.options.unchecked != Some(name));
    checks.try_for_each(|(name, check)| check(world).map_err(|what| (*name, what)))
}

/// What must hold after every step.
///
/// # Errors
/// What does not.
pub fn always(world: &World) -> Result<(), Broken> {
    all(&ALWAYS, world)
}

/// What must hold when everything was mended some time ago.
///
/// # Errors
/// What does not.
pub fn at_rest(world: &World) -> Result<(), Broken> {
    all(&AT_REST, world)
}
