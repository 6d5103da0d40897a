//! Making room, and looking at what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::files::{ASIDE, Locked, remove_if_left};
use super::{Store, StoreError};
use crate::digest::Digest;

/// A component in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last used, in seconds since 1970.
    pub used: u64,
    /// Whether a process that runs needs it.
    pub needed: bool,
    /// The references that stood for it when they were last resolved.
    pub references: Vec<String>,
    /// The ids of the keys whose signatures came with it.
    pub signed_by: Vec<String>,
}

/// What was taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// The components.
    pub removed: Vec<Digest>,
    /// Their bytes, and those of what was left behind.
    pub bytes: u64,
}

/// A damaged component, which was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The digest that it should have had.
    pub digest: Digest,
    /// The digest that it had.
    pub found: Digest,
}

struct Kept {
    digest: Digest,
    size: u64,
    used: SystemTime,
}

impl Store {
    fn kept(&self) -> Vec<Kept> {
        let entries = fs::read_dir(self.components()).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let digest = Digest::from_hex(entry.file_name().to_str()?).ok()?;
                let meta = entry.metadata().ok()?;
                Some(Kept { digest, size: meta.len(), used: meta.modified().unwrap_or(UNIX_EPOCH) })
            })
            .collect()
    }

    fn remove(&self, digest: &Digest) -> bool {
        let _ = fs::remove_file(self.signatures_path(digest));
        fs::remove_file(self.path(digest)).is_ok()
    }

    /// Takes away what processes left behind that died while they wrote.
    pub(super) fn sweep(&self, _: &Locked) -> u64 {
        let mut bytes = 0;
        for folder in [self.components(), self.0.folder.join("last")] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().as_encoded_bytes().starts_with(ASIDE.as_bytes()) {
                    let size = entry.metadata().map_or(0, |meta| meta.len());
                    if remove_if_left(&entry.path()) {
                        bytes += size;
                    }
                }
            }
        }
        self.0.pins.others();
        bytes
    }

    /// Takes away what was not used for longest, until what is left is within the limit. `newest` stays, and what is needed.
    pub(super) fn make_room(&self, _: &Locked, newest: Option<&Digest>) -> Cleaned {
        let mut kept = self.kept();
        let mut total: u64 = kept.iter().map(|kept| kept.size).sum();
        let mut cleaned = Cleaned::default();
        if total <= self.0.limit {
            return cleaned;
        }
        let others = self.0.pins.others();
        let last: BTreeSet<Digest> = self.records().into_iter().map(|(_, record)| record.digest).collect();
        // A node that starts without its registry needs what the references stood for: that goes last.
        kept.sort_by_key(|kept| (last.contains(&kept.digest), kept.used, kept.digest));
        for Kept { digest, size, .. } in kept {
            if total <= self.0.limit {
                return cleaned;
            }
            let needed = newest == Some(&digest) || others.contains(&digest) || self.0.pins.needs(&digest);
            if !needed && self.remove(&digest) {
                total -= size;
                cleaned.bytes += size;
                cleaned.removed.push(digest);
            }
        }
        if total > self.0.limit {
            let limit = self.0.limit;
            tracing::warn!(total, limit, "what is needed now is more than the store may keep; raise `[store] max`");
        }
        cleaned
    }

    /// Takes away every component that no running process needs and no reference stood for last.
    ///
    /// # Errors
    /// When the store cannot be locked.
    pub fn clean(&self) -> Result<Cleaned, StoreError> {
        let lock = self.lock()?;
        let mut cleaned = Cleaned { bytes: self.sweep(&lock), ..Cleaned::default() };
        let others = self.0.pins.others();
        let last: BTreeSet<Digest> = self.records().into_iter().map(|(_, record)| record.digest).collect();
        for Kept { digest, size, .. } in self.kept() {
            let keep = last.contains(&digest) || others.contains(&digest) || self.0.pins.needs(&digest);
            if !keep && self.remove(&digest) {
                cleaned.bytes += size;
                cleaned.removed.push(digest);
            }
        }
        let more = self.make_room(&lock, None);
        cleaned.bytes += more.bytes;
        cleaned.removed.extend(more.removed);
        Ok(cleaned)
    }

    /// What is there, by digest.
    ///
    /// # Errors
    /// When the store cannot be locked.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let _lock = self.lock()?;
        let others = self.0.pins.others();
        let mut references: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for (_, record) in self.records() {
            references.entry(record.digest).or_default().push(record.reference);
        }
        let mut entries: Vec<Entry> = self
            .kept()
            .into_iter()
            .map(|Kept { digest, size, used }| {
                let mut references = references.remove(&digest).unwrap_or_default();
                references.sort();
                let signatures = self.signatures(&digest);
                Entry {
                    needed: others.contains(&digest) || self.0.pins.needs(&digest),
                    signed_by: signatures.iter().map(|signature| signature.key.to_string()).collect(),
                    used: used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                    digest,
                    size,
                    references,
                }
            })
            .collect();
        entries.sort_by_key(|entry| entry.digest);
        Ok(entries)
    }

    /// Compares every component with its digest, and takes away what is damaged.
    ///
    /// # Errors
    /// When a component cannot be read.
    pub fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        let mut damages = Vec::new();
        for Kept { digest, .. } in self.kept() {
            let path: PathBuf = self.path(&digest);
            // One at a time, and without the lock: this may take long.
            let bytes = fs::read(&path).map_err(|error| StoreError::new(&path, error))?;
            let found = Digest::of(&bytes);
            if found != digest {
                let _lock = self.lock()?;
                self.remove(&digest);
                damages.push(Damage { digest, found });
            }
        }
        damages.sort_by_key(|damage| damage.digest);
        Ok(damages)
    }
}
