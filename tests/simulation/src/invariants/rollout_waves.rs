//! A wave is no larger than its rollout's policy allows, and is admitted only when every node that was admitted before has run the
//! release well, or has gone.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let admission = world.history.rollouts.admission.as_ref();
    let Some(admission) = admission.filter(|admission| admission.step == world.step) else { return Ok(()) };
    let fits = admission.wave.len() <= usize::try_from(admission.most).unwrap_or(usize::MAX);
    if fits && admission.unsettled.is_empty() { Ok(()) } else { Err(format!("{admission:?}")) }
}
