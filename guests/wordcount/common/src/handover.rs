//! What one version hands to the next in a swap: a first line of JSON, then the counts as text.

use serde::{Deserialize, Serialize};

use crate::counts::Counts;
use crate::progress::Progress;
use crate::store::Checkpoint;

/// The format; the first thing in the JSON.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    /// None on a node that does not lead.
    leading: Option<Leading>,
}

#[derive(Serialize, Deserialize)]
struct Leading {
    epoch: u64,
    version: u32,
    claim: u32,
    serial: u64,
    progress: Progress,
}

/// The in-memory state of a leader (its epoch and checkpoint), or of a node that does not lead.
#[must_use]
pub fn encode(state: Option<(u64, &Checkpoint)>) -> Vec<u8> {
    let leading = state.map(|(epoch, checkpoint)| Leading {
        epoch,
        version: checkpoint.version,
        claim: checkpoint.claim,
        serial: checkpoint.serial,
        progress: checkpoint.progress.clone(),
    });
    // Structs of strings and numbers always have a JSON form, and it has no line feed.
    let mut snapshot = serde_json::to_vec(&Head { format: FORMAT, leading }).unwrap_or_default();
    snapshot.push(b'\n');
    if let Some((_, checkpoint)) = state {
        snapshot.extend(checkpoint.counts.encode());
    }
    snapshot
}

/// Reads what [`encode`] has written.
///
/// # Errors
/// Says why it cannot be read; the swap is then rolled back.
pub fn decode(snapshot: &[u8]) -> Result<Option<(u64, Checkpoint)>, String> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let mut lines = snapshot.splitn(2, |byte| *byte == b'\n');
    let head = lines.next().unwrap_or_default();
    let unreadable = |error: serde_json::Error| format!("this is no snapshot of a word count: {error}");
    let format = serde_json::from_slice::<Format>(head).map_err(unreadable)?.format;
    if format != FORMAT {
        return Err(format!("the snapshot has format {format} and this version knows only {FORMAT}"));
    }
    let head: Head = serde_json::from_slice(head).map_err(unreadable)?;
    let Some(Leading { epoch, version, claim, serial, progress }) = head.leading else {
        return Ok(None);
    };
    let counts = Counts::decode(lines.next().unwrap_or_default()).map_err(|error| format!("the snapshot's {error}"))?;
    Ok(Some((epoch, Checkpoint { progress, version, claim, serial, counts })))
}
