//! Programs of other libraries' leader election (Curator's recipes, Kazoo's), to share an election with and to compare with.
//! Their sources are in `tests/bench/curator` and `tests/bench/kazoo`, and say how they are talked to.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

use crate::cluster::PATIENCE;
use crate::measure::boottime;

/// Curator and what it needs, as Debian's packages have them; they name the rest themselves.
const CURATOR_JARS: [&str; 6] =
    ["curator-recipes", "curator-framework", "curator-client", "zookeeper", "guava", "slf4j-simple"];
/// Our Java programs.
const PROGRAMS: [&str; 2] = ["Peer", "Registry"];
/// The version of Kazoo that is compared with.
pub const KAZOO: &str = "2.11.0";

/// Whose election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// Curator's `LeaderLatch`.
    Latch,
    /// Curator's `LeaderSelector`.
    Selector,
    /// Kazoo's `Election`.
    Kazoo,
}

impl Recipe {
    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Latch => "LeaderLatch",
            Self::Selector => "LeaderSelector",
            Self::Kazoo => "Kazoo",
        }
    }

    fn program(self) -> Result<Vec<String>> {
        match self {
            Self::Latch => java(&["Peer", "latch"]),
            Self::Selector => java(&["Peer", "selector"]),
            Self::Kazoo => Ok(vec![text(&kazoo()?), text(&sources().join("kazoo/peer.py"))]),
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A command that runs a Java program of ours.
fn java(program: &[&str]) -> Result<Vec<String>> {
    let class_path = format!("{}:{}", compiled()?.display(), class_path()?);
    // As ZooKeeper's own servers here: small, and quick to start.
    let options = ["-Xms16m", "-Xss256k", "-XX:+UseSerialGC", "-XX:-UsePerfData"];
    let quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error";
    let words = ["java"].into_iter().chain(options).chain([quiet, "-cp", &class_path]);
    Ok(words.chain(program.iter().copied()).map(ToOwned::to_owned).collect())
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench")
}

/// Where what the peers need is made.
fn made() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers");
    std::fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}

/// Runs a command to its end.
fn run(command: &mut Command, help: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} does not start; {help}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed; {help}\n{said}");
    Ok(())
}

/// Holds the lock of that name, so that test programs that run at the same time make a thing once.
fn locked(name: &str) -> Result<File> {
    let file = File::create(made()?.join(format!("{name}.lock")))?;
    file.lock()?;
    Ok(file)
}

/// Curator's class path: `BELLWETHER_TEST_CURATOR`, or Debian's jars.
fn class_path() -> Result<String> {
    if let Ok(given) = std::env::var("BELLWETHER_TEST_CURATOR") {
        return Ok(given);
    }
    let jars = CURATOR_JARS.map(|jar| format!("/usr/share/java/{jar}.jar"));
    if let Some(missing) = jars.iter().find(|jar| !Path::new(jar).exists()) {
        bail!(
            "{missing} is missing: the real Curator is needed here. Install it: apt-get install -y --no-install-recommends \
             libcurator-recipes-java default-jdk-headless\nor set BELLWETHER_TEST_CURATOR to a class path that has \
             curator-recipes and all it needs (mvn dependency:copy-dependencies brings them)"
        );
    }
    Ok(jars.join(":"))
}

/// The folder of our Java programs' classes, compiled when a source is newer.
fn compiled() -> Result<PathBuf> {
    let _lock = locked("curator")?;
    let folder = made()?.join("curator");
    let changed = |path: PathBuf| path.metadata().and_then(|about| about.modified()).ok();
    let source = |name: &str| sources().join(format!("curator/{name}.java"));
    if PROGRAMS.iter().any(|name| changed(folder.join(format!("{name}.class"))) <= changed(source(name))) {
        std::fs::create_dir_all(&folder)?;
        let mut javac = Command::new("javac");
        javac.arg("-d").arg(&folder).args(["-cp", &class_path()?]).args(PROGRAMS.map(source));
        run(&mut javac, "a JDK is needed here: apt-get install -y --no-install-recommends default-jdk-headless")?;
    }
    Ok(folder)
}

/// A Python that has Kazoo.
fn kazoo() -> Result<PathBuf> {
    let _lock = locked("kazoo")?;
    let folder = made()?.join(format!("kazoo-{KAZOO}"));
    let (python, complete) = (folder.join("bin/python"), folder.join("complete"));
    if !complete.exists() {
        let help = "Python 3 with its module venv is needed here: apt-get install -y python3-venv";
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder), help)?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &format!("kazoo=={KAZOO}")];
        run(Command::new(&python).args(pip), "Kazoo comes from PyPI")?;
        File::create(complete)?;
    }
    Ok(python)
}

/// What happened to a candidate of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// The candidate.
    pub id: String,
    /// Whether it leads from now on.
    pub elected: bool,
    /// When, on the clock of [`boottime`].
    pub at: Duration,
}

#[derive(Debug, Default)]
struct Heard {
    ready: bool,
    ended: bool,
    answers: Vec<String>,
    events: Vec<Happened>,
    members: Vec<Duration>,
}

