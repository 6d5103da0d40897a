//! A swap loses nothing: the new instance was given the state of the old one as it stood when it took over. When a node goes back
//! to the release before, that one is given what it had handed over itself, and not what the failed one made of it; so too when the
//! whole group goes back, and what runs cannot hand over what the release before takes.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let handover = world.history.handover.as_ref();
    let Some(handover) = handover.filter(|handover| handover.step == world.step && world.profile.handover) else {
        return Ok(());
    };
    let record = super::releases::committed(world, handover);
    let as_given = handover.new.is_none() || handover.new == handover.given;
    // An instance that has just replaced one that failed has nothing to hand over yet.
    let as_it_stood = handover.old.is_none_or(|old| handover.new.unwrap_or_default() == old);
    let fine = match record.is_some_and(|record| record.rollback) {
        true => as_given,
        false => as_it_stood || handover.otherwise && as_given,
    };
    if fine { Ok(()) } else { Err(format!("node-{}: {handover:?}", handover.node)) }
}
