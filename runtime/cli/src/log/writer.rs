//! Writing without waiting: whoever reads stderr may be slow or stuck, and the node must not be. Lines go through a bounded
//! queue to a thread; when the queue is full they are dropped and counted, and the count is told as soon as there is room.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::Duration;

/// How many lines may wait.
const QUEUE: usize = 4096;

/// How long the end of the program waits for lines that are on their way.
const LAST: Duration = Duration::from_secs(1);

enum Item {
    Line(String),
    Flush(SyncSender<()>),
}

/// Takes lines.
pub struct Writer {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

/// Writes what is on its way when dropped.
#[must_use = "lines on their way are lost without it"]
pub struct Flush(SyncSender<Item>);

impl Writer {
    /// Starts the thread that writes to `out`.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<(Self, Flush)> {
        Self::with_queue(out, QUEUE)
    }

    fn with_queue(out: impl Write + Send + 'static, queue: usize) -> io::Result<(Self, Flush)> {
        let (sender, receiver) = mpsc::sync_channel(queue);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(out, &receiver, &counted))?;
        Ok((Self { queue: sender.clone(), dropped }, Flush(sender)))
    }

    /// Takes a line, with its end. Never waits.
    pub fn line(&self, text: String) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Item::Line(text)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(mut out: impl Write, queue: &Receiver<Item>, dropped: &AtomicU64) {
    while let Ok(item) = queue.recv() {
        // An error has nobody to be told to: this is where errors are told.
        match item {
            Item::Line(line) => {
                let _ = out.write_all(line.as_bytes());
            }
            Item::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(
                out,
                "{{\"level\":\"WARN\",\"message\":\"{lost} log lines were dropped: stderr is read too slowly\"}}"
            );
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, finished) = mpsc::sync_channel(1);
        // A full queue means that nobody reads: then waiting is of no use.
        if self.0.try_send(Item::Flush(done)).is_ok() {
            let _ = finished.recv_timeout(LAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A stderr that can be held up.
    #[derive(Clone, Default)]
    struct Sluggish {
        gate: Arc<Mutex<()>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Sluggish {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock().unwrap();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_never_time() {
        let out = Sluggish::default();
        let shut = out.gate.lock().unwrap();
        let (writer, flush) = Writer::with_queue(out.clone(), 4).unwrap();
        for n in 0..100 {
            writer.line(format!("{n}\n"));
        }
        drop(shut);
        // There is room again as soon as the thread has taken one.
        let (done, finished) = mpsc::sync_channel(1);
        writer.queue.send(Item::Flush(done)).unwrap();
        finished.recv_timeout(Duration::from_secs(30)).unwrap();
        drop(flush);
        let text = String::from_utf8(out.written.lock().unwrap().clone()).unwrap();
        let (lines, lost): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.parse::<u32>().is_ok());
        assert_eq!(lines[0], "0");
        assert!((4..=5).contains(&lines.len()), "{text}");
        assert_eq!(lost.len(), 1, "{text}");
        assert!(lost[0].contains(&format!("{} log lines were dropped", 100 - lines.len())), "{text}");
    }

    #[test]
    fn nothing_is_lost_at_the_end() {
        let out = Sluggish::default();
        let (writer, flush) = Writer::start(out.clone()).unwrap();
        for n in 0..1000 {
            writer.line(format!("{n}\n"));
        }
        drop(flush);
        assert_eq!(out.written.lock().unwrap().iter().filter(|&&byte| byte == b'\n').count(), 1000);
    }
}
