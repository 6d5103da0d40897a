//! What processes need now, and must not be taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};

use super::StoreError;
use super::files::{Locked, read_bounded, remove_if_left};
use crate::digest::Digest;

/// The longest list of one process.
const MAX_LIST: u64 = 1 << 20;

/// What this process needs, also written down for others to see.
#[derive(Debug)]
pub(super) struct Pins {
    store: PathBuf,
    path: PathBuf,
    needed: Mutex<BTreeMap<(Digest, String), usize>>,
    /// Locked: whoever can lock it knows that its process is gone.
    file: Mutex<File>,
}

/// Says that a component is needed for as long as it lives.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    key: (Digest, String),
}

impl Pins {
    pub fn new(store: &Path) -> Result<Arc<Self>, StoreError> {
        let folder = store.join("users");
        let failed = |error: std::io::Error| StoreError::new(&folder, format!("cannot be written: {error}"));
        let _lock = Locked::take(store)?;
        // A number for each store of this process, as a process may have several.
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let pid = std::process::id();
        loop {
            let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = folder.join(format!("{pid}-{number}"));
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = open.map_err(failed)?;
            // Taken only by another process of the same id, in a container of its own.
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                file.set_len(0).map_err(failed)?;
                let (needed, file) = (Mutex::default(), Mutex::new(file));
                return Ok(Arc::new(Self { store: store.to_owned(), path, needed, file }));
            }
        }
    }

    pub fn pin(self: &Arc<Self>, digest: Digest, group: &str) -> Pin {
        let key = (digest, group.to_owned());
        *self.needed().entry(key.clone()).or_default() += 1;
        if let Err(error) = self.write_down() {
            tracing::warn!(%error, "what this node needs could not be written down for other processes");
        }
        Pin { pins: self.clone(), key }
    }

    fn needed(&self) -> MutexGuard<'_, BTreeMap<(Digest, String), usize>> {
        self.needed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn holds(&self, digest: &Digest, group: &str) -> bool {
        self.needed().contains_key(&(*digest, group.to_owned()))
    }

    /// Whether this process needs a component for anything.
    pub fn needs(&self, digest: &Digest) -> bool {
        self.needed().keys().any(|(needed, _)| needed == digest)
    }

    fn write_down(&self) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::new(&self.path, format!("cannot be written: {error}"));
        let _lock = Locked::take(&self.store)?;
        let digests: BTreeSet<Digest> = self.needed().keys().map(|(digest, _)| *digest).collect();
        let text: String = digests.iter().map(|digest| format!("{}\n", digest.hex())).collect();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes())).map_err(failed)
    }

    /// What other processes need. The store's lock is held.
    pub fn others(&self) -> BTreeSet<Digest> {
        let mut needed = BTreeSet::new();
        for entry in fs::read_dir(self.store.join("users")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path == self.path || remove_if_left(&path) {
                continue;
            }
            let text = read_bounded(&path, MAX_LIST).ok().flatten().unwrap_or_default();
            needed.extend(String::from_utf8_lossy(&text).lines().filter_map(|line| Digest::from_hex(line).ok()));
        }
        needed
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for Pin {
    /// Without a file: this may happen where nothing may wait. What is written down then says more than is needed, until the next
    /// pin.
    fn drop(&mut self) {
        let mut needed = self.pins.needed();
        if let Some(count) = needed.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                needed.remove(&self.key);
            }
        }
    }
}
