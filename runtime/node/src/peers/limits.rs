//! How much the links between nodes may use.

use std::time::Duration;

use tokio::time::Instant;

/// As long as any limit need be: what is longer could not be counted.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a message may be longer than its payload: names, epoch and framing, or the text of an error.
pub(super) const SLACK: usize = 64 << 10;

/// The longest text of an error that is passed on.
pub(super) const MAX_TEXT: usize = 16 << 10;

/// The limits of the links between this node and its peers. Work beyond a limit is refused as overloaded at once, never
/// queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerLimits {
    /// The greatest payload and the greatest answer, in bytes.
    pub message_bytes: u64,
    /// Requests that this node serves at once, of all peers together.
    pub in_flight: usize,
    /// Bytes of the requests that this node serves at once. At least one message of the greatest size fits, whatever this says.
    pub in_flight_bytes: u64,
    /// Requests under way from this node to one peer.
    pub per_peer: usize,
    /// Connections that peers may have open to this node.
    pub connections: usize,
    /// Peers that this node keeps connections to; beyond that, the one that was used least recently is let go.
    pub peers: usize,
    /// How long making a connection may take, name resolution and TLS included.
    pub connect: Duration,
    /// How long a connection may be silent before the peer is probed; one that does not answer within as long again is
    /// given up.
    pub keepalive: Duration,
    /// The longest deadline of a request; longer ones are cut down to it.
    pub deadline: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            message_bytes: 64 << 20,
            in_flight: 256,
            in_flight_bytes: 512 << 20,
            per_peer: 256,
            connections: 1024,
            peers: 4096,
            connect: Duration::from_secs(1),
            keepalive: Duration::from_secs(5),
            deadline: Duration::from_secs(600),
        }
    }
}

impl PeerLimits {
    /// The longest encoded message.
    pub(super) fn encoded(&self) -> usize {
        usize::try_from(self.message_bytes).unwrap_or(usize::MAX).saturating_add(SLACK)
    }

    /// When a request that may take `timeout` has to be done, counted from now.
    pub(super) fn deadline_in(&self, timeout: Duration) -> Instant {
        Instant::now() + timeout.min(self.deadline).min(FOREVER)
    }

    /// Whether a payload or an answer of `length` bytes is within the limit.
    pub(super) fn admits(&self, length: usize) -> bool {
        u64::try_from(length).is_ok_and(|length| length <= self.message_bytes)
    }
}

/// The HTTP/2 flow-control window of one request or answer: what may be under way unacknowledged. The default of 64 KiB makes
/// a message of 16 MiB take hundreds of round trips.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;

/// The same for one connection, all of its requests and answers together: many times that of one, as otherwise a few large
/// messages take all of it and a short one waits behind them (measured: 610 ms instead of 60 behind eight of 16 MiB).
pub(super) const CONNECTION_WINDOW: u32 = 64 << 20;

/// The greatest HTTP/2 frame.
pub(super) const FRAME: u32 = 64 << 10;
