//! What a guest prints and logs, line by line and within bounds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::host::{Host, LogLevel};

/// A longer line is told in pieces.
const LINE: usize = 8 << 10;
/// The last lines of stderr that a failure is explained with.
const TAIL_LINES: usize = 12;
/// What a guest may hand to a stream in one write.
const PERMIT: usize = 64 << 10;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    fn level(self) -> LogLevel {
        match self {
            Self::Stdout => LogLevel::Info,
            Self::Stderr => LogLevel::Warn,
        }
    }
}

/// The log of one instance; shared by its streams.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<Inner>>);

struct Inner {
    host: Arc<dyn Host>,
    /// Whether the manifest lets the guest's words reach the log.
    granted: bool,
    limit: u64,
    left: u64,
    dropped_lines: u64,
    dropped_bytes: u64,
    partial: [Vec<u8>; 2],
    tail: VecDeque<String>,
}

impl Output {
    pub(crate) fn new(host: Arc<dyn Host>, granted: bool, limit: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            host,
            granted,
            limit,
            left: limit,
            dropped_lines: 0,
            dropped_bytes: 0,
            partial: [Vec::new(), Vec::new()],
            tail: VecDeque::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins: its allowance is fresh.
    pub(crate) fn begin(&self) {
        let mut inner = self.lock();
        inner.left = inner.limit;
        inner.tail.clear();
    }

    /// A call has ended: what was not ended by a line feed is told, and how much was dropped.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        for channel in [Channel::Stdout, Channel::Stderr] {
            let rest = std::mem::take(&mut inner.partial[channel as usize]);
            if !rest.is_empty() {
                inner.line(channel, &rest);
            }
        }
        let (lines, bytes) = (std::mem::take(&mut inner.dropped_lines), std::mem::take(&mut inner.dropped_bytes));
        if lines > 0 {
            let limit = inner.limit;
            inner.host.log(
                LogLevel::Warn,
                "runtime",
                &format!(
                    "{lines} more log lines ({bytes} bytes) of this call were dropped: `log` under [group.limits] allows \
                     {limit} bytes a call"
                ),
            );
        }
    }

    /// Takes a message of `wasi:logging`.
    pub(crate) fn message(&self, level: LogLevel, context: &str, message: &str) {
        self.lock().tell(level, context, message);
    }

    /// A line of the runtime's own, about the guest.
    pub(crate) fn runtime(&self, level: LogLevel, message: &str) {
        let host = Arc::clone(&self.lock().host);
        host.log(level, "runtime", message);
    }

    /// The last words on stderr, oldest first: where a panic says its reason.
    pub(crate) fn last_words(&self) -> Vec<String> {
        self.lock().tail.iter().cloned().collect()
    }

    fn write(&self, channel: Channel, bytes: &[u8]) {
        let mut inner = self.lock();
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LINE - inner.partial[channel as usize].len();
            let window = &rest[..rest.len().min(room)];
            let (taken, ends) = match window.iter().position(|b| *b == b'\n') {
                Some(at) => (at, true),
                None => (window.len(), window.len() == room),
            };
            inner.partial[channel as usize].extend_from_slice(&window[..taken]);
            rest = &rest[taken..];
            if ends {
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
                let mut line = std::mem::take(&mut inner.partial[channel as usize]);
                inner.line(channel, &line);
                line.clear();
                inner.partial[channel as usize] = line;
            }
        }
    }
}

impl Inner {
    fn line(&mut self, channel: Channel, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = String::from_utf8_lossy(line);
        if channel == Channel::Stderr {
            if self.tail.len() == TAIL_LINES {
                self.tail.pop_front();
            }
            let mut kept = text.to_string();
            if kept.len() > 500 {
                kept.truncate(kept.floor_char_boundary(500));
                kept.push('…');
            }
            self.tail.push_back(kept);
        }
        if self.granted {
            self.tell(channel.level(), channel.name(), &text);
        }
    }

    fn tell(&mut self, level: LogLevel, context: &str, message: &str) {
        let cost = (context.len() + message.len() + 1) as u64;
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                self.host.log(level, context, message);
            }
            None => {
                // Nothing small slips in after the first line that was too much: what is told has no holes.
                self.left = 0;
                self.dropped_lines += 1;
                self.dropped_bytes += cost;
            }
        }
    }
}

/// One of the guest's two standard streams.
#[derive(Clone)]
pub(crate) struct Stream {
    output: Output,
    channel: Channel,
}

impl Stream {
    pub(crate) fn new(output: &Output, channel: Channel) -> Self {
        Self { output: output.clone(), channel }
    }
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write(self.channel, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

#[async_trait::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.output.write(self.channel, bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
