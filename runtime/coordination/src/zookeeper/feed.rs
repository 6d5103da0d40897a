//! The state of the connection, as a value that misses nothing: a disconnect that is over before anybody looked still counts.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use zookeeper_client::{Client, SessionState, StateWatcher};

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: SessionState,
    /// How often the connection was lost so far.
    pub(super) losses: u64,
}

/// Follows a client's state. The library's own watcher shows only the last state, so it is read by a task that does nothing
/// else.
pub(super) struct Feed {
    standing: watch::Receiver<Standing>,
    watcher: StateWatcher,
    task: JoinHandle<()>,
}

impl Feed {
    pub(super) fn new(client: &Client) -> Self {
        let mut watcher = client.state_watcher();
        let state = watcher.state();
        let losses = u64::from(!is_connected(state));
        let (sender, standing) = watch::channel(Standing { state, losses });
        let own = watcher.clone();
        let task = tokio::spawn(async move {
            let mut state = state;
            while !state.is_terminated() {
                state = watcher.changed().await;
                sender.send_modify(|standing| {
                    standing.state = state;
                    standing.losses += u64::from(state == SessionState::Disconnected);
                });
            }
        });
        Self { standing, watcher: own, task }
    }

    /// The next standing; waits for ever after the last one.
    pub(super) async fn changed(&mut self) -> Standing {
        if self.standing.changed().await.is_err() {
            return std::future::pending().await;
        }
        *self.standing.borrow_and_update()
    }

    /// The state as the library has it, which may be ahead.
    pub(super) fn peek(&self) -> SessionState {
        self.watcher.peek_state()
    }

    /// The standing so far.
    pub(super) fn now(&mut self) -> Standing {
        *self.standing.borrow_and_update()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn is_connected(state: SessionState) -> bool {
    state == SessionState::SyncConnected
}
