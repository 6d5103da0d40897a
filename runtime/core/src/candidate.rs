//! The names of candidates' znodes, and their order.

use crate::config::ElectionFormat;
use crate::id::{Guid, NodeId};

/// The znode of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub name: String,
    pub guid: Guid,
    pub seq: i64,
}

impl Candidate {
    /// Whether the counter was at its end, or past it: such a suffix says that those before the end are older, and nothing more.
    pub(crate) fn is_of_the_end(&self) -> bool {
        self.seq >= COUNTER_END
    }
}

/// The counter is an i32. Servers before 3.6 go on below zero; later ones stay here for good.
pub(crate) const COUNTER_END: i64 = i32::MAX as i64;
const COUNTER_WARNING: i64 = 1 << 30;

/// What to say of the counter below `path`, once it is high.
pub(crate) fn counter_warning(path: &str, counter: i64) -> Option<String> {
    let what = "to have it begin anew, stop all nodes of the group, delete that znode, and start them";
    match counter {
        COUNTER_END.. => Some(format!(
            "the counter of {path} has come to its end: the group goes on, but whoever joins reads more; {what}"
        )),
        COUNTER_WARNING.. => Some(format!("the counter of {path} stands at {counter} of {COUNTER_END}; {what}")),
        _ => None,
    }
}

impl ElectionFormat {
    /// The name that a candidate's znode begins with; the server appends the counter.
    pub(crate) fn prefix(self, id: &NodeId, guid: &Guid) -> String {
        match self {
            Self::Bellwether => format!("{id}-{guid}-n_"),
            Self::Curator => {
                let hex = guid.as_str();
                let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
                format!("_c_{uuid}-latch-")
            }
        }
    }

    /// What a candidate's znode holds: who it is. Curator takes all of it for the participant's id.
    pub(crate) fn data(self, id: &NodeId, address: &str) -> String {
        match self {
            Self::Bellwether => serde_json::json!({ "id": id, "address": address }).to_string(),
            Self::Curator => id.to_string(),
        }
    }

    /// Takes the name of a znode apart; `None` for anything that is not a candidate's.
    pub(crate) fn parse(self, name: &str) -> Option<Candidate> {
        let (guid, seq) = match self {
            Self::Bellwether => {
                let (front, seq) = name.rsplit_once("-n_")?;
                let (id, guid) = front.rsplit_once('-')?;
                (Guid::new(guid).filter(|_| !id.is_empty())?, seq)
            }
            Self::Curator => {
                let (uuid, seq) = name.strip_prefix("_c_")?.rsplit_once("-latch-")?;
                let shape = uuid.bytes().enumerate().all(|(at, b)| (b == b'-') == matches!(at, 8 | 13 | 18 | 23));
                (Guid::new(&uuid.replace('-', "")).filter(|_| shape)?, seq)
            }
        };
        Some(Candidate { name: name.to_owned(), guid, seq: parse_counter(seq)? })
    }
}

/// The counter that the server appends to a sequential znode's name: at least ten characters, an i32 printed as it is. Past
/// 2^31 it goes on below zero, but it still goes on.
pub(crate) fn parse_counter(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if text.len() < 10 || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let counter: i64 = text.parse().ok()?;
    Some(if (i64::from(i32::MIN)..0).contains(&counter) { counter + (1 << 32) } else { counter })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_names_of_candidates_are_read_strictly() {
        let parse = |name: &str| ElectionFormat::Bellwether.parse(name).map(|candidate| candidate.seq);
        assert_eq!(parse(&format!("a-{GUID}-n_0000000007")), Some(7));
        assert_eq!(parse(&format!("a-b-c-{GUID}-n_2147483647")), Some(2_147_483_647));
        assert_eq!(parse(&format!("a-{GUID}-n_-2147483648")), Some(2_147_483_648));
        assert_eq!(parse(&format!("a-{GUID}-n_-000000001")), Some(4_294_967_295));
        for foreign in [
            "lock-0000000001".to_owned(),
            format!("a-{GUID}-n_7"),
            format!("a-{GUID}-n_00000000x7"),
            format!("-{GUID}-n_0000000007"),
            format!("{GUID}-n_0000000007"),
            format!("a-{}-n_0000000007", &GUID[1..]),
            format!("a-{}-n_0000000007", GUID.to_uppercase()),
            format!("a-{GUID}-latch-0000000007"),
            format!("a-{GUID}-n_+000000007"),
        ] {
            assert_eq!(parse(&foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_high_counter_is_warned_of_and_its_end_too() {
        assert_eq!(counter_warning("/e", (1 << 30) - 1), None);
        let high = counter_warning("/e", 1 << 30).unwrap();
        assert!(high.contains("/e stands at 1073741824 of 2147483647") && high.contains("delete that znode"), "{high}");
        for end in [COUNTER_END, parse_counter("-2147483648").unwrap()] {
            let text = counter_warning("/e", end).unwrap();
            assert!(text.contains("/e has come to its end") && text.contains("delete that znode"), "{text}");
        }
    }

    #[test]
    fn curators_names_are_read_and_made() {
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        let guid = Guid::new(GUID).unwrap();
        let prefix = ElectionFormat::Curator.prefix(&NodeId::new("a").unwrap(), &guid);
        assert_eq!(prefix, format!("_c_{uuid}-latch-"));
        assert_eq!(ElectionFormat::Curator.data(&NodeId::new("a").unwrap(), "h:1"), "a");
        assert_eq!(ElectionFormat::Bellwether.data(&NodeId::new("a").unwrap(), "h:1"), r#"{"address":"h:1","id":"a"}"#);
        let candidate = ElectionFormat::Curator.parse(&format!("{prefix}0000000012")).unwrap();
        assert_eq!((candidate.guid, candidate.seq), (guid, 12));
        for foreign in
            [format!("_c_{GUID}-latch-0000000001"), format!("_c_{uuid}-lock-0000000001"), "latch-0000000001".into()]
        {
            assert_eq!(ElectionFormat::Curator.parse(&foreign), None, "{foreign}");
        }
    }
}
