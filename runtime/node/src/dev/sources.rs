//! Watches what the component is built from.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::error::{NodeError, NodeErrorKind};

/// A change is taken when all has been quiet for so long: editors write in pieces, and a whole tree is checked out file by file.
const SETTLED: Duration = Duration::from_millis(200);

/// Or after so long, should something never be quiet.
const PATIENCE: Duration = Duration::from_secs(3);

/// Larger files are not read, but taken to have changed when their time has.
const READ: u64 = 1 << 20;

/// The sources. That something happened to a file means nothing: a build touches, and some editors save what is unchanged. What counts is
/// whether the contents are those that were built last.
pub(super) struct Watched {
    paths: Vec<PathBuf>,
    touched: Arc<Notify>,
    /// Whether something was touched that has not been looked at.
    pending: bool,
    /// The contents that were built last.
    known: u64,
    _watcher: RecommendedWatcher,
}

impl Watched {
    /// Watches these files and folders from now on.
    pub fn new(paths: &[PathBuf]) -> Result<Self, NodeError> {
        let touched = Arc::new(Notify::new());
        let notify = touched.clone();
        let failed = |path: Option<&Path>, error: notify::Error| {
            let what = path.map_or_else(|| "the sources".to_owned(), |path| path.display().to_string());
            NodeError::new(
                NodeErrorKind::Local,
                format!(
                    "{what} cannot be watched for changes: {error}\n  help: `[dev] watch` says what is; the machine's limit is \
                     fs.inotify.max_user_watches"
                ),
            )
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may mean that events were lost.
            if event.map_or(true, |event| !event.kind.is_access()) {
                notify.notify_one();
            }
        });
        let mut watcher = watcher.map_err(|error| failed(None, error))?;
        for path in paths {
            // Of a file the folder, for most editors put a new file in the place of the old one.
            let (path, mode) = match path.parent() {
                Some(parent) if !path.is_dir() => (parent, RecursiveMode::NonRecursive),
                _ => (path.as_path(), RecursiveMode::Recursive),
            };
            watcher.watch(path, mode).map_err(|error| failed(Some(path), error))?;
        }
        let known = contents(paths);
        Ok(Self { paths: paths.to_vec(), touched, pending: false, known, _watcher: watcher })
    }

    /// What is there now is what is built.
    pub fn mark(&mut self) {
        self.known = contents(&self.paths);
    }

    /// Until something is there that was not built. May be dropped at any time without missing anything.
    pub async fn changed(&mut self) {
        loop {
            if !self.pending {
                self.touched.notified().await;
                self.pending = true;
            }
            let began = Instant::now();
            while began.elapsed() < PATIENCE && tokio::time::timeout(SETTLED, self.touched.notified()).await.is_ok() {}
            self.pending = false;
            if contents(&self.paths) != self.known {
                return;
            }
        }
    }
}

/// A number that changes with the contents of these files and folders.
fn contents(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        // What is named is looked at whatever its name.
        add(path, &mut hasher);
    }
    hasher.finish()
}

fn add(path: &Path, hasher: &mut DefaultHasher) {
    path.hash(hasher);
    if let Err(error) = try_add(path, hasher) {
        // It is gone, or is being written: that it comes back is a change.
        error.kind().hash(hasher);
    }
}

fn try_add(path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    let found = path.metadata()?;
    if found.is_file() && found.len() <= READ {
        std::fs::read(path)?.hash(hasher);
    } else if found.is_file() {
        (found.len(), found.modified()?).hash(hasher);
    } else if found.is_dir() {
        let mut below: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
        below.sort_by_key(std::fs::DirEntry::file_name);
        for entry in below {
            let name = entry.file_name();
            let hidden = name.as_bytes().starts_with(b".") || name.as_bytes().ends_with(b"~");
            // A link to a folder may lead back here.
            let loops = entry.file_type()?.is_symlink() && entry.path().is_dir();
            if !hidden && !loops {
                add(&entry.path(), hasher);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn contents_count_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (sources, single) = (folder.path().join("src"), folder.path().join("one.c"));
        fs::create_dir_all(sources.join("deep")).unwrap();
        fs::write(sources.join("deep/a.rs"), "a").unwrap();
        fs::write(&single, "one").unwrap();
        let paths = [sources.clone(), single.clone()];
        let before = contents(&paths);
        fs::write(sources.join("deep/a.rs"), "a").unwrap();
        fs::write(sources.join(".a.swp"), "x").unwrap();
        fs::write(sources.join("a.rs~"), "x").unwrap();
        fs::write(folder.path().join("elsewhere"), "x").unwrap();
        std::os::unix::fs::symlink(&sources, sources.join("loop")).unwrap();
        assert_eq!(contents(&paths), before);
        let mut seen = vec![before];
        let mut differs = |what: &str| {
            let now = contents(&paths);
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(sources.join("deep/a.rs"), "b").unwrap();
        differs("another text");
        fs::write(sources.join("b.rs"), "").unwrap();
        differs("a new file");
        fs::rename(sources.join("b.rs"), sources.join("c.rs")).unwrap();
        differs("another name");
        fs::remove_file(&single).unwrap();
        differs("a file that is gone");
    }

    #[tokio::test]
    async fn a_change_is_told_once_it_is_over_and_an_interrupted_wait_misses_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let mut watched = Watched::new(&[folder.path().join("a")]).unwrap();
        fs::write(folder.path().join("a"), "2").unwrap();
        // Dropped again and again while it waits.
        let long = Duration::from_secs(60);
        let told = tokio::time::timeout(long, async {
            while tokio::time::timeout(SETTLED * 2, watched.changed()).await.is_err() {}
        });
        told.await.unwrap();
        watched.mark();
        fs::write(folder.path().join("a"), "2").unwrap();
        assert!(tokio::time::timeout(SETTLED * 3, watched.changed()).await.is_err(), "the same again is no change");
        fs::write(folder.path().join("a"), "3").unwrap();
        tokio::time::timeout(long, watched.changed()).await.unwrap();
    }
}
