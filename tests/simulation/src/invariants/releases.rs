//! A swap happens whole or not at all: another release runs only by a swap that is reported as committed.

use bellwether_core::command::{SwapOutcome, SwapRecord};

use crate::history::Handover;
use crate::world::World;

/// The last swap that was committed where a handover happened in this step.
pub(super) fn committed(world: &World, handover: &Handover) -> Option<SwapRecord> {
    let status = world.nodes[handover.node].core.as_ref()?.status(world.now);
    let swaps = status.groups.into_iter().nth(handover.group)?.swaps;
    // A process that stood still may have ended another one in the same step.
    swaps.into_iter().rev().find(|record| matches!(record.outcome, SwapOutcome::Committed { .. }))
}

pub(super) fn check(world: &World) -> Result<(), String> {
    let Some(handover) = world.history.handover.as_ref().filter(|handover| handover.step == world.step) else {
        return Ok(());
    };
    match committed(world, handover).map(|record| record.outcome) {
        Some(SwapOutcome::Committed { to, .. }) if to == handover.release => Ok(()),
        other => Err(format!("node-{} runs {}; the last swap is {other:?}", handover.node, handover.release)),
    }
}
