//! The folder of text and how it is cut into chunks.
//!
//! Chunks are cut at fixed offsets, so that the leader need not read what it hands out. The rule that keeps words whole: *a
//! word belongs to the chunk in which its first letter lies.* Whoever reads a chunk therefore leaves out the rest of a word
//! that began before it, and reads on over its end to the end of the word that stands there.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::words::{MAX_WORD, is_letter};

/// The most files that a corpus may have.
pub const MAX_FILES: usize = 100_000;

/// Why a corpus or a chunk could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The folder or a file in it could not be read.
    #[error("cannot read {path}: {error}; is the folder granted to this group in `[group.grants] folders`?")]
    Io {
        /// What.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Too much to keep track of.
    #[error("{0} has more than {MAX_FILES} files")]
    TooManyFiles(String),
    /// The name of a file is not UTF-8.
    #[error("the name of {0} is not UTF-8")]
    Name(String),
    /// A task names a file outside of the folder.
    #[error("{0:?} is not a path within the corpus")]
    Outside(String),
    /// The file is not the one that the chunk was cut from.
    #[error("{path} has {found} bytes here and {expected} on the leader: the nodes' copies of the corpus differ")]
    Differs {
        /// The file.
        path: String,
        /// Its size by the task.
        expected: u64,
        /// Its size here.
        found: u64,
    },
    /// A word that does not end.
    #[error("{path} has a word of more than {MAX_WORD} bytes")]
    WordTooLong {
        /// The file.
        path: String,
    },
}

/// A range of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The file, relative to the corpus.
    pub file: String,
    /// The file's size, to notice when two nodes' copies differ.
    pub size: u64,
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

/// The files of a corpus and how they are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    files: Vec<(String, u64)>,
    /// For each file, the number of its first chunk.
    first: Vec<u64>,
    chunk_bytes: u64,
    total: u64,
}

impl Plan {
    /// Cuts files, named with their sizes, into chunks of `chunk_bytes`.
    #[must_use]
    pub fn new(mut files: Vec<(String, u64)>, chunk_bytes: u64) -> Self {
        files.sort();
        let chunk_bytes = chunk_bytes.max(1);
        let mut total = 0;
        let first = files.iter().map(|(_, size)| {
            let first = total;
            total += size.div_ceil(chunk_bytes);
            first
        });
        let first = first.collect();
        Self { files, first, chunk_bytes, total }
    }

    /// How many chunks there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The chunk of that number, counted from 0 over all files.
    #[must_use]
    pub fn chunk(&self, number: u64) -> Option<Chunk> {
        if number >= self.total {
            return None;
        }
        // The last file whose first chunk is not beyond: empty files share their number with the next file and come before it.
        let index = self.first.partition_point(|first| *first <= number).checked_sub(1)?;
        let (file, size) = self.files.get(index)?;
        let start = (number - self.first.get(index)?) * self.chunk_bytes;
        Some(Chunk { file: file.clone(), size: *size, start, end: start.saturating_add(self.chunk_bytes).min(*size) })
    }

    /// A name for this very plan: the files' names and sizes and where they are cut. A new leader goes on with a pass only if
    /// its own plan has the same name, for only then do chunk numbers mean the same.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // FNV-1a, 64 bits: guards against accidents, not against forgery.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut feed = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        feed(&self.chunk_bytes.to_le_bytes());
        for (file, size) in &self.files {
            feed(file.as_bytes());
            feed(&[0]);
            feed(&size.to_le_bytes());
        }
        format!("{hash:016x}")
    }
}

/// The regular files below `folder` with their sizes. Symbolic links are left out: they could lead in circles.
///
/// # Errors
/// If a folder cannot be read, a name is not UTF-8 or there are too many files.
pub fn files(folder: &str) -> Result<Vec<(String, u64)>, CorpusError> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(inner) = folders.pop() {
        let path = Path::new(folder).join(&inner);
        let fail = |error| CorpusError::Io { path: path.display().to_string(), error };
        for entry in fs::read_dir(&path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| CorpusError::Name(entry.path().display().to_string()))?;
            let name = if inner.is_empty() { name.to_owned() } else { format!("{inner}/{name}") };
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() {
                folders.push(name);
            } else if kind.is_file() {
                found.push((name, entry.metadata().map_err(fail)?.len()));
            }
            if found.len() + folders.len() > MAX_FILES {
                return Err(CorpusError::TooManyFiles(folder.to_owned()));
            }
        }
    }
    Ok(found)
}

/// The text of a chunk: from the first word that begins in it to the end of the last one that does.
///
/// # Errors
/// If the file cannot be read, is not the one that the chunk was cut from, or has a word without end.
pub fn text(folder: &str, chunk: &Chunk) -> Result<Vec<u8>, CorpusError> {
    let inner = Path::new(&chunk.file);
    if !inner.components().all(|part| matches!(part, Component::Normal(_))) || chunk.start > chunk.end {
        return Err(CorpusError::Outside(chunk.file.clone()));
    }
    let path = Path::new(folder).join(inner);
    let fail = |error| CorpusError::Io { path: path.display().to_string(), error };
    let mut file = fs::File::open(&path).map_err(fail)?;
    let found = file.metadata().map_err(fail)?.len();
    if found != chunk.size || chunk.end > chunk.size {
        return Err(CorpusError::Differs { path: chunk.file.clone(), expected: chunk.size, found });
    }
    read_words(&mut file, chunk.start, chunk.end)
        .map_err(fail)?
        .ok_or_else(|| CorpusError::WordTooLong { path: chunk.file.clone() })
}

