//! How far the job has come: the value of the key `progress`, one JSON object.

use serde::{Deserialize, Serialize};

/// The format of [`Progress`]; a job that finds another one leaves it alone.
pub const FORMAT: u32 = 1;

/// Whether there is something to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The pass is under way.
    Counting,
    /// The pass is done and its result written.
    Finished,
}

/// The state of the job. Together with the parts that it names it is a checkpoint: all that a new leader needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// [`FORMAT`].
    pub format: u32,
    /// The pass, counted from 1.
    pub pass: u64,
    /// The name of the mode that the pass began with and is finished with, whichever version leads.
    pub mode: String,
    /// Chunks that count.
    pub done: u64,
    /// Chunks that there are.
    pub total: u64,
    /// Whether the pass is finished.
    pub state: Phase,
    /// The version of the job that wrote this.
    pub version: String,
    /// Words in the chunks that count.
    pub words: u64,
    /// The size of a chunk, fixed for the pass.
    pub chunk_bytes: u64,
    /// What the chunks were cut from ([`crate::corpus::Plan::fingerprint`]).
    pub corpus: String,
    /// Every chunk below this number was handed out.
    pub next: u64,
    /// Those handed out that do not count: they were not answered and must be done again. Sorted.
    pub missing: Vec<u64>,
    /// The keys whose values, taken together, are the counts of the chunks that count.
    pub parts: Vec<String>,
    /// How many keys `result/<pass>/<nn>` there are; 0 while counting.
    pub results: u64,
}

/// A `progress` that this job cannot go on from.
#[derive(Debug, thiserror::Error)]
pub enum BadProgress {
    /// Not what this job writes.
    #[error(
        "the key `progress` does not hold what a word count writes ({0}); use another group, or delete it to begin anew"
    )]
    Unreadable(#[from] serde_json::Error),
    /// Another format.
    #[error("the key `progress` has format {0} and this version of the job knows only {FORMAT}")]
    Format(u32),
    /// It contradicts itself.
    #[error("the key `progress` contradicts itself: {0}")]
    Inconsistent(&'static str),
}

impl Progress {
    /// The JSON form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // A struct of strings and numbers always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// If it is not one, or makes no sense.
    pub fn decode(value: &[u8]) -> Result<Self, BadProgress> {
        /// Read first, for a later format may look different in everything else.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(value)?;
        if head.format != FORMAT {
            return Err(BadProgress::Format(head.format));
        }
        let progress: Self = serde_json::from_slice(value)?;
        if progress.next > progress.total {
            return Err(BadProgress::Inconsistent("more chunks were handed out than there are"));
        }
        if progress.missing.iter().any(|chunk| *chunk >= progress.next) || !progress.missing.is_sorted() {
            return Err(BadProgress::Inconsistent("a chunk is missing that was not handed out"));
        }
        if progress.done + progress.missing.len() as u64 != progress.next {
            return Err(BadProgress::Inconsistent("done and missing chunks are not those handed out"));
        }
        Ok(progress)
    }

    /// The next chunks to hand out, at most `batch`: first those that are missing, then new ones.
    #[must_use]
    pub fn batch(&self, batch: u64) -> Vec<u64> {
        let batch = usize::try_from(batch).unwrap_or(usize::MAX);
        self.missing.iter().copied().chain(self.next..self.total).take(batch).collect()
    }

    /// Notes what became of the chunks of a [`Progress::batch`]: which ones count from now on.
    pub fn settle(&mut self, batch: &[u64], done: &[u64]) {
        let handed_out = batch.iter().copied().max().map_or(0, |chunk| chunk + 1).max(self.next);
        self.missing.extend(self.next..handed_out);
        self.next = handed_out;
        self.missing.retain(|chunk| !done.contains(chunk));
        self.missing.sort_unstable();
        self.done = self.next - self.missing.len() as u64;
    }

    /// Whether all chunks count.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.done == self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn progress(total: u64) -> Progress {
        Progress {
            format: FORMAT,
            pass: 2,
            mode: "folded".into(),
            done: 0,
            total,
            state: Phase::Counting,
            version: "v2".into(),
            words: 0,
            chunk_bytes: 64,
            corpus: "00".into(),
            next: 0,
            missing: Vec::new(),
            parts: vec!["part/3-0".into()],
            results: 0,
        }
    }

    #[test]
    fn the_json_form_is_what_operators_and_scripts_read() {
        let text = String::from_utf8(progress(9).encode()).unwrap();
        assert!(
            text.starts_with(
                r#"{"format":1,"pass":2,"mode":"folded","done":0,"total":9,"state":"counting","version":"v2""#
            ),
            "{text}"
        );
        assert_eq!(Progress::decode(text.as_bytes()).unwrap(), progress(9));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let message = |text: &str| Progress::decode(text.as_bytes()).unwrap_err().to_string();
        assert!(message("hello").contains("does not hold what a word count writes"));
        assert!(message(r#"{"format":2,"new":true}"#).contains("has format 2"));
        let wrong = |change: fn(&mut Progress)| {
            let mut progress = progress(9);
            change(&mut progress);
            message(&String::from_utf8(progress.encode()).unwrap())
        };
        assert!(wrong(|progress| progress.next = 10).contains("more chunks"));
        assert!(wrong(|progress| progress.missing = vec![0]).contains("not handed out"));
        assert!(wrong(|progress| progress.done = 1).contains("not those handed out"));
    }

    proptest! {
        #[test]
        fn every_chunk_is_handed_out_until_it_counts_and_never_again(
            total in 0_u64..60,
            batch in 1_u64..10,
            luck in prop::collection::vec(any::<bool>(), 400),
        ) {
            let mut progress = progress(total);
            let mut luck = luck.into_iter();
            let mut counted = Vec::new();
            while !progress.complete() {
                let chunks = progress.batch(batch);
                prop_assert!(!chunks.is_empty());
                let done: Vec<_> = chunks.iter().copied().filter(|_| luck.next().unwrap_or(true)).collect();
                counted.extend_from_slice(&done);
                progress.settle(&chunks, &done);
                prop_assert_eq!(&Progress::decode(&progress.encode()).unwrap(), &progress);
                prop_assert!(progress.missing.len() as u64 <= batch);
            }
            counted.sort_unstable();
            prop_assert_eq!(counted, (0..total).collect::<Vec<_>>());
        }
    }
}
