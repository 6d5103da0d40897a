//! Real faults on real processes, on one ZooKeeper server: each scenario ends at rest, and the history of all effects is judged.

#![allow(clippy::print_stdout, reason = "figures are printed and not asserted")]

#[path = "faults/bed.rs"]
mod bed;
#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/counter.rs"]
mod counter;
#[path = "faults/links.rs"]
mod links;
#[path = "faults/members.rs"]
mod members;
#[path = "faults/operator.rs"]
mod operator;
#[path = "faults/processes.rs"]
mod processes;
#[path = "faults/races.rs"]
mod races;
#[path = "faults/random.rs"]
mod random;
#[path = "faults/reaper.rs"]
mod reaper;
#[path = "faults/replies.rs"]
mod replies;