/// One process with candidates of another library. Dropping it kills it, and it ends with the test process.
#[derive(Debug)]
pub struct Peer {
    name: String,
    child: Mutex<Child>,
    pid: Pid,
    stdin: Mutex<ChildStdin>,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    /// Starts `count` candidates, `name-0`, `name-1`, …, that stand below `path` on the ZooKeeper at `connect`, and waits until they
    /// have been started.
    ///
    /// # Errors
    /// When the library is not there, or the program does not come up.
    pub fn start(
        recipe: Recipe,
        connect: &str,
        path: &str,
        timeout: Duration,
        name: &str,
        count: usize,
    ) -> Result<Self> {
        let mut program = recipe.program()?;
        let timeout = timeout.as_millis().to_string();
        program.extend([connect, path, &timeout, name, &count.to_string()].map(ToOwned::to_owned));
        Self::spawn(name, &program)
    }

    /// Starts Curator's registry, with a session of its own on the ZooKeeper at `connect`.
    ///
    /// # Errors
    /// As [`Peer::start`].
    pub fn registry(connect: &str) -> Result<Self> {
        Self::spawn("registry", &java(&["Registry", connect])?)
    }

    /// Starts any program that is talked to as these are, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn spawn(name: &str, program: &[String]) -> Result<Self> {
        let mut child = Command::new(&program[0])
            .args(&program[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", program[0]))?;
        let stdin = child.stdin.take().context("the peer has no standard input")?;
        let stdout = child.stdout.take().context("the peer has no standard output")?;
        let heard: Arc<(Mutex<Heard>, Condvar)> = Arc::default();
        let listener = heard.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                listener.0.lock().unwrap_or_else(PoisonError::into_inner).take_in(line);
                listener.1.notify_all();
            }
            lock(&listener.0).ended = true;
            listener.1.notify_all();
        });
        let pid = Pid::from_child(&child);
        let peer = Self { name: name.to_owned(), child: Mutex::new(child), pid, stdin: Mutex::new(stdin), heard };
        peer.wait("it to be ready", |heard| heard.ready.then_some(()))?;
        Ok(peer)
    }

    /// The id of its first, and often only, candidate.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-0", self.name)
    }

    /// The id of its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut(&mut Heard) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = lock(&self.heard.0);
        loop {
            if let Some(found) = look(&mut heard) {
                return Ok(found);
            }
            ensure!(!heard.ended, "{} has ended: waited in vain for {what}", self.name);
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "{}: waited {PATIENCE:?} in vain for {what}", self.name);
            heard = self.heard.1.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a command that has no answer.
    ///
    /// # Errors
    /// When it does not run.
    pub fn tell(&self, command: &str) -> Result<()> {
        let line = format!("{command}\n");
        lock(&self.stdin).write_all(line.as_bytes()).with_context(|| format!("{} does not listen", self.name))
    }

    /// Sends a command and gives what the answer says after its first word. For one caller at a time.
    ///
    /// # Errors
    /// When it does not run, or fails at the command.
    pub fn ask(&self, command: &str) -> Result<String> {
        lock(&self.heard.0).answers.clear();
        self.tell(command)?;
        let answer = self.wait(&format!("an answer to {command:?}"), |heard| heard.answers.pop())?;
        ensure!(!answer.starts_with("failed"), "{}: {answer}", self.name);
        Ok(answer.split_once(' ').map_or("", |(_, rest)| rest).to_owned())
    }

    /// Waits until a registry that watches has heard of `count` members since it began, and says when of each, since 1970.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn heard(&self, count: usize) -> Result<Vec<Duration>> {
        self.wait("members", |heard| (heard.members.len() >= count).then(|| heard.members.clone()))
    }

    /// How many znodes the election has.
    ///
    /// # Errors
    /// When it does not run, or cannot say.
    pub fn count(&self) -> Result<usize> {
        Ok(self.ask("count")?.trim().parse()?)
    }

    /// What has happened, from the `mark`th event on.
    #[must_use]
    pub fn events(&self, mark: usize) -> Vec<Happened> {
        lock(&self.heard.0).events.iter().skip(mark).cloned().collect()
    }

    /// How many events there have been.
    #[must_use]
    pub fn mark(&self) -> usize {
        lock(&self.heard.0).events.len()
    }

    /// Kills it (SIGKILL), as a crash would, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = lock(&self.child);
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        ensure!(lock(&self.child).try_wait()?.is_none(), "{} has ended", self.name);
        Ok(kill_process(self.pid, signal)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Heard {
    fn take_in(&mut self, line: String) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["ready"] => self.ready = true,
            [what @ ("elected" | "demoted"), id, stamp] => {
                let at = Duration::from_nanos(stamp.parse().unwrap_or_default()) + slept();
                self.events.push(Happened { id: (*id).to_owned(), elected: *what == "elected", at });
            }
            ["heard", stamp] => self.members.push(Duration::from_nanos(stamp.parse().unwrap_or_default())),
            _ => self.answers.push(line),
        }
    }
}

/// For how long the machine has slept since its start: what `CLOCK_MONOTONIC`, which the peers' libraries offer, lacks.
fn slept() -> Duration {
    let awake = clock_gettime(ClockId::Monotonic);
    let awake = Duration::new(awake.tv_sec.unsigned_abs(), u32::try_from(awake.tv_nsec).unwrap_or(0));
    let slept = boottime().saturating_sub(awake);
    // Less than this is the time between the two readings.
    if slept < Duration::from_millis(1) { Duration::ZERO } else { slept }
}
