//! One node of a cluster: a process of `bellwether run`, its manifest, its log and its admin API.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::PATIENCE;
use super::log::{Line, Log};
use super::process::Process;
use crate::cli::{Cli, Ran, binary};
use crate::measure::children;

/// How long the admin API may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The same of what may include compiling a component, which gives way to everything else that a busy machine does.
const DONE: Duration = Duration::from_secs(120);
/// How many of its last lines a node's report has.
const REPORTED: usize = 40;

#[derive(Debug, Default)]
struct State {
    process: Option<Process>,
    paused: bool,
}

/// A request to a node's admin API.
#[derive(Debug)]
pub struct Call {
    stream: UnixStream,
    request: String,
    what: String,
}

impl Call {
    /// Asks, and does not wait.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn ask(&mut self) -> Result<()> {
        // At once: in pieces, the server would wake for each of them.
        let request = std::mem::take(&mut self.request);
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// Asks, if that was not done before, and waits for the answer: its status and its body.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn answer(mut self) -> Result<(u16, String)> {
        self.ask()?;
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).with_context(|| format!("{} was not answered", self.what))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
        ensure!(
            !head.to_ascii_lowercase().contains("transfer-encoding"),
            "an answer in chunks is not expected: {head}"
        );
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.with_context(|| format!("not HTTP: {head}"))?, body.to_owned()))
    }
}

/// One node. It may run, be paused, or not run.
#[derive(Debug)]
pub struct Node {
    id: String,
    folder: PathBuf,
    wrapper: Vec<String>,
    env: Vec<(String, String)>,
    state: Mutex<State>,
    log: Mutex<Log>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(super) fn new(id: String, folder: PathBuf, wrapper: Vec<String>, env: Vec<(String, String)>) -> Self {
        let log = Mutex::new(Log::new(folder.join("log")));
        Self { id, folder, wrapper, env, state: Mutex::default(), log }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its own folder: manifest, data and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its manifest. What is changed there counts from the next start on.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.folder.join("bellwether.toml")
    }

    /// The socket of its admin API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// The address of its admin API, as `--admin` takes it.
    #[must_use]
    pub fn admin(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Starts its process, which must not run.
    ///
    /// # Errors
    /// When it does, or the system does not let it start. What goes wrong in the process is seen in its log and exit code.
    pub fn start(&self) -> Result<()> {
        let mut state = lock(&self.state);
        if let Some(process) = &mut state.process {
            ensure!(process.wait(Duration::ZERO)?.is_some(), "{} runs already", self.id);
        }
        let mut program = self.wrapper.clone();
        program.push(binary().display().to_string());
        program.extend(["--log-format", "json", "run"].map(String::from));
        program.push(self.manifest().display().to_string());
        let process = Process::spawn(&program, &self.env, &self.folder, &self.folder.join("log"))?;
        *state = State { process: Some(process), paused: false };
        Ok(())
    }

    /// Kills it if it runs, and starts it again with what it left behind.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn restart(&self) -> Result<()> {
        self.kill();
        self.start()
    }

    fn running<T>(&self, what: impl FnOnce(&mut State, &mut Process) -> Result<T>) -> Result<T> {
        let mut state = lock(&self.state);
        let mut process = state.process.take().with_context(|| format!("{} has not been started", self.id))?;
        let result = what(&mut state, &mut process);
        state.process = Some(process);
        result
    }

    /// The id of its process.
    ///
    /// # Errors
    /// When it has not been started.
    pub fn pid(&self) -> Result<i32> {
        self.running(|_, process| Ok(process.pid().as_raw_nonzero().get()))
    }