/// The words that begin in `start..end`; none if one of them does not end.
fn read_words(source: &mut (impl Read + Seek), start: u64, end: u64) -> io::Result<Option<Vec<u8>>> {
    // One byte earlier, to see whether the chunk begins in the middle of a word.
    let from = start.saturating_sub(1);
    source.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    if source.by_ref().take(end - from).read_to_end(&mut text)? as u64 != end - from {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if start > 0 {
        let begun = text.iter().take_while(|byte| is_letter(**byte)).count().max(1).min(text.len());
        text.drain(..begun);
    }
    let mut over = 0;
    let mut more = [0; 256];
    while text.last().is_some_and(|byte| is_letter(*byte)) {
        let read = source.read(&mut more)?;
        let letters = more.iter().take(read).take_while(|byte| is_letter(**byte)).count();
        text.extend(more.iter().take(letters));
        over += letters;
        if over > MAX_WORD {
            return Ok(None);
        }
        // A byte that is no letter, or the end of the file: the word ends here.
        if letters < read || read == 0 {
            break;
        }
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::counts::Counts;
    use crate::words::{Mode, count};

    fn in_chunks(text: &[u8], size: usize) -> Counts {
        let mut counts = Counts::default();
        for start in (0..text.len()).step_by(size) {
            let end = (start + size).min(text.len());
            let words = read_words(&mut Cursor::new(text), start as u64, end as u64).unwrap().unwrap();
            counts.merge(count(&words, Mode::Exact).unwrap());
        }
        counts
    }

    #[test]
    fn every_small_text_counts_the_same_however_it_is_cut() {
        const ALPHABET: [u8; 3] = [b'a', b'B', b' '];
        for length in 0..=7_u32 {
            for mut number in 0..3_usize.pow(length) {
                let text: Vec<u8> = (0..length)
                    .map(|_| {
                        let letter = ALPHABET[number % 3];
                        number /= 3;
                        letter
                    })
                    .collect();
                let whole = count(&text, Mode::Exact).unwrap();
                for size in 1..=text.len().max(1) {
                    assert_eq!(
                        in_chunks(&text, size),
                        whole,
                        "{:?} in chunks of {size}",
                        String::from_utf8_lossy(&text)
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_counts_the_same_however_it_is_cut(text in prop::collection::vec(any::<u8>(), 0..2_000), size in 1_usize..600) {
            prop_assert_eq!(in_chunks(&text, size), count(&text, Mode::Exact).unwrap());
        }

        #[test]
        fn a_plan_covers_every_byte_once(sizes in prop::collection::vec(0_u64..50, 0..12), chunk_bytes in 1_u64..20) {
            let files: Vec<_> = sizes.iter().enumerate().map(|(n, size)| (format!("{n:02}"), *size)).collect();
            let plan = Plan::new(files.clone(), chunk_bytes);
            let mut covered: Vec<(String, u64)> = Vec::new();
            for number in 0..plan.total() {
                let chunk = plan.chunk(number).unwrap();
                prop_assert!(chunk.start < chunk.end && chunk.end - chunk.start <= chunk_bytes);
                match covered.last_mut() {
                    Some((file, end)) if *file == chunk.file => {
                        prop_assert_eq!(*end, chunk.start);
                        *end = chunk.end;
                    }
                    _ => {
                        prop_assert_eq!(chunk.start, 0);
                        covered.push((chunk.file, chunk.end));
                    }
                }
            }
            prop_assert_eq!(plan.chunk(plan.total()), None);
            prop_assert_eq!(covered, files.into_iter().filter(|(_, size)| *size > 0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn long_words_cross_many_chunks() {
        let text = [b"x ".as_slice(), &[b'w'; 3_000], b" y"].concat();
        assert_eq!(in_chunks(&text, 100), count(&text, Mode::Exact).unwrap());
        let endless = vec![b'w'; MAX_WORD + 300];
        assert_eq!(read_words(&mut Cursor::new(&endless), 0, 10).unwrap(), None);
    }

    #[test]
    fn folders_are_read_and_guarded() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("a.txt"), "one two").unwrap();
        fs::write(folder.path().join("inner/b.txt"), "three").unwrap();
        let name = folder.path().to_str().unwrap();
        let plan = Plan::new(files(name).unwrap(), 4);
        assert_eq!(plan.total(), 4);
        let chunk = plan.chunk(3).unwrap();
        assert_eq!(chunk, Chunk { file: "inner/b.txt".into(), size: 5, start: 4, end: 5 });
        assert_eq!(text(name, &plan.chunk(2).unwrap()).unwrap(), b"three");
        assert_eq!(text(name, &chunk).unwrap(), b"");

        fs::write(folder.path().join("inner/b.txt"), "three four").unwrap();
        assert!(matches!(text(name, &chunk), Err(CorpusError::Differs { expected: 5, found: 10, .. })));
        assert_ne!(Plan::new(files(name).unwrap(), 4).fingerprint(), plan.fingerprint());
        for file in ["../a.txt", "/etc/passwd", "inner/../../x"] {
            let chunk = Chunk { file: file.into(), size: 7, start: 0, end: 7 };
            assert!(matches!(text(name, &chunk), Err(CorpusError::Outside(_))), "{file}");
        }
        let message = files("/no/such/folder").unwrap_err().to_string();
        assert!(message.contains("/no/such/folder") && message.contains("granted"), "{message}");
    }
}
