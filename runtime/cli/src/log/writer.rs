//! Writing without waiting: whoever reads stderr may be slow or stuck, and the node must not be. Lines, and what makes lines, go through a
//! bounded queue to a thread; when the queue is full they are dropped and counted, and the count is told as soon as there is room.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::Duration;

use bellwether_node::Making;

/// How many lines may wait.
const QUEUE: usize = 4096;

/// So many bytes are written at once, if there are as many.
const AT_ONCE: usize = 64 << 10;

/// How long the end of the program waits for lines that are on their way.
const LAST: Duration = Duration::from_secs(1);

thread_local! {
    /// On the thread that writes: what it is about to write.
    static OUTGOING: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

enum Item {
    Line(String),
    Making(Making),
    Flush(SyncSender<()>),
}

/// Takes lines.
#[derive(Clone)]
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
        // What is being made stands where it was asked for.
        if !put(text.as_bytes()) {
            self.queue(Item::Line(text));
        }
    }

    /// Takes what makes lines; it does so on the thread that writes. Never waits.
    pub fn made_later(&self, making: Making) {
        self.queue(Item::Making(making));
    }

    fn queue(&self, item: Item) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(item) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Adds to what is about to be written; not so on another thread than the one that writes.
fn put(bytes: &[u8]) -> bool {
    OUTGOING.with_borrow_mut(|outgoing| outgoing.as_mut().map(|outgoing| outgoing.extend_from_slice(bytes)).is_some())
}

fn write(mut out: impl Write, queue: &Receiver<Item>, dropped: &AtomicU64) {
    // An error has nobody to be told to: this is where errors are told.
    let write_out = |out: &mut dyn Write| {
        let outgoing = OUTGOING.replace(Some(Vec::new())).unwrap_or_default();
        let _ = out.write_all(&outgoing);
    };
    write_out(&mut out);
    while let Ok(item) = queue.recv() {
        let mut next = Some(item);
        while let Some(item) = next {
            match item {
                Item::Line(line) => {
                    put(line.as_bytes());
                }
                Item::Making(making) => making(),
                Item::Flush(done) => {
                    write_out(&mut out);
                    let _ = out.flush();
                    let _ = done.send(());
                }
            }
            let full = OUTGOING.with_borrow(|outgoing| outgoing.as_ref().is_some_and(|text| text.len() >= AT_ONCE));
            next = if full { None } else { queue.try_recv().ok() };
        }
        write_out(&mut out);
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
            // Each as long as what is written at once.
            writer.line(format!("{n}{}\n", " ".repeat(AT_ONCE)));
        }
        drop(shut);
        // There is room again as soon as the thread has taken one.
        let (done, finished) = mpsc::sync_channel(1);
        writer.queue.send(Item::Flush(done)).unwrap();
        finished.recv_timeout(Duration::from_secs(30)).unwrap();
        drop(flush);
        let text = String::from_utf8(out.written.lock().unwrap().clone()).unwrap();
        let (lines, lost): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.trim().parse::<u32>().is_ok());
        assert_eq!(lines[0].trim(), "0");
        assert!((4..=5).contains(&lines.len()), "{}", lines.len());
        assert_eq!(lost.len(), 1, "{lost:#?}");
        assert!(lost[0].contains(&format!("{} log lines were dropped", 100 - lines.len())), "{lost:#?}");
    }

    #[test]
    fn what_is_made_later_stands_where_it_was_asked_for() {
        let out = Sluggish::default();
        let (writer, flush) = Writer::start(out.clone()).unwrap();
        let here = std::thread::current().id();
        writer.line("1\n".to_owned());
        let making = writer.clone();
        writer.made_later(Box::new(move || {
            assert_ne!(std::thread::current().id(), here);
            making.line("2\n".to_owned());
            making.line("3\n".to_owned());
        }));
        writer.line("4\n".to_owned());
        drop(flush);
        assert_eq!(String::from_utf8(out.written.lock().unwrap().clone()).unwrap(), "1\n2\n3\n4\n");
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
