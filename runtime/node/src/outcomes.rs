//! How the tasks of a new release end, told to the core while the release is on probation.

use std::time::Duration;

use bellwether_core::event::Event;
use bellwether_core::id::{GroupName, ReleaseId};
use bellwether_core::work::Outcomes;
use tokio::sync::{mpsc, watch};

/// What ends within this time is told at once: at most ten events a second, whatever the number of tasks.
const BATCH: Duration = Duration::from_millis(100);

/// Tells the core of the tasks that a pool counts, for as long as a probation lasts or the pool exists: this must not keep it.
pub(crate) async fn report(
    mailbox: mpsc::Sender<Event>,
    group: GroupName,
    release: ReleaseId,
    mut counted: watch::Receiver<Outcomes>,
    lasts: Duration,
) {
    let telling = async {
        while counted.changed().await.is_ok() {
            tokio::time::sleep(BATCH).await;
            let outcomes = *counted.borrow_and_update();
            let event = Event::TasksEnded { group: group.clone(), release: release.clone(), outcomes };
            if mailbox.send(event).await.is_err() {
                return;
            }
        }
    };
    // The core keeps the time of the probation; this only ends the reports.
    let _ = tokio::time::timeout(lasts + BATCH, telling).await;
}
