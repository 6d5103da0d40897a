//! What took effect, one event each at the target `bellwether::effects` (level debug): when guests were told that they lead and
//! that they do not, which of a leader's writes were accepted, and which of its tasks a worker took. All stamps are of
//! `CLOCK_BOOTTIME`, so that those of several processes on one machine can be compared. The tests check the promises by these.

use bellwether_core::id::{Epoch, InstanceId};

use crate::clock;
use crate::lines;
use crate::shared::GroupShared;

fn now_ns() -> u64 {
    u64::try_from(clock::now().since_boot().as_nanos()).unwrap_or(u64::MAX)
}

macro_rules! effect {
    ($group:expr, $epoch:expr, $effect:expr $(, $name:ident = $value:expr)*) => {
        if lines::debugging() {
            let (this, group, epoch, at_ns) = ($group.this.clone(), $group.name.clone(), $epoch.0, now_ns());
            lines::make(1, move || {
                tracing::debug!(
                    target: "bellwether::effects",
                    node = this.id.as_str(),
                    group = group.as_str(),
                    epoch,
                    at_ns,
                    effect = $effect
                    $(, $name = $value)*
                )
            });
        }
    };
}

/// A callback about leadership is entered or left, or an instance that was told that it leads is stopped.
pub(crate) fn callback(group: &GroupShared, instance: InstanceId, epoch: Epoch, effect: &'static str) {
    effect!(group, epoch, effect, instance = instance.0);
}

/// A fenced write was accepted; `version` is what it left of the key, none if it deleted it. Versions of one key tell the order in
/// which writes took effect, whenever their answers arrived.
pub(crate) fn write(group: &GroupShared, epoch: Epoch, key: &str, version: Option<u32>) {
    let key = key.to_owned();
    effect!(group, epoch, "write-accepted", key = key, version = version);
}

/// A worker has taken a task. To be called under the lock of the fence, so that the stamps are in the order of acceptance.
pub(crate) fn task(group: &GroupShared, epoch: Epoch) {
    effect!(group, epoch, "task-accepted");
}
