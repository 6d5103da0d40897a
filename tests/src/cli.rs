//! The binary `bellwether`: where it is, and running it once to its end.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a call may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test: the one beside this test in cargo's target directory, built first unless it is up to date.
/// `BELLWETHER_TEST_BINARY` names another one, which is taken as it is.
///
/// # Panics
/// When it cannot be built; the message says why.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("BELLWETHER_TEST_BINARY") {
            return path.into();
        }
        up_to_date().unwrap_or_else(|error| panic!("the binary under test cannot be had: {error:#}"))
    })
}

fn up_to_date() -> Result<PathBuf> {
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent).context("this test does not lie in a target directory")?;
    let binary = profile.join("bellwether");
    if !is_stale(&binary) {
        return Ok(binary);
    }
    let target = profile.parent().context("this test does not lie in a target directory")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // The whole workspace, as `cargo test --workspace` has it: with other features wasmtime would be compiled once more.
    command.args(["build", "--workspace", "--bin", "bellwether", "--target-dir"]).arg(target).current_dir(root);
    // What cargo says to this test of itself is not meant for the build: some build scripts would run again because of it.
    for (name, _) in std::env::vars_os() {
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];
        if name.to_str().is_some_and(|name| told.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    match profile.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => {}
        Some(name) => {
            command.args(["--profile", name]);
        }
    }
    let output = command.output().context("cargo does not start")?;
    if !output.status.success() {
        bail!("it does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(binary)
}

/// Whether a source of the binary, as cargo lists them beside it, is newer.
fn is_stale(binary: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let (Some(built), Ok(list)) = (changed(binary), std::fs::read_to_string(binary.with_extension("d"))) else {
        return true;
    };
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources);
    // Blanks in a path are written as "\ ".
    let sources = sources.replace("\\ ", "\0");
    sources
        .split_ascii_whitespace()
        .map(|path| PathBuf::from(path.replace('\0', " ")))
        .any(|path| changed(&path).is_none_or(|at| at > built))
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// How the process ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Ran {
    /// The exit code; none if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it wrote to stdout, if it succeeded.
    ///
    /// # Errors
    /// When it did not; with all that it wrote.
    pub fn ok(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        bail!("bellwether ended with {}\n{}{}", self.status, self.stdout, self.stderr)
    }

    /// What it wrote to stdout as JSON, if it succeeded.
    ///
    /// # Errors
    /// When it did not, or wrote something else.
    pub fn json(self) -> Result<serde_json::Value> {
        let text = self.ok()?;
        serde_json::from_str(&text).with_context(|| format!("this is no JSON: {text}"))
    }
}

/// A call of the binary.
#[derive(Debug)]
pub struct Cli {
    command: Command,
    patience: Duration,
}

impl Default for Cli {
    fn default() -> Self {
        Self::new()
    }
}

impl Cli {
    /// A call in the folder for temporary files, with nothing of the caller's settings.
    #[must_use]
    pub fn new() -> Self {
        let mut command = Command::new(binary());
        command.current_dir(std::env::temp_dir()).stdin(Stdio::null());
        for name in ["BELLWETHER_ADMIN", "BELLWETHER_LOG"] {
            command.env_remove(name);
        }
        Self { command, patience: PATIENCE }
    }

    /// Calls it in `folder`.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// How long it may take; a minute otherwise.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it with these arguments until it ends.
    ///
    /// # Errors
    /// When it does not start, or does not end in time; it is killed then, and the error has what it wrote.
    pub fn run<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Result<Ran> {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        self.command.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().context("bellwether does not start")?;
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        let ended = wait(&mut child, self.patience)?;
        if ended.is_none() {
            child.kill()?;
        }
        let status = child.wait()?;
        let text = |reader: Option<std::thread::JoinHandle<Vec<u8>>>| {
            let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let ran = Ran { status, stdout: text(stdout), stderr: text(stderr) };
        if ended.is_none() {
            bail!("bellwether {arguments:?} did not end within {:?}:\n{}{}", self.patience, ran.stdout, ran.stderr);
        }
        Ok(ran)
    }
}

/// Reads all there is on a thread of its own, so that a full pipe never holds the process up.
fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth showing.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits for the end of a child; none if it does not come in time.
pub(crate) fn wait(child: &mut std::process::Child, patience: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
