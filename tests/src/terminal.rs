//! A command on a terminal of its own: `script`, which is part of every Debian, gives it one, hands on what is typed, and shows what the command does.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cli::wait;

/// How long anything may take that has a compiler in it, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// What has been shown so far, and whether there will be more.
#[derive(Default)]
struct Screen {
    shown: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, (String, bool)> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The command, its keyboard and its screen. Dropped before its end, it loses its terminal, which ends it.
pub struct Terminal {
    script: Child,
    keyboard: ChildStdin,
    screen: Arc<Screen>,
}

impl Terminal {
    /// Runs a command of the shell in `folder`, with the environment that `prepare` sets.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(folder: &Path, command: &str, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut script = Command::new("script");
        script.args(["--quiet", "--flush", "--return", "--command", command, "/dev/null"]);
        script.current_dir(folder).env("TERM", "xterm");
        prepare(&mut script);
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut script = script.spawn().context("`script` does not start: it is in Debian's package bsdutils")?;
        let keyboard = script.stdin.take().context("it has a stdin")?;
        let mut out = script.stdout.take().context("it has a stdout")?;
        let screen = Arc::new(Screen::default());
        let written = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut bytes) {
                // What is looked for is ASCII; a character that is cut in two does no harm.
                written.lock().0.push_str(&String::from_utf8_lossy(&bytes[..read]));
                written.changed.notify_all();
            }
            written.lock().1 = true;
            written.changed.notify_all();
        });
        Ok(Self { script, keyboard, screen })
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes())?;
        Ok(self.keyboard.flush()?)
    }

    /// All that was shown, as it was.
    #[must_use]
    pub fn raw(&self) -> String {
        self.screen.lock().0.clone()
    }

    /// The lines that were shown in full, without colours.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        lines(&self.screen.lock().0)
    }

    /// Where the next line will be, for [`Self::wait_line`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.lines().len()
    }

    /// Waits for a line from `mark` on that `matches`; gives the place behind it.
    ///
    /// # Errors
    /// When the command ends before, or takes too long; with all that it has shown.
    pub fn wait_line(&self, mark: usize, what: &str, matches: impl Fn(&str) -> bool) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        let mut screen = self.screen.lock();
        loop {
            let lines = lines(&screen.0);
            if let Some(at) = lines.iter().skip(mark).position(|line| matches(line)) {
                return Ok(mark + at + 1);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || screen.1 {
                let why = if screen.1 { "it ended before" } else { "it took too long" };
                bail!("waiting for {what}: {why}. It showed:\n{}", lines.join("\n"));
            }
            screen = self.screen.changed.wait_timeout(screen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the end of the command.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        wait(&mut self.script, PATIENCE)?
            .with_context(|| format!("it does not end. It showed:\n{}", self.lines().join("\n")))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

fn lines(shown: &str) -> Vec<String> {
    let whole = shown.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(without_colours).collect()
}

fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once('m').map_or(part, |(_, text)| text));
    rest.fold(first, |line, part| line + part).trim_end_matches('\r').to_owned()
}
