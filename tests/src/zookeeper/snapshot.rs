//! What ZooKeeper keeps in its snapshots, as far as tests change it while no server runs.

use anyhow::{Context, Result, ensure};

/// The checksum at the end: a number, and a text of one character.
const SEAL: usize = 8 + 4 + 1;

/// Has the parent `path` number its next sequential child with `counter`.
///
/// A snapshot is a list of records, each of them a path and a znode: its data, the number of its ACL, the transactions that made
/// and changed it with their times, and then its versions: of its data, of its children, of its ACL. The version of the children
/// is the counter. Behind the list stands the Adler-32 of all before.
pub(super) fn set_counter(snapshot: &mut [u8], path: &str, counter: i32) -> Result<()> {
    let seal = snapshot.len().checked_sub(SEAL).context("the snapshot is too short")?;
    ensure!(snapshot[seal + 8..] == *b"\0\0\0\x01/", "the snapshot does not end with a checksum");
    ensure!(
        snapshot[..seal + 8].ends_with(&u64::from(adler32(&snapshot[..seal])).to_be_bytes()),
        "the checksum is another: digests must be switched off, for they have one of their own"
    );
    let mut text = u32::try_from(path.len())?.to_be_bytes().to_vec();
    text.extend(path.as_bytes());
    let mut found = snapshot.windows(text.len()).enumerate().filter(|(_, part)| *part == text).map(|(at, _)| at);
    let at = found.next().with_context(|| format!("{path} is not in the snapshot"))?;
    ensure!(found.next().is_none(), "{path} is in the snapshot more than once");
    let data = at + text.len();
    let length =
        snapshot.get(data..data + 4).and_then(|length| length.try_into().ok()).context("the record ends early")?;
    // A length of -1 stands for nothing at all.
    let length = usize::try_from(i32::from_be_bytes(length).max(0))?;
    let version = data + 4 + length + 8 + 4 * 8 + 4;
    let field =
        snapshot.get_mut(version..version + 4).filter(|_| version + 4 <= seal).context("the record ends early")?;
    field.copy_from_slice(&counter.to_be_bytes());
    let sum = u64::from(adler32(&snapshot[..seal]));
    snapshot[seal..seal + 8].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

fn adler32(bytes: &[u8]) -> u32 {
    const BASE: u32 = 65_521;
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % BASE;
        (low, (high + low) % BASE)
    });
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_adlers() {
        // Of "ab": 1 + 97 + 98 in the lower half; 98 + 196, the sums so far, in the upper one.
        assert_eq!((adler32(b""), adler32(b"ab")), (1, 0x0126_00c4));
    }

    #[test]
    fn what_is_no_snapshot_is_left_alone() {
        let mut bytes = b"not a snapshot, but long enough".to_vec();
        assert!(set_counter(&mut bytes, "/a", 1).is_err());
        assert_eq!(bytes, b"not a snapshot, but long enough");
    }
}
