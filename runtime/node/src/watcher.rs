//! Swaps a group's release when its component's file changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bellwether_core::id::GroupName;
use bellwether_source::Reference;
use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::control::NodeControl;

/// A file is taken when it has been left alone for so long: a linker writes in pieces.
const SETTLED: Duration = Duration::from_millis(250);

/// Watches `file`, until it is aborted; when it changes, the group swaps to what is then in `component`.
pub(crate) fn watch(
    control: Arc<NodeControl>,
    group: GroupName,
    file: PathBuf,
    component: Reference,
) -> Result<JoinHandle<()>, notify::Error> {
    let changed = Arc::new(Notify::new());
    let notify = changed.clone();
    let name = file.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let ours = |event: &notify::Event| event.paths.iter().any(|path| path.file_name() == name.as_deref());
        if event.is_ok_and(|event| !event.kind.is_access() && ours(&event)) {
            notify.notify_one();
        }
    })?;
    // The folder, not the file: most tools put a new file in the place of the old one.
    let folder = file.parent().map(PathBuf::from).unwrap_or_default();
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(tokio::spawn(async move {
        let _watcher = watcher;
        loop {
            changed.notified().await;
            while tokio::time::timeout(SETTLED, changed.notified()).await.is_ok() {}
            if !file.exists() {
                continue;
            }
            tracing::info!(node = %control.id, %group, file = %file.display(), "the component's file has changed");
            // An outcome is logged and kept by the core; what it would not even try has to be said here.
            if let Err(error) = control.swap_to(&group, &component).await {
                tracing::warn!(node = %control.id, %group, file = %file.display(), "not swapped: {error}");
            }
        }
    }))
}
