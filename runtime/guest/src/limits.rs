//! How much a guest may use.

use std::time::Duration;

use serde::Serialize;

/// The limits of a group's guest; each holds for one instance unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Linear memory, in bytes, all memories of an instance together.
    pub memory_bytes: u64,
    /// Elements of one table.
    pub table_elements: u64,
    /// Core instances, memories and tables within one component instance, each.
    pub instances: u32,
    /// The time budget of one lifecycle callback.
    pub callback: Duration,
    /// The time budget of one task, where the sender's deadline is not shorter.
    pub task: Duration,
    /// Calls from the guest to the host within one callback or task.
    pub host_calls: u64,
    /// Bytes that one call between guest and host may copy: payloads, snapshots, values.
    pub message_bytes: u64,
    /// Bytes of log (lines of `wasi:logging`, stdout and stderr) within one callback or task; the rest is counted and dropped.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            table_elements: 100_000,
            instances: 64,
            callback: Duration::from_secs(5),
            task: Duration::from_secs(30),
            host_calls: 100_000,
            message_bytes: 64 << 20,
            log_bytes: 64 << 10,
        }
    }
}
