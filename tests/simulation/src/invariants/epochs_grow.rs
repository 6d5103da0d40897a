//! Each term that a guest hears of has a greater epoch than every term before it.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let Some((last, before)) = world.history.terms.split_last() else { return Ok(()) };
    match before.iter().find(|term| term.epoch >= last.epoch && !(term.node == last.node && term.epoch == last.epoch)) {
        Some(term) => {
            Err(format!("{} of node-{} came after {} of node-{}", last.epoch, last.node, term.epoch, term.node))
        }
        None => Ok(()),
    }
}
