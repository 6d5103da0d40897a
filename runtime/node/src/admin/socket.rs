//! The Unix socket: for its owner alone, and never taken from a server that lives.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use super::server::AdminError;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 64;

/// The longest path that the kernel takes for a socket, less its final NUL.
const MAX_PATH: usize = 107;

/// A bound socket. Dropping it removes the file, if it is still this one.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    identity: (u64, u64),
    /// Held for as long as the socket is served: of two servers that find the same stale file, one waits its turn and then
    /// sees that the other lives.
    _lock: File,
}

impl Socket {
    /// Binds `path` with mode 0600. A socket file that nobody answers on is removed first; anything else that stands there
    /// is left alone and refused.
    pub(super) async fn bind(path: &Path) -> Result<(UnixListener, Self), AdminError> {
        let failed = |source: io::Error| AdminError::bind(format!("unix:{}", path.display()), source);
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(AdminError::PathTooLong { path: path.to_owned(), length, max: MAX_PATH });
        }
        let lock = take_lock(path).map_err(failed)?.ok_or_else(|| AdminError::in_use(path))?;
        remove_stale(path).await?;

        let socket = UnixSocket::new_stream().map_err(failed)?;
        // On Linux the file takes its mode from the socket: thus there is no moment in which others could connect.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
        socket.bind(path).map_err(failed)?;
        rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        let identity = identity(path).map_err(failed)?;
        Ok((listener, Self { path: path.to_owned(), identity, _lock: lock }))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The lock is still held here, so nobody can put a socket in its place between the look and the removal.
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Takes the lock beside the socket; none if somebody else has it. The lock's file stays for ever: removing it would let two
/// servers lock two files of one name.
fn take_lock(path: &Path) -> io::Result<Option<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(PathBuf::from(name))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn remove_stale(path: &Path) -> Result<(), AdminError> {
    let failed = |source: io::Error| AdminError::bind(format!("unix:{}", path.display()), source);
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {}
        Ok(_) => return Err(AdminError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    // Only a refusal proves that nobody is there; a full backlog, or no permission, does not.
    match tokio::time::timeout(Duration::from_secs(1), UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::debug!(path = %path.display(), "removing the socket that an earlier process left behind");
            std::fs::remove_file(path).map_err(failed)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(AdminError::in_use(path)),
    }
}
