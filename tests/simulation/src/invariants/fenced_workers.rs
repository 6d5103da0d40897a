//! The epochs of the tasks that one worker accepts never go down.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let Some((worker, incarnation, last)) = world.history.tasks.last() else { return Ok(()) };
    let before =
        world.history.tasks.iter().rev().skip(1).find(|(other, process, _)| other == worker && process == incarnation);
    match before {
        Some((_, _, before)) if before > last => {
            Err(format!("node-{worker} accepted a task of {last} after one of {before}"))
        }
        _ => Ok(()),
    }
}
