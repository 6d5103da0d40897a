//! The components of a node, kept by their digests.
//!
//! ```text
//! <store>/lock              held while something is taken out, put in place or counted
//! <store>/sha256/<hex>      a component; written aside, synced and renamed, so that it is whole or not there
//! <store>/sha256/<hex>.sig  the signatures that came with it
//! <store>/last/<hex>.json   what a reference stood for when it was last resolved
//! <store>/users/<id>        the digests that a process needs now; locked for as long as it lives
//! ```
//!
//! A component is compared with its digest when it is put in and whenever it is taken out. The store is bounded: what was
//! not used for longest goes first, what references stood for last after that, and never what a process says that it needs.

mod files;
mod pins;
mod room;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::reference::Reference;
use crate::signature::{self, Signature};

pub use self::pins::Pin;
pub use self::room::{Cleaned, Damage, Entry};

use self::files::{Locked, read_bounded, replace};
use self::pins::Pins;

/// References of which it is known what they stood for last.
const MAX_RECORDS: usize = 256;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the store of components {}: {reason}", path.display())]
pub struct StoreError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl StoreError {
    fn new(path: &Path, reason: impl ToString) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// What a reference stood for when it was last resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The reference, for people.
    pub reference: String,
    /// The component's digest.
    pub digest: Digest,
    /// What it was resolved to, for people: the image by its digest.
    pub resolved: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// The store of one node. Cheap to clone. Its calls block: call them where that is allowed.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    limit: u64,
    pins: Arc<Pins>,
}

impl Store {
    /// Opens the store in `folder`, making it if need be, for this user alone; it keeps at most `limit` bytes, unless more is
    /// needed at the same time. What was left behind by processes that died is taken away.
    ///
    /// # Errors
    /// When the folder cannot be used, or others can write to it.
    pub fn open(folder: &Path, limit: u64) -> Result<Self, StoreError> {
        for part in ["", "sha256", "last", "users"] {
            files::private(&folder.join(part))?;
        }
        let pins = Pins::new(folder)?;
        let store = Self(Arc::new(Inner { folder: folder.to_owned(), limit, pins }));
        let lock = store.lock()?;
        store.sweep(&lock);
        Ok(store)
    }

    fn lock(&self) -> Result<Locked, StoreError> {
        Locked::take(&self.0.folder)
    }

    fn components(&self) -> PathBuf {
        self.0.folder.join("sha256")
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.components().join(digest.hex())
    }

    fn signatures_path(&self, digest: &Digest) -> PathBuf {
        self.components().join(format!("{}.sig", digest.hex()))
    }

    fn record_path(&self, reference: &Reference) -> PathBuf {
        let name = Digest::of(reference.text().as_bytes()).hex();
        self.0.folder.join("last").join(format!("{name}.json"))
    }

    /// Says that this process needs a component, until the pin is dropped.
    #[must_use]
    pub fn pin(&self, digest: Digest, group: &str) -> Pin {
        self.0.pins.pin(digest, group)
    }

    /// Whether this process needs a component for a group.
    #[must_use]
    pub fn is_pinned(&self, digest: &Digest, group: &str) -> bool {
        self.0.pins.holds(digest, group)
    }

    /// Takes a component, if it is there and whole. What is damaged is taken away.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        let path = self.path(digest);
        let bytes = read_bounded(&path, crate::MAX_COMPONENT).ok()??;
        if Digest::of(&bytes) != *digest {
            tracing::warn!(path = %path.display(), "removing a damaged component from the store; it is fetched again");
            if let Ok(_lock) = self.lock() {
                let _ = fs::remove_file(&path);
            }
            return None;
        }
        files::touch(&path);
        Some(Bytes::from(bytes))
    }

    /// A part of a component, for a peer, and the length of the whole. It is the peer who compares it with its digest.
    #[must_use]
    pub fn part(&self, digest: &Digest, offset: u64, most: usize) -> Option<(Bytes, u64)> {
        files::part(&self.path(digest), offset, most).ok()
    }

    /// Puts a component in, with the signatures that came with it, and makes room.
    ///
    /// # Errors
    /// When it cannot be written, or is not what the digest says.
    pub fn put(&self, digest: &Digest, bytes: &[u8], signatures: &[Signature]) -> Result<(), StoreError> {
        let path = self.path(digest);
        if Digest::of(bytes) != *digest {
            return Err(StoreError::new(&path, "what was to be put there is another component"));
        }
        let there = read_bounded(&path, crate::MAX_COMPONENT).ok().flatten();
        if there.is_some_and(|there| there == bytes) {
            files::touch(&path);
        } else {
            replace(&self.0.folder, &path, bytes)?;
        }
        self.sign(digest, signatures)?;
        let lock = self.lock()?;
        self.make_room(&lock, Some(digest));
        Ok(())
    }

    /// The signatures that came with a component.
    #[must_use]
    pub fn signatures(&self, digest: &Digest) -> Vec<Signature> {
        let text = read_bounded(&self.signatures_path(digest), signature::MAX_FILE).ok().flatten();
        let text = text.and_then(|text| String::from_utf8(text).ok());
        text.and_then(|text| signature::parse(&text).ok()).unwrap_or_default()
    }

    /// Adds signatures to those that are there.
    fn sign(&self, digest: &Digest, signatures: &[Signature]) -> Result<(), StoreError> {
        let mut all = self.signatures(digest);
        let before = all.len();
        for signature in signatures {
            if !all.contains(signature) && all.len() < signature::MAX_SIGNATURES {
                all.push(signature.clone());
            }
        }
        if all.len() == before {
            return Ok(());
        }
        replace(&self.0.folder, &self.signatures_path(digest), signature::write(&all).as_bytes())
    }

    /// Notes what a reference stands for now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&self, reference: &Reference, digest: Digest, resolved: &Reference) -> Result<(), StoreError> {
        let path = self.record_path(reference);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let record = Record { reference: reference.to_string(), digest, resolved: resolved.to_string(), at };
        let text = serde_json::to_vec(&record).map_err(|error| StoreError::new(&path, error))?;
        replace(&self.0.folder, &path, &text)?;
        let _lock = self.lock()?;
        let mut all = self.records();
        if all.len() > MAX_RECORDS {
            all.sort_by_key(|(other, record)| (*other == path, record.at));
            let more = all.len() - MAX_RECORDS;
            for (path, _) in all.into_iter().take(more) {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// What a reference stood for when it was last resolved.
    #[must_use]
    pub fn recorded(&self, reference: &Reference) -> Option<Record> {
        files::record(&self.record_path(reference))
    }

    fn records(&self) -> Vec<(PathBuf, Record)> {
        let entries = fs::read_dir(self.0.folder.join("last")).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((entry.path(), files::record(&entry.path())?))).collect()
    }
}

/// A file that is written whole or not at all: beside its place first.
fn write_aside(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
