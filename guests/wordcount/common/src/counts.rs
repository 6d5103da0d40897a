//! How often each word was seen, and the text form of it.

use std::collections::BTreeMap;
use std::io::Write as _;

/// How often each word was seen. As text: a line `count word` for each word, sorted by the word's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    words: BTreeMap<String, u64>,
    total: u64,
}

/// A text that is not one of counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not `count word`: {text:?}")]
pub struct BadCounts {
    line: usize,
    text: String,
}

impl Counts {
    /// Adds `count` sightings of `word`.
    pub fn add(&mut self, word: String, count: u64) {
        if count > 0 {
            *self.words.entry(word).or_default() += count;
            self.total += count;
        }
    }

    /// Adds what another count has seen.
    pub fn merge(&mut self, other: Self) {
        for (word, count) in other.words {
            self.add(word, count);
        }
    }

    /// How many words were seen.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many different words were seen.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.words.len()
    }

    /// The text form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_split(usize::MAX).pop().unwrap_or_default()
    }

    /// The text form in pieces of at most `limit` bytes each (more only if one line alone is longer); no piece if nothing was
    /// seen. Put one after the other, the pieces are the text form. The same counts always make the same pieces.
    #[must_use]
    pub fn encode_split(&self, limit: usize) -> Vec<Vec<u8>> {
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        let mut line = Vec::new();
        for (word, count) in &self.words {
            line.clear();
            // Writing to a Vec cannot fail.
            let _ = writeln!(line, "{count} {word}");
            match pieces.last_mut() {
                Some(piece) if piece.len().saturating_add(line.len()) <= limit => piece.extend_from_slice(&line),
                _ => pieces.push(line.clone()),
            }
        }
        pieces
    }

    /// Reads the text form, or a piece of it.
    ///
    /// # Errors
    /// [`BadCounts`] names the first line that is not one of counts.
    pub fn decode(text: &[u8]) -> Result<Self, BadCounts> {
        let mut counts = Self::default();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let (word, count) = parse_line(line).ok_or_else(|| BadCounts {
                line: index + 1,
                text: String::from_utf8_lossy(line).chars().take(80).collect(),
            })?;
            counts.add(word, count);
        }
        Ok(counts)
    }
}

fn parse_line(line: &[u8]) -> Option<(String, u64)> {
    let (count, word) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let is_word = !word.is_empty() && word.bytes().all(crate::words::is_letter);
    is_word.then(|| count.parse().ok().map(|count| (word.to_owned(), count)))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = Counts> {
        prop::collection::btree_map("[A-Za-z]{1,6}", 1_u64..1_000, 0..40).prop_map(|words| {
            let mut counts = Counts::default();
            words.into_iter().for_each(|(word, count)| counts.add(word, count));
            counts
        })
    }

    #[test]
    fn what_is_not_counts_is_refused() {
        for bad in ["word", "x word", "1 two words", "1 ", "1  word", "-1 word", "1 wörd"] {
            let text = format!("3 fine\n{bad}\n");
            assert_eq!(Counts::decode(text.as_bytes()).unwrap_err().line, 2, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn the_text_form_reads_back(counts in counts(), limit in 1_usize..200) {
            prop_assert_eq!(&Counts::decode(&counts.encode()).unwrap(), &counts);
            let pieces = counts.encode_split(limit);
            prop_assert_eq!(pieces.concat(), counts.encode());
            for piece in &pieces {
                prop_assert!(piece.len() <= limit || piece.iter().filter(|byte| **byte == b'\n').count() == 1);
            }
            let mut merged = Counts::default();
            pieces.iter().for_each(|piece| merged.merge(Counts::decode(piece).unwrap()));
            prop_assert_eq!(merged, counts);
        }

        #[test]
        fn merging_is_adding(one in counts(), two in counts()) {
            let (mut ab, mut ba) = (one.clone(), two.clone());
            ab.merge(two.clone());
            ba.merge(one.clone());
            prop_assert_eq!(&ab, &ba);
            prop_assert_eq!(ab.total(), one.total() + two.total());
        }
    }
}
