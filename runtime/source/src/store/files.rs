//! The files of the store: private, whole, and locked where processes could hurt each other.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};

use super::{Record, StoreError, write_aside};

/// What files that are being written begin with.
pub(super) const ASIDE: &str = ".new-";

/// The largest record.
const MAX_RECORD: u64 = 64 << 10;

/// Makes a folder, or checks one that is there: what lies in it is run, so nobody else may write to it.
pub(super) fn private(folder: &Path) -> Result<(), StoreError> {
    let refuse = |reason: String| Err(StoreError::new(folder, reason));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| StoreError::new(folder, format!("cannot be made: {error}")))?;
    let meta = fs::symlink_metadata(folder).map_err(|error| StoreError::new(folder, error))?;
    let me = rustix::process::geteuid().as_raw();
    if !meta.is_dir() {
        return refuse("is not a folder (a link to one does not do)".into());
    }
    if meta.uid() != me {
        return refuse(format!("belongs to user {}, and this process runs as user {me}", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        let (mode, shown) = (meta.mode() & 0o777, folder.display());
        return refuse(format!("others may write to it (mode {mode:o}); what is in it is run, so: chmod 700 {shown}"));
    }
    Ok(())
}

/// The lock of the store.
pub(super) struct Locked(File);

impl Locked {
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("lock");
        let failed = |error: std::io::Error| StoreError::new(&path, format!("cannot be locked: {error}"));
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(failed)?;
        // Held by others for as long as a few files take.
        flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Self(file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing the file would do as well, unless a child process had it too.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Puts a file in its place, whole or not at all.
pub(super) fn replace(store: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| StoreError::new(path, format!("cannot be written: {error}"));
    let folder = path.parent().unwrap_or(store);
    let mut aside = {
        // Made and locked in one step as others see it: what nobody has locked was left behind by a process that died.
        let _lock = Locked::take(store)?;
        let aside = tempfile::Builder::new().prefix(ASIDE).tempfile_in(folder).map_err(failed)?;
        flock(aside.as_file(), FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        aside
    };
    write_aside(aside.as_file_mut(), bytes).map_err(failed)?;
    let _lock = Locked::take(store)?;
    aside.persist(path).map_err(|error| failed(error.error))?;
    // The name, too, must outlive a crash of the machine.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// A whole file of at most `most` bytes; none if it is larger or not there.
pub(super) fn read_bounded(path: &Path, most: u64) -> std::io::Result<Option<Vec<u8>>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

fn open(path: &Path) -> std::io::Result<Option<File>> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(nofollow).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A part of a file, and the length of the whole.
pub(super) fn part(path: &Path, offset: u64, most: usize) -> std::io::Result<(Bytes, u64)> {
    let mut file = open(path)?.ok_or(std::io::ErrorKind::NotFound)?;
    let whole = file.metadata()?.len();
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok((bytes.into(), whole))
}

/// Notes that a file was used: the time decides what goes first.
pub(super) fn touch(path: &Path) {
    if let Ok(file) = OpenOptions::new().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Reads a record; one that cannot be read is as good as none.
pub(super) fn record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&read_bounded(path, MAX_RECORD).ok()??).ok()
}

/// Takes away a file that nobody has locked.
pub(super) fn remove_if_left(path: &Path) -> bool {
    let Ok(Some(file)) = open(path) else { return false };
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && fs::remove_file(path).is_ok()
}
