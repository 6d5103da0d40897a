//! Compiled components, kept on disk so that a restart compiles nothing.
//!
//! An entry's name says what it was made of (`<component>-<engine>`) and what it holds (`-<content>`), so that a damaged or
//! foreign file is told from a good one before any of it is trusted.

use std::fs::{self, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::compiler;
use crate::error::EngineError;

const SUFFIX: &str = "cwasm";

/// The folder of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    limit: u64,
    engine: String,
}

/// Feeds whatever can be hashed to SHA-256: the key must be the same in each process, which the standard hasher does not
/// promise.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |all, byte| (all << 8) | u64::from(*byte))
    }
}

impl Cache {
    /// Opens the folder, making it if need be. Its content becomes machine code in this process, so nobody else may write it.
    pub(crate) fn open(folder: &Path, limit: u64, engine: &Engine) -> Result<Self, EngineError> {
        let refuse = |reason: String| EngineError::Cache { path: folder.display().to_string(), reason };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| refuse(e.to_string()))?;
        let meta = fs::symlink_metadata(folder).map_err(|e| refuse(e.to_string()))?;
        if !meta.is_dir() {
            return Err(refuse("it is not a folder (a link to one does not do)".into()));
        }
        let me = rustix::process::geteuid().as_raw();
        if meta.uid() != me {
            return Err(refuse(format!("it belongs to user {}, and this process runs as user {me}", meta.uid())));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(refuse(format!(
                "others may write to it (mode {:o}); compiled code is trusted, so run: chmod 700 {}",
                meta.mode() & 0o777,
                folder.display()
            )));
        }
        let mut fingerprint = Fingerprint(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut fingerprint);
        let engine = hex::encode(&fingerprint.0.finalize()[..8]);
        Ok(Self { folder: folder.to_owned(), limit, engine })
    }

    fn prefix(&self, digest: &str) -> String {
        format!("{digest}-{}-", self.engine)
    }

    /// The compiled form of a component, if it is there and whole. Whatever is wrong with an entry makes it a miss.
    pub(crate) fn get(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let prefix = self.prefix(digest);
        for entry in fs::read_dir(&self.folder).ok()?.flatten() {
            let name = entry.file_name();
            let Some(content) = name
                .to_str()
                .and_then(|name| name.strip_prefix(&prefix))
                .and_then(|rest| rest.strip_suffix(SUFFIX))
                .and_then(|rest| rest.strip_suffix('.'))
            else {
                continue;
            };
            let path = entry.path();
            if let Some(compiled) = read(&path).filter(|compiled| fingerprint(compiled) == content) {
                // SAFETY: the folder is private to this user and checked to be so; the file's name carries the digest of its
                // content, and the very bytes that are handed over here were compared with it. They are read, not mapped:
                // whoever truncates a mapped file would bring down the whole process.
                #[expect(unsafe_code, reason = "loading our own compiled code is what this cache is for")]
                let loaded = unsafe { compiler::load(engine, &compiled) };
                match loaded {
                    Ok(component) => {
                        // The time of the last use decides what goes first.
                        if let Ok(file) = OpenOptions::new().append(true).open(&path) {
                            let _ = file.set_modified(SystemTime::now());
                        }
                        return Some(component);
                    }
                    Err(error) => {
                        tracing::debug!(path = %path.display(), %error, "a compiled component was not usable")
                    }
                }
            }
            tracing::warn!(path = %path.display(), "removing a damaged compiled component; it is compiled again");
            let _ = fs::remove_file(&path);
        }
        None
    }

    /// Keeps the compiled form of a component, and makes room if the folder has grown too large.
    pub(crate) fn put(&self, digest: &str, compiled: &[u8]) -> Result<(), String> {
        let content = fingerprint(compiled);
        let path = self.folder.join(format!("{}{content}.{SUFFIX}", self.prefix(digest)));
        let mut aside =
            tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder).map_err(|e| e.to_string())?;
        // Not forced to the disk: what a crash of the machine leaves torn does not fit its name.
        aside.write_all(compiled).map_err(|e| e.to_string())?;
        aside.persist(&path).map_err(|e| e.to_string())?;
        self.make_room(&path);
        Ok(())
    }

    fn make_room(&self, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let now = SystemTime::now();
        let mut files = Vec::new();
        for entry in entries.flatten() {
            let (Ok(meta), path) = (entry.metadata(), entry.path()) else { continue };
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let left_behind = entry.file_name().as_encoded_bytes().starts_with(b".new-");
            if left_behind && now.duration_since(used).is_ok_and(|age| age.as_secs() > 3_600) {
                let _ = fs::remove_file(&path);
            } else if path.extension().is_some_and(|extension| extension == SUFFIX) {
                files.push((used, meta.len(), path));
            }
        }
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort();
        for (_, size, path) in files {
            if total <= self.limit {
                break;
            }
            if path != newest && fs::remove_file(&path).is_ok() {
                total = total.saturating_sub(size);
            }
        }
    }
}

fn fingerprint(compiled: &[u8]) -> String {
    hex::encode(&Sha256::digest(compiled)[..16])
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(nofollow).open(path).ok()?;
    let mut compiled = Vec::new();
    file.read_to_end(&mut compiled).ok()?;
    Some(compiled)
}
