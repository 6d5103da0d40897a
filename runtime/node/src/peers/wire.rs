//! What goes over the wire, and how it becomes the core's words.

use std::time::Duration;

use bellwether_core::id::Epoch;
use bellwether_core::work::WorkError;
use bytes::Bytes;

use super::Part;
use super::limits::MAX_TEXT;

#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated from proto/peers.proto")]
mod generated {
    tonic::include_proto!("bellwether.peers.v1");
}

pub(super) use self::generated::fetch_response::Outcome as FetchOutcome;
pub(super) use self::generated::handle_response::Outcome;
pub(super) use self::generated::refusal::Kind;
pub(super) use self::generated::workers_client::WorkersClient;
pub(super) use self::generated::workers_server::{Workers, WorkersServer};
pub(super) use self::generated::{
    FetchRequest, FetchResponse, HandleRequest, HandleResponse, Nothing, Part as WirePart, Refusal,
};

/// The header that says how long the encoded request is.
pub(super) const BYTES_HEADER: &str = "bellwether-bytes";

/// The header of a refusal that says what would not have been too large.
pub(super) const LIMIT_HEADER: &str = "bellwether-limit";

/// The header of the deadline, gRPC's own.
pub(super) const TIMEOUT_HEADER: &str = "grpc-timeout";

/// What a message costs on the wire beyond its encoded length: gRPC's flag and length.
pub(super) const PREFIX: usize = 5;

/// Puts the outcome of a piece of work into words that the sender understands.
pub(super) fn response(outcome: Result<Bytes, WorkError>) -> HandleResponse {
    let outcome = match outcome {
        Ok(answer) => Outcome::Answer(answer),
        Err(error) => Outcome::Refusal(Refusal { kind: Some(kind(error)) }),
    };
    HandleResponse { outcome: Some(outcome) }
}

pub(super) fn kind(error: WorkError) -> Kind {
    match error {
        WorkError::StaleEpoch(Epoch(seen)) => Kind::StaleEpoch(seen),
        WorkError::Overloaded => Kind::Overloaded(Nothing {}),
        WorkError::Failed(how) => Kind::Failed(shorten(how)),
        WorkError::TimedOut => Kind::TimedOut(Nothing {}),
        WorkError::TooLarge(limit) => Kind::TooLarge(limit),
        WorkError::UnknownMember => Kind::UnknownMember(Nothing {}),
        WorkError::NotLeader => Kind::NotLeader(Nothing {}),
        WorkError::Other(what) => Kind::Other(shorten(what)),
        // The sender did reach us: what we could not reach is no peer of the sender's.
        error @ WorkError::Unreachable(_) => Kind::Other(shorten(error.to_string())),
    }
}

/// The outcome that a peer's response stands for.
pub(super) fn outcome(response: HandleResponse) -> Result<Bytes, WorkError> {
    let kind = match response.outcome {
        Some(Outcome::Answer(answer)) => return Ok(answer),
        Some(Outcome::Refusal(refusal)) => refusal.kind,
        None => None,
    };
    Err(error(kind))
}

/// What a refusal means.
pub(super) fn error(kind: Option<Kind>) -> WorkError {
    match kind {
        Some(Kind::StaleEpoch(seen)) => WorkError::StaleEpoch(Epoch(seen)),
        Some(Kind::Overloaded(Nothing {})) => WorkError::Overloaded,
        Some(Kind::Failed(how)) => WorkError::Failed(shorten(how)),
        Some(Kind::TimedOut(Nothing {})) => WorkError::TimedOut,
        Some(Kind::TooLarge(limit)) => WorkError::TooLarge(limit),
        Some(Kind::UnknownMember(Nothing {})) => WorkError::UnknownMember,
        Some(Kind::NotLeader(Nothing {})) => WorkError::NotLeader,
        Some(Kind::Other(what)) => WorkError::Other(shorten(what)),
        None => WorkError::Other("the peer refused for a reason that this version does not know".to_owned()),
    }
}