    /// Whether its process runs, paused or not.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.running(|_, process| Ok(process.wait(Duration::ZERO)?.is_none())).unwrap_or(false)
    }

    /// Whether its process runs and is not paused.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.runs() && !lock(&self.state).paused
    }

    /// Kills it (SIGKILL), as a crash would, and waits until it is gone. Nothing happens if it does not run.
    pub fn kill(&self) {
        *lock(&self.state) = State::default();
    }

    /// Its reapers: one, or none where it has been killed or is being replaced.
    ///
    /// # Errors
    /// When it does not run.
    pub fn reapers(&self) -> Result<Vec<Pid>> {
        let is_reaper = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument == b"reaper")
        };
        Ok(children(self.pid()?)?.into_iter().filter(is_reaper).filter_map(Pid::from_raw).collect())
    }

    /// Kills it and its reaper, as when its machine fails: nobody tells of that.
    ///
    /// # Errors
    /// When it does not run.
    pub fn lose(&self) -> Result<()> {
        // Paused, it cannot put another one in its place.
        self.pause()?;
        for reaper in self.reapers()? {
            kill_process(reaper, Signal::KILL)?;
        }
        self.kill();
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running(|state, process| {
            ensure!(process.wait(Duration::ZERO)?.is_none(), "{} has ended", self.id);
            process.signal(signal)?;
            match signal {
                Signal::STOP => state.paused = true,
                Signal::CONT => state.paused = false,
                _ => {}
            }
            Ok(())
        })
    }

    /// Stops it where it stands (SIGSTOP).
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after a pause.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to stop gracefully (SIGTERM); see [`Node::wait_exit`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Stops it gracefully (SIGTERM) and gives its exit code.
    ///
    /// # Errors
    /// When it does not run, does not end in time, or is ended by a signal.
    pub fn stop(&self) -> Result<i32> {
        self.terminate()?;
        self.wait_exit()
    }

    /// Waits until it has ended by itself, and gives its exit code.
    ///
    /// # Errors
    /// When it does not end in time, or is ended by a signal.
    pub fn wait_exit(&self) -> Result<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited()? {
                return status.code().with_context(|| format!("{} ended with {status}\n{}", self.id, self.report()));
            }
            ensure!(Instant::now() < deadline, "{} did not end within {PATIENCE:?}\n{}", self.id, self.report());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it has ended; none while it runs.
    ///
    /// # Errors
    /// When it was never started.
    pub fn exited(&self) -> Result<Option<ExitStatus>> {
        self.running(|_, process| process.wait(Duration::ZERO))
    }

    /// Calls a verb of `bellwether` with `--admin` set to this node.
    ///
    /// # Errors
    /// When it does not start or end.
    pub fn cli(&self, arguments: &[&str]) -> Result<Ran> {
        Cli::new().folder(&self.folder).env("BELLWETHER_ADMIN", self.admin()).run(arguments.iter().copied())
    }

    /// One request to its admin API: the status and the body of the answer.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn http(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        self.call(method, path, body)?.answer()
    }

    /// The same, connected and not asked yet: whoever measures begins when it is.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Result<Call> {
        ensure!(self.is_awake(), "{} does not run", self.id);
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(if method == "POST" { DONE } else { ANSWER }))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(Call { stream, request, what: format!("{method} {path} of {}", self.id) })
    }

    /// Its status, as the admin API tells it (NODE in `ADMIN.md`).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Value> {
        let (code, body) = self.http("GET", &format!("/v1/nodes/{}", self.id), "")?;
        ensure!(code == 200, "{}: {code} {body}", self.id);
        Ok(serde_json::from_str(&body)?)
    }

    /// Its status in one group (GROUP in `ADMIN.md`).
    ///
    /// # Errors
    /// When it does not answer, or has no such group.
    pub fn group(&self, group: &str) -> Result<Value> {
        let (code, body) = self.http("GET", &format!("/v1/nodes/{}/groups/{group}", self.id), "")?;
        ensure!(code == 200, "{}: {code} {body}", self.id);
        Ok(serde_json::from_str(&body)?)
    }

    /// Its role in a group (`leader`, `worker`, …); none while it does not answer.
    #[must_use]
    pub fn role(&self, group: &str) -> Option<String> {
        self.group(group).ok()?["role"].as_str().map(ToOwned::to_owned)
    }

    /// Whether it has a session and stands in each of its groups.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.http("GET", "/readyz", "").is_ok_and(|(code, _)| code == 200)
    }

    /// The raw value of a key of a group's state; none if there is no such key.
    ///
    /// # Errors
    /// When the node does not answer, or cannot.
    pub fn state(&self, group: &str, key: &str) -> Result<Option<String>> {
        let (code, body) =
            self.http("GET", &format!("/v1/nodes/{}/groups/{group}/state/value?key={key}", self.id), "")?;
        match code {
            200 => Ok(Some(body)),
            404 if body.contains("unknown-key") => Ok(None),
            _ => bail!("{}: {code} {body}", self.id),
        }
    }

    /// All that it has logged since its first start.
    #[must_use]
    pub fn log(&self) -> Vec<Arc<Line>> {
        lock(&self.log).lines().to_vec()
    }

    /// How many lines it has logged: from here on, [`Node::wait_log`] hears what comes.
    #[must_use]
    pub fn mark(&self) -> usize {
        lock(&self.log).lines().len()
    }

    /// The lines after `mark` that match.
    #[must_use]
    pub fn logged(&self, mark: usize, matches: impl Fn(&Line) -> bool) -> Vec<Arc<Line>> {
        let mut log = lock(&self.log);
        log.lines().iter().skip(mark).filter(|line| matches(line)).cloned().collect()
    }

    /// Waits for a line after `mark` that matches; 0 is the beginning.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn wait_log(&self, mark: usize, what: &str, matches: impl Fn(&Line) -> bool) -> Result<Arc<Line>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A node that has ended will not log any more: look once again after that, then give up.
            let ended = !self.runs();
            if let Some(line) = self.logged(mark, &matches).into_iter().next() {
                return Ok(line);
            }
            let late = Instant::now() > deadline;
            ensure!(!late && !ended, "{}: the log has no line of {what} after line {mark}\n{}", self.id, self.report());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its last lines and what it is, for a person.
    #[must_use]
    pub fn report(&self) -> String {
        let state = match (self.exited(), self.is_awake()) {
            (Err(_), _) => "was killed or not started".to_owned(),
            (Ok(Some(status)), _) => status.to_string(),
            (Ok(None), true) => "runs".to_owned(),
            (Ok(None), false) => "is paused".to_owned(),
        };
        let lines = self.log();
        let shown: Vec<&str> =
            lines.iter().skip(lines.len().saturating_sub(REPORTED)).map(|line| line.text.as_str()).collect();
        format!("--- {}: {state}; its last lines of {}:\n{}\n", self.id, lines.len(), shown.join("\n"))
    }
}
