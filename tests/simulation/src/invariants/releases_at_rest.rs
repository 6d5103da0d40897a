//! At rest no rollout is under way, and every node runs what its group's document says, knows that document, and says so.

use bellwether_core::id::NodeId;

use crate::guests::release;
use crate::node::group_name;
use crate::rollouts::content;
use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for group in 0..world.profile.groups {
        let document = world.document(group).ok_or_else(|| format!("g{group} has no document"))?;
        if let Some(rollout) = &document.rollout {
            return Err(format!("release {} of g{group} is still {}", rollout.to.number, rollout.phase.name()));
        }
        let number = document.current.as_ref().map(|current| current.number);
        for (index, node) in world.nodes.iter().enumerate() {
            let status = node.core.as_ref().map(|core| core.status(world.now));
            let Some(status) = status.and_then(|status| status.groups.into_iter().nth(group)) else { continue };
            if status.document.as_deref() != Some(&document) {
                return Err(format!("node-{index} knows {:?} instead of {document:?}", status.document));
            }
            let runs = node.groups[group].running.as_ref();
            let right = document.current.as_ref().is_none_or(|current| runs == Some(&release(content(current))));
            if status.deployed != number || !right {
                return Err(format!(
                    "node-{index} runs {:?} ({runs:?}) in {} instead of {number:?}",
                    status.deployed,
                    group_name(group)
                ));
            }
            if document.deployed()
                && let Ok(id) = NodeId::new(format!("node-{index}"))
                && let report = world.reported(group, &id)
                && !report.as_ref().is_some_and(|report| report.settled(number))
            {
                return Err(format!("node-{index} reports {report:?} in g{group} instead of {number:?}"));
            }
        }
    }
    Ok(())
}