/// Puts a part of a component into words that the one who asked understands.
pub(super) fn fetch_response(part: Result<Part, WorkError>) -> FetchResponse {
    let outcome = match part {
        Ok(Part { data, whole, signatures }) => FetchOutcome::Part(WirePart { data, whole, signatures }),
        Err(error) => FetchOutcome::Refusal(Refusal { kind: Some(kind(error)) }),
    };
    FetchResponse { outcome: Some(outcome) }
}

/// The part that a peer's response holds.
pub(super) fn part(response: FetchResponse) -> Result<Part, WorkError> {
    match response.outcome {
        Some(FetchOutcome::Part(WirePart { data, whole, signatures })) => Ok(Part { data, whole, signatures }),
        Some(FetchOutcome::Refusal(refusal)) => Err(error(refusal.kind)),
        None => Err(error(None)),
    }
}

/// Cuts a text that a guest or a peer made as long as it liked.
pub(super) fn shorten(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}

/// How gRPC writes a time that is left: in whole milliseconds, or seconds if it is long, and rather too much than too little. Values
/// that are the same in one request after the other are sent once and then named by number; those in microseconds never are.
pub(super) fn timeout_text(left: Duration) -> String {
    let millis = left.as_nanos().div_ceil(1_000_000);
    if millis < 100_000_000 { format!("{millis}m") } else { format!("{}S", millis.div_ceil(1000).min(99_999_999)) }
}

/// Reads a `grpc-timeout`: at most eight digits and a unit. Nothing else is one.
pub(super) fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_survives_the_wire() {
        let outcomes = [
            Ok(Bytes::from_static(b"answer")),
            Ok(Bytes::new()),
            Err(WorkError::StaleEpoch(Epoch(u64::MAX))),
            Err(WorkError::Overloaded),
            Err(WorkError::Failed("boom".into())),
            Err(WorkError::TimedOut),
            Err(WorkError::TooLarge(7)),
            Err(WorkError::UnknownMember),
            Err(WorkError::NotLeader),
            Err(WorkError::Other("odd".into())),
        ];
        for expected in outcomes {
            assert_eq!(outcome(response(expected.clone())), expected);
        }
    }

    #[test]
    fn a_response_without_meaning_is_an_error() {
        assert!(matches!(outcome(HandleResponse { outcome: None }), Err(WorkError::Other(_))));
        let unknown = HandleResponse { outcome: Some(Outcome::Refusal(Refusal { kind: None })) };
        assert!(matches!(outcome(unknown), Err(WorkError::Other(_))));
    }

    #[test]
    fn a_time_that_is_left_is_written_in_few_values_and_never_as_less() {
        assert_eq!(timeout_text(Duration::from_micros(4_999_998)), "5000m");
        assert_eq!(timeout_text(Duration::ZERO), "0m");
        assert_eq!(timeout_text(Duration::MAX), "99999999S");
        for nanos in (0..40).map(|n| 3_u64.pow(n)) {
            let (left, told) = (Duration::from_nanos(nanos), timeout_text(Duration::from_nanos(nanos)));
            let told = parse_timeout(&told).unwrap();
            let unit = if left < Duration::from_secs(99_999) { 1 } else { 1000 };
            assert!(told >= left.min(Duration::from_secs(99_999_999)), "{left:?} as {told:?}");
            assert!(told < left + Duration::from_millis(unit), "{left:?} as {told:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let cut = shorten("ä".repeat(MAX_TEXT));
        assert!(cut.len() <= MAX_TEXT + '…'.len_utf8() && cut.ends_with("ä…"));
        assert_eq!(shorten("short".to_owned()), "short");
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse_timeout("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse_timeout("0n"), Some(Duration::ZERO));
        for bad in ["", "S", "5", "123456789S", "-1S", "+1S", "1.5S", "5x", "5ä", "ä"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }
}
