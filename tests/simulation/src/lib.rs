//! A cluster in one value: the production core of several nodes, a model of ZooKeeper, a virtual clock and a seeded source of
//! everything that can go wrong. The same seed gives the same run, step by step.
//!
//! What is real: all of `bellwether-core`. What is modelled: the coordinator (`bellwether_coordination::memory::Server`, behind
//! followers that lag or are cut off, [`ensemble`]), the client library's view of its session ([`client`]) and the wires between
//! them ([`wire`]), guests ([`guests`]) and what they do ([`effects`]), and the clock. What must hold is in [`invariants`], one
//! file each, and is checked after every step. `explore` goes through every order of events of a small cluster instead
//! of one order a seed.

pub mod client;
pub mod effects;
pub mod ensemble;
pub mod explore;
pub mod faults;
pub mod guests;
pub mod history;
pub mod invariants;
pub mod node;
pub mod options;
pub mod rollouts;
pub mod wire;
pub mod world;

pub use options::{Missing, Options, Violation};
pub use world::World;

/// Runs one seed to its end.
///
/// # Errors
/// The first invariant that did not hold, with the seed and the step.
pub fn run(seed: u64, options: Options) -> Result<World, Violation> {
    let mut world = World::new(seed, options);
    world.run()?;
    Ok(world)
}
