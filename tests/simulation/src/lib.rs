//! A cluster in one value: the production core of several nodes, a model of ZooKeeper, a virtual clock and a seeded source of
//! everything that can go wrong. The same seed gives the same run, step by step.
//!
//! What is real: all of `bellwether-core`. What is modelled: the coordinator (`bellwether_coordination::memory::Server`), the
//! client library's view of its session ([`client`]), guests ([`guest`]) and the clock. What must hold is in [`invariants`], one
//! file each, and is checked after every step.

pub mod client;
pub mod faults;
pub mod guest;
pub mod history;
pub mod invariants;
pub mod world;

pub use world::{Options, Violation, World};

/// Runs one seed to its end.
///
/// # Errors
/// The first invariant that did not hold, with the seed and the step.
pub fn run(seed: u64, options: Options) -> Result<World, Violation> {
    let mut world = World::new(seed, options);
    world.run()?;
    Ok(world)
}
