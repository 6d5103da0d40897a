//! Writing without waiting: whoever reads stderr may be slow or stuck, and the node must not be. Lines, and what makes lines, go through a
//! bounded queue to a thread; when the queue is full they are dropped and counted, and the count is told as soon as there is room.

use std::cell::RefCell;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime};

use bellwether_node::Making;

/// How many lines may wait.
const QUEUE: usize = 4096;

/// So many bytes are written together at most, and longer lines alone: a pipe keeps what is not longer in one piece (`PIPE_BUF`), whoever
/// else writes to it.
const TOGETHER: usize = 4 << 10;

/// So many bytes are gathered before they are written.
const GATHERED: usize = 64 << 10;

/// How long the end of the program waits for lines that are on their way.
const LAST: Duration = Duration::from_secs(1);

/// What the thread that writes is about to write.
#[derive(Default)]
struct Outgoing {
    text: Vec<u8>,
    /// When what it makes now was asked for.
    asked: Option<Moment>,
}

thread_local! {
    /// On the thread that writes alone.
    static OUTGOING: RefCell<Option<Outgoing>> = const { RefCell::new(None) };
}

/// The time by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For programs.
    pub of_day: SystemTime,
    /// For people, who want to know how long ago the program was started.
    pub running: Instant,
}

impl Moment {
    fn now() -> Self {
        Self { of_day: SystemTime::now(), running: Instant::now() }
    }

    /// When that happened of which a line is made now.
    pub fn of_line() -> Self {
        let asked = OUTGOING.try_with(|outgoing| outgoing.borrow().as_ref().and_then(|outgoing| outgoing.asked));
        asked.ok().flatten().unwrap_or_else(Self::now)
    }
}

enum Item {
    Line(String),
    Making(Moment, Making),
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
            self.queue(Item::Line(text), 1);
        }
    }

    /// Takes what makes lines; it does so on the thread that writes. Never waits.
    pub fn made_later(&self, making: Making) {
        let lines = making.lines;
        self.queue(Item::Making(Moment::now(), making), lines);
    }

    fn queue(&self, item: Item, lines: usize) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(item) {
            self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
        }
    }
}

/// Adds to what is about to be written; not so on another thread than the one that writes.
fn put(bytes: &[u8]) -> bool {
    let put = |outgoing: &RefCell<Option<Outgoing>>| {
        outgoing.borrow_mut().as_mut().map(|outgoing| outgoing.text.extend_from_slice(bytes)).is_some()
    };
    // Other threads may log while they end.
    OUTGOING.try_with(put).unwrap_or(false)
}

/// Writes whole lines, several together where they are short.
fn write_lines(out: &mut dyn Write, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        let end = |text: &[u8]| text.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let first = || text.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let together = end(&text[..text.len().min(TOGETHER)]).or_else(first).unwrap_or(text.len());
        let (now, later) = text.split_at(together);
        out.write_all(now)?;
        text = later;
    }
    Ok(())
}

fn write(mut out: impl Write, queue: &Receiver<Item>, dropped: &AtomicU64) {
    // An error has nobody to be told to: this is where errors are told.
    let asked = |asked| OUTGOING.with_borrow_mut(|outgoing| outgoing.iter_mut().for_each(|one| one.asked = asked));
    let write_out = |out: &mut dyn Write| {
        let outgoing = OUTGOING.replace(Some(Outgoing::default())).unwrap_or_default();
        let _ = write_lines(out, &outgoing.text);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(
                out,
                "{{\"level\":\"WARN\",\"message\":\"{lost} log lines were dropped: stderr is read too slowly\"}}"
            );
        }
    };
    OUTGOING.set(Some(Outgoing::default()));
    while let Ok(item) = queue.recv() {
        let mut next = Some(item);
        while let Some(item) = next {
            match item {
                Item::Line(line) => {
                    put(line.as_bytes());
                }
                Item::Making(at, Making { lines, make }) => {
                    asked(Some(at));
                    // Whoever's fault it is, the log goes on.
                    if catch_unwind(AssertUnwindSafe(make)).is_err() {
                        dropped.fetch_add(lines as u64, Ordering::Relaxed);
                    }
                    asked(None);
                }
                Item::Flush(done) => {
                    write_out(&mut out);
                    let _ = out.flush();
                    let _ = done.send(());
                }
            }
            let full = OUTGOING.with_borrow(|outgoing| outgoing.as_ref().is_some_and(|one| one.text.len() >= GATHERED));
            next = if full { None } else { queue.try_recv().ok() };
        }
        write_out(&mut out);
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
            // Each as long as what is gathered.
            writer.line(format!("{n}{}\n", " ".repeat(GATHERED)));
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
        let shut = out.gate.lock().unwrap();
        let before = Moment::now();
        let make = move || {
            assert_ne!(std::thread::current().id(), here);
            making.line(format!("{}\n", Moment::of_line().running.duration_since(before.running).as_micros()));
            making.line("3\n".to_owned());
        };
        writer.made_later(Making { lines: 2, make: Box::new(make) });
        let after = before.running.elapsed().as_micros();
        writer.line("4\n".to_owned());
        // It is made when somebody reads again, and tells of when it was asked for.
        while before.running.elapsed().as_micros() <= after {
            std::thread::yield_now();
        }
        drop(shut);
        drop(flush);
        let text = String::from_utf8(out.written.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], &lines[2..]), ("1", &["3", "4"][..]));
        assert!(lines[1].parse::<u128>().unwrap() <= after, "{text}");
    }

    #[test]
    fn a_failure_to_make_lines_costs_those_lines_alone() {
        let out = Sluggish::default();
        let (writer, flush) = Writer::start(out.clone()).unwrap();
        writer.line("1\n".to_owned());
        writer.made_later(Making { lines: 3, make: Box::new(|| panic!("as a test wants it")) });
        writer.line("2\n".to_owned());
        drop(flush);
        let text = String::from_utf8(out.written.lock().unwrap().clone()).unwrap();
        let (lines, lost): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.len() == 1);
        assert_eq!(lines, ["1", "2"]);
        assert!(lost.len() == 1 && lost[0].contains("3 log lines were dropped"), "{lost:#?}");
    }

    #[test]
    fn lines_are_written_whole_and_no_more_together_than_a_pipe_keeps_in_one_piece() {
        #[derive(Default)]
        struct Pieces(Vec<Vec<u8>>);
        impl Write for Pieces {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut text = String::new();
        for length in [10, 4000, 90, 5000, 1, 4095, 4096, 20] {
            text += &format!("{}\n", "x".repeat(length));
        }
        text += "without an end";
        let mut pieces = Pieces::default();
        write_lines(&mut pieces, text.as_bytes()).unwrap();
        assert_eq!(pieces.0.concat(), text.as_bytes());
        let (last, lines) = pieces.0.split_last().unwrap();
        assert_eq!(last, b"without an end");
        for piece in lines {
            assert_eq!(piece.last(), Some(&b'\n'));
            let alone = piece.iter().filter(|byte| **byte == b'\n').count() == 1;
            assert!(piece.len() <= TOGETHER || alone, "{}", piece.len());
        }
        assert!(lines.len() < 8, "short lines are written together");
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
