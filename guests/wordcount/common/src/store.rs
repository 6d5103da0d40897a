//! Checkpoints in the group's state: progress and counts that change together although they are many values.
//!
//! The counts of a pass outgrow one value (a megabyte), so they are kept in *parts*, keys `part/<claim>-<n>`, and the key
//! `progress` names the parts that count. A checkpoint
//!
//! 1. writes its new counts under names that `progress` does not mention and never did,
//! 2. replaces `progress`, on condition that it still has the version that this leader wrote last, by one that names the new
//!    parts and marks their chunks as done,
//! 3. deletes the parts that are no longer named.
//!
//! Why this is atomic: nobody reads a part that `progress` does not name, so all of step 1 is invisible; step 2 is one write of
//! one key, and makes chunks and counts valid in the same instant; step 3 only removes what nobody reads. A leader that dies
//! leaves rubbish at the worst, which the next one sweeps away. Each write is fenced by the runtime, so one that leads no
//! longer changes nothing.
//!
//! Why the names are new: whoever loads a checkpoint first *claims* it, by writing `progress` again; the version that
//! this write gets is used as the first half of the names, and no two claims have the same. The claim also moves the version,
//! so that a write of `progress` whose answer was lost, and which may still be under way, can no longer succeed. Only after that is it
//! safe to sweep.
//!
//! Whenever a write fails, or may have failed, the in-memory copy is dropped and the checkpoint loaded again: the work
//! of one batch is lost, never a chunk, and none counts twice.

use crate::counts::Counts;
use crate::outside::{Expect, Outside, StateError};
use crate::progress::{Phase, Progress};

/// The key that says how far the job is.
pub const PROGRESS: &str = "progress";

/// The most bytes of one part or result: less than the runtime's limit of 1,000,000.
pub const PIECE: usize = 900_000;

/// With more parts than this, the next checkpoint writes all counts anew instead of adding to them.
const MANY_PARTS: usize = 24;

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// This node does not lead: somebody else goes on.
    #[error("this node does not lead any more")]
    NotLeader,
    /// What the state holds is not fit to go on from. For a person to solve.
    #[error("{0}")]
    Unfit(String),
    /// Not now; the next attempt begins by loading again.
    #[error("the state's key `{key}`: {reason}")]
    Failed {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
}

fn failed(key: &str) -> impl FnOnce(StateError) -> StoreError + '_ {
    move |error| match error {
        StateError::NotLeader => StoreError::NotLeader,
        other => StoreError::Failed { key: key.to_owned(), reason: other.to_string() },
    }
}

/// The checkpoint of a leader, as it is in the state and in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// How far the job is.
    pub progress: Progress,
    /// The version of the key `progress`.
    pub version: u32,
    /// The version that this leader's claim got.
    pub claim: u32,
    /// How many parts were written under this claim.
    pub serial: u64,
    /// What the parts hold together; empty when the pass is finished.
    pub counts: Counts,
}

impl Checkpoint {
    /// Reads the checkpoint and claims it, in the name of `version`; none if the job was never begun.
    ///
    /// # Errors
    /// If it cannot be read, is not one, or was claimed by somebody else meanwhile.
    pub fn load(outside: &mut impl Outside, version: &str) -> Result<Option<Self>, StoreError> {
        let Some(entry) = outside.get(PROGRESS).map_err(failed(PROGRESS))? else {
            return Ok(None);
        };
        let mut progress = Progress::decode(&entry.value).map_err(|error| StoreError::Unfit(error.to_string()))?;
        progress.version = version.to_owned();
        let claim =
            outside.put(PROGRESS, &progress.encode(), Expect::Version(entry.version)).map_err(failed(PROGRESS))?;
        let mut counts = Counts::default();
        for part in &progress.parts {
            let entry = outside.get(part).map_err(failed(part))?;
            let entry =
                entry.ok_or_else(|| StoreError::Unfit(format!("`{PROGRESS}` names `{part}`, which is gone")))?;
            let part = Counts::decode(&entry.value).map_err(|error| StoreError::Unfit(format!("`{part}`: {error}")))?;
            counts.merge(part);
        }
        if progress.state == Phase::Counting && counts.total() != progress.words {
            let (found, words) = (counts.total(), progress.words);
            return Err(StoreError::Unfit(format!("the parts hold {found} words and `{PROGRESS}` speaks of {words}")));
        }
        let checkpoint = Self { progress, version: claim, claim, serial: 0, counts };
        checkpoint.sweep(outside)?;
        Ok(Some(checkpoint))
    }

