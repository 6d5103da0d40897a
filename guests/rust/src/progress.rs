//! How far the sums are, and how that is written down.

use std::str::Split;

use crate::bellwether::runtime::state::Expectation;

pub const MOST_JOBS: u64 = 1_000_000;
pub const MOST_SQUARE: u64 = MOST_JOBS * MOST_JOBS;
const MOST_TOTAL: u64 = 1_000_000_000_000_000_000;

pub struct Progress {
    pub next: u64,
    pub total: u64,
    /// Jobs to be done again, in ascending order.
    pub again: Vec<u64>,
    /// Of the key `total`, as this leader left it.
    pub version: Option<u32>,
    /// Ticks that were not saved.
    pub unsaved: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { next: 1, total: 0, again: Vec::new(), version: None, unsaved: 0 }
    }
}

/// Decimal digits and nothing else: `parse` alone would take a `+`.
pub fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    let digits = text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = if digits { text.parse().ok()? } else { return None };
    (least..=most).contains(&value).then_some(value)
}

fn small(text: &str) -> Option<u32> {
    number(text, 0, u32::MAX.into()).and_then(|value| value.try_into().ok())
}

impl Progress {
    fn parse(mut fields: Split<'_, char>) -> Option<Self> {
        let next = number(fields.next()?, 1, MOST_JOBS + 1)?;
        let total = number(fields.next()?, 0, MOST_TOTAL)?;
        let again = fields.map(|job| number(job, 1, next - 1)).collect::<Option<_>>()?;
        Some(Self { next, total, again, version: None, unsaved: 0 })
    }

    fn fields(&self) -> String {
        let again: String = self.again.iter().map(|job| format!(" {job}")).collect();
        format!("{} {}{again}", self.next, self.total)
    }

    pub fn from_state(value: &[u8], version: u32) -> Option<Self> {
        let mut fields = std::str::from_utf8(value).ok()?.split(' ');
        if fields.next() != Some("1") {
            return None;
        }
        let _language = fields.next()?;
        Some(Self { version: Some(version), ..Self::parse(fields)? })
    }

    pub fn to_state(&self) -> Vec<u8> {
        format!("1 rust {}", self.fields()).into_bytes()
    }

    pub fn expectation(&self) -> Expectation {
        self.version.map_or(Expectation::Absent, Expectation::Version)
    }

    pub fn from_handover(state: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(state).ok()?.split(' ');
        if fields.next() != Some("1") {
            return None;
        }
        let version = match fields.next()? {
            "-" => None,
            version => Some(small(version)?),
        };
        let unsaved = small(fields.next()?)?.into();
        Some(Self { version, unsaved, ..Self::parse(fields)? })
    }

    pub fn to_handover(&self) -> Vec<u8> {
        let version = self.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        format!("1 {version} {} {}", self.unsaved, self.fields()).into_bytes()
    }
}
