//! A worker accepts no task of an older epoch than it has accepted or was told of; what its fence has seen never goes down.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    if let Some(task) = &world.history.task
        && let Some(seen) = task.seen.filter(|seen| *seen > task.epoch)
    {
        return Err(format!("node-{} accepted a task of {} after {seen}", task.worker.0, task.epoch));
    }
    for (index, node) in world.nodes.iter().enumerate() {
        for (group, side) in node.groups.iter().enumerate() {
            let seen = world.history.seen.get(&(world.process(index), group)).copied();
            if side.fence.seen() < seen {
                return Err(format!("the fence of node-{index} fell from {seen:?} to {:?}", side.fence.seen()));
            }
        }
    }
    Ok(())
}
