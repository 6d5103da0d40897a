//! No guest enters `on-elected` before the guest of the term before has left `on-demoted` or was stopped, unless that one's
//! process stood still, or an operator took its znode away. Not even then does its gate stay open beyond its lease.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let Some((last, before)) = world.history.terms.split_last() else { return Ok(()) };
    if last.from != world.now {
        return Ok(());
    }
    for term in before {
        let over = term.until.is_some_and(|until| until <= last.from);
        if !over && !term.paused && !term.tampered {
            return Err(format!(
                "node-{} was told of {} while the guest of node-{} still believed in {}",
                last.node, last.epoch, term.node, term.epoch
            ));
        }
        if !over && !term.tampered && term.node != last.node && world.gate(term.node) == Some(term.epoch) {
            return Err(format!(
                "the gate of node-{} is open in {} while node-{} leads",
                term.node, term.epoch, last.node
            ));
        }
    }
    Ok(())
}
