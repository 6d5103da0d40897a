//! A swap happens whole or not at all: another release runs only by a swap that is reported as committed.

use bellwether_core::command::SwapOutcome;

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let Some(handover) = world.history.handover.as_ref().filter(|handover| handover.step == world.step) else {
        return Ok(());
    };
    let status = world.nodes[handover.node].core.as_ref().map(|core| core.status(world.now));
    let Some(record) = status.and_then(|mut status| status.groups.swap_remove(handover.group).swaps.pop()) else {
        return Err(format!("node-{} runs another release without a swap", handover.node));
    };
    match &record.outcome {
        SwapOutcome::Committed { to, .. } if *to == handover.release => Ok(()),
        other => Err(format!("node-{} runs {} after a swap that ended as {other:?}", handover.node, handover.release)),
    }
}
