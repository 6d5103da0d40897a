//! What the leader asks of a worker: a line of JSON, and after it the text itself if the task carries it. The answer is the
//! text form of [`Counts`].

use serde::{Deserialize, Serialize};

use crate::corpus::{Chunk, CorpusError};
use crate::counts::Counts;
use crate::release::Release;
use crate::words::count;

/// A task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The name of the mode to count in.
    pub mode: String,
    /// What to count.
    pub source: Source,
}

/// Where the text of a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the worker's own copy of the corpus.
    Range(Chunk),
    /// In the task.
    Text(Vec<u8>),
}

#[derive(Serialize, Deserialize)]
struct Head {
    mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<Chunk>,
}

impl Task {
    /// The payload that [`Task::decode`] reads.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (range, text) = match &self.source {
            Source::Range(chunk) => (Some(chunk.clone()), [].as_slice()),
            Source::Text(text) => (None, text.as_slice()),
        };
        // A struct of strings and numbers always has a JSON form, and it has no line feed.
        let mut payload = serde_json::to_vec(&Head { mode: self.mode.clone(), range }).unwrap_or_default();
        payload.push(b'\n');
        payload.extend_from_slice(text);
        payload
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn decode(payload: &[u8]) -> Result<Self, String> {
        let end =
            payload.iter().position(|byte| *byte == b'\n').ok_or("this is no word count task: it has no first line")?;
        let (head, text) = payload.split_at(end);
        let head: Head =
            serde_json::from_slice(head).map_err(|error| format!("this is no word count task: {error}"))?;
        let source = match head.range {
            Some(chunk) => Source::Range(chunk),
            None => Source::Text(text.get(1..).unwrap_or_default().to_vec()),
        };
        Ok(Self { mode: head.mode, source })
    }
}

/// Does a task: what `worker.handle` does.
///
/// # Errors
/// Says, for the leader's log, why it cannot be done here. A mode that this version does not know is such a reason: a pass
/// that another version began must not be counted in a mode that is merely similar.
pub fn perform(
    payload: &[u8],
    release: &Release,
    read: impl FnOnce(&Chunk) -> Result<Vec<u8>, CorpusError>,
) -> Result<Vec<u8>, String> {
    let task = Task::decode(payload)?;
    let mode = release.mode(&task.mode).ok_or_else(|| {
        let known: Vec<_> = release.knows.iter().map(|mode| mode.name()).collect();
        format!("{} counts {} words, not {:?} ones", release.version, known.join(" or "), task.mode)
    })?;
    let counts: Result<Counts, _> = match task.source {
        Source::Range(chunk) => count(&read(&chunk).map_err(|error| error.to_string())?, mode),
        Source::Text(text) => count(&text, mode),
    };
    Ok(counts.map_err(|error| error.to_string())?.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Mode;

    const V1: Release = Release { version: "v1", starts: Mode::Exact, knows: &[Mode::Exact] };

    fn range() -> Task {
        let chunk = Chunk { file: "a b\n\"c\".md".into(), size: 9, start: 3, end: 9 };
        Task { mode: "exact".into(), source: Source::Range(chunk) }
    }

    #[test]
    fn tasks_read_back() {
        let text = Task { mode: "folded".into(), source: Source::Text(b"one\n\xff two\n".to_vec()) };
        for task in [range(), text] {
            assert_eq!(Task::decode(&task.encode()).unwrap(), task);
        }
        for bad in [b"".as_slice(), b"{}", b"{}\n", b"\xff\n", b"{\"mode\":1}\n"] {
            assert!(Task::decode(bad).unwrap_err().starts_with("this is no word count task"), "{bad:?}");
        }
    }

    #[test]
    fn a_worker_counts_its_text_and_refuses_what_it_does_not_know() {
        let text = |mode: &str| Task { mode: mode.into(), source: Source::Text(b"One one one".to_vec()) }.encode();
        let unread = |_: &Chunk| -> Result<Vec<u8>, CorpusError> { panic!("nothing to read") };
        assert_eq!(perform(&text("exact"), &V1, unread).unwrap(), b"1 One\n2 one\n");
        assert_eq!(perform(&text("folded"), &V1, unread).unwrap_err(), "v1 counts exact words, not \"folded\" ones");
        let answer = perform(&range().encode(), &V1, |chunk| {
            assert_eq!((chunk.start, chunk.end), (3, 9));
            Ok(b"x".to_vec())
        });
        assert_eq!(answer.unwrap(), b"1 x\n");
        let answer = perform(&range().encode(), &V1, |_| Err(CorpusError::Outside("a".into())));
        assert!(answer.unwrap_err().contains("not a path within the corpus"));
    }
}
