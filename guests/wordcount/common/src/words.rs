//! What a word is, and how words are counted.
//!
//! A word is a maximal run of the ASCII letters `A`–`Z` and `a`–`z`; everything else, the bytes of other letters included,
//! stands between words. So `LC_ALL=C tr -cs 'A-Za-z' '\n' | sort | uniq -c` counts the same.

use crate::counts::Counts;

/// The longest word, in bytes. Text with a longer one is refused rather than held in memory without a bound.
pub const MAX_WORD: usize = 64 << 10;

/// Which words are the same word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Words that are written alike: `Word` and `word` are two.
    Exact,
    /// Words that are alike but for the case of their letters: `Word` and `word` are one, `word`.
    Folded,
}

impl Mode {
    /// The name by which tasks and `progress` know the mode.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Folded => "folded",
        }
    }
}

/// Whether a byte belongs to a word.
#[must_use]
pub fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic()
}

/// A word was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text has a word of more than {MAX_WORD} bytes")]
pub struct WordTooLong;

/// Counts the words of `text`.
///
/// # Errors
/// [`WordTooLong`] if a word is longer than [`MAX_WORD`].
pub fn count(text: &[u8], mode: Mode) -> Result<Counts, WordTooLong> {
    let mut counts = Counts::default();
    for word in text.split(|byte| !is_letter(*byte)).filter(|word| !word.is_empty()) {
        if word.len() > MAX_WORD {
            return Err(WordTooLong);
        }
        // Letters are ASCII, so nothing is lost here.
        let mut word = String::from_utf8_lossy(word).into_owned();
        if mode == Mode::Folded {
            word.make_ascii_lowercase();
        }
        counts.add(word, 1);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str, mode: Mode) -> String {
        String::from_utf8(count(text.as_bytes(), mode).unwrap().encode()).unwrap()
    }

    #[test]
    fn words_are_runs_of_ascii_letters() {
        assert_eq!(listed("It's 3 o'clock; it's_late.", Mode::Exact), "1 It\n1 clock\n1 it\n1 late\n1 o\n2 s\n");
        assert_eq!(listed("naïve café", Mode::Exact), "1 caf\n1 na\n1 ve\n");
        assert_eq!(listed("", Mode::Exact), "");
        assert_eq!(listed("42 -- \n\0\u{fffd}", Mode::Exact), "");
    }

    #[test]
    fn folding_makes_the_cases_one() {
        assert_eq!(listed("The the THE tHe", Mode::Exact), "1 THE\n1 The\n1 tHe\n1 the\n");
        assert_eq!(listed("The the THE tHe", Mode::Folded), "4 the\n");
    }

    #[test]
    fn a_word_without_end_is_refused() {
        assert!(count(&vec![b'a'; MAX_WORD], Mode::Exact).is_ok());
        assert_eq!(count(&vec![b'a'; MAX_WORD + 1], Mode::Exact), Err(WordTooLong));
    }
}