    /// Writes the first checkpoint of a pass, in place of the one before it if there is one.
    ///
    /// # Errors
    /// If it cannot be written; then load again.
    pub fn begin(outside: &mut impl Outside, progress: Progress, before: Option<&Self>) -> Result<Self, StoreError> {
        let expect = before.map_or(Expect::Absent, |before| Expect::Version(before.version));
        let claim = outside.put(PROGRESS, &progress.encode(), expect).map_err(failed(PROGRESS))?;
        let checkpoint = Self { progress, version: claim, claim, serial: 0, counts: Counts::default() };
        checkpoint.sweep(outside)?;
        Ok(checkpoint)
    }

    /// Adds the counts of a batch, with the progress that they bring. `progress.parts` and `progress.words` are seen to here.
    ///
    /// # Errors
    /// If it could not be written, or may not have been; then load again.
    pub fn advance(
        mut self,
        outside: &mut impl Outside,
        mut progress: Progress,
        batch: Counts,
    ) -> Result<Self, StoreError> {
        let all = self.progress.parts.len() >= MANY_PARTS;
        let pieces = if all {
            self.counts.merge(batch);
            self.counts.encode_split(PIECE)
        } else {
            let pieces = batch.encode_split(PIECE);
            self.counts.merge(batch);
            pieces
        };
        progress.parts = if all { Vec::new() } else { self.progress.parts.clone() };
        for piece in pieces {
            let part = format!("part/{}-{}", self.claim, self.serial);
            self.serial += 1;
            outside.put(&part, &piece, Expect::Anything).map_err(failed(&part))?;
            progress.parts.push(part);
        }
        progress.words = self.counts.total();
        self.replace(outside, progress)
    }

    /// Writes the result of a pass whose chunks all count, and marks it as finished. May be done again after a failure: the
    /// same counts make the same results.
    ///
    /// # Errors
    /// If it could not be written, or may not have been; then load again.
    pub fn finish(mut self, outside: &mut impl Outside, version: &str, keep: u64) -> Result<Self, StoreError> {
        let pass = self.progress.pass;
        let mut pieces = self.counts.encode_split(PIECE);
        if pieces.is_empty() {
            // An empty corpus has an empty result, not none.
            pieces.push(Vec::new());
        }
        if pieces.len() > 100 {
            return Err(StoreError::Unfit(format!(
                "the result of pass {pass} is larger than 100 keys of {PIECE} bytes"
            )));
        }
        let mut keys = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let key = format!("result/{pass}/{number:02}");
            outside.put(&key, piece, Expect::Anything).map_err(failed(&key))?;
            keys.push(key);
        }
        // Rests of an attempt of the same number, if `progress` was deleted; and results that are too old to be kept.
        for key in outside.list("result/").map_err(failed("result/"))? {
            let of_pass = key.split('/').nth(1).and_then(|pass| pass.parse::<u64>().ok());
            let too_old = of_pass.is_some_and(|number| number.saturating_add(keep) <= pass);
            if too_old || (of_pass == Some(pass) && !keys.contains(&key)) {
                outside.delete(&key).map_err(failed(&key))?;
            }
        }
        let progress = Progress {
            state: Phase::Finished,
            version: version.to_owned(),
            parts: Vec::new(),
            results: keys.len() as u64,
            ..self.progress.clone()
        };
        self.counts = Counts::default();
        self.replace(outside, progress)
    }

    fn replace(mut self, outside: &mut impl Outside, progress: Progress) -> Result<Self, StoreError> {
        self.version =
            outside.put(PROGRESS, &progress.encode(), Expect::Version(self.version)).map_err(failed(PROGRESS))?;
        let before = std::mem::replace(&mut self.progress, progress);
        for part in before.parts.iter().filter(|part| !self.progress.parts.contains(part)) {
            // What cannot be deleted is rubbish, and whoever loads the checkpoint next sweeps it away.
            if outside.delete(part) == Err(StateError::NotLeader) {
                return Err(StoreError::NotLeader);
            }
        }
        Ok(self)
    }

    /// Deletes the parts that are not named: what leaders that died have left.
    fn sweep(&self, outside: &mut impl Outside) -> Result<(), StoreError> {
        for part in outside.list("part/").map_err(failed("part/"))? {
            if !self.progress.parts.contains(&part) {
                outside.delete(&part).map_err(failed(&part))?;
            }
        }
        Ok(())
    }
}
