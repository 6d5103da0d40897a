//! Where components are compiled: in a process of its own if the embedder names a program for it, otherwise in this one.
//!
//! A compiler is a large program that is fed with what strangers made. In a process of its own it can be limited and lost, and it
//! shares neither memory nor allocator with the threads that guests run on. What goes between the two lies in files without a name:
//! nothing is left behind, however either ends.

mod child;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use bellwether_core::callback::Step;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open};
use wasmtime::component::Component;
use wasmtime::{Config, Engine, WasmBacktraceDetails};

use crate::context::bytes;
use crate::error::{LoadError, one_line};
use crate::format;

pub use child::{Confinement, Served, serve};

/// The exit code of a compiler whose standard output says why the component is none.
pub const REFUSED: u8 = 4;

/// A program that compiles one component: from its standard input to its standard output, as [`serve`] does. It must have been
/// built with this very version of this library, since what it writes becomes machine code in this process.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// What it is called with, before the options of [`Confinement`].
    pub arguments: Vec<OsString>,
    /// What it may use.
    pub allowance: fn(usize) -> Allowance,
}

impl Program {
    /// This very program, by the file that runs and not by its name: that may be another version by now.
    #[must_use]
    pub fn itself(verb: &str) -> Self {
        Self { path: "/proc/self/exe".into(), arguments: vec![verb.into()], allowance: Allowance::of }
    }
}

/// What compiling one component may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Memory, in bytes.
    pub memory: u64,
    /// What it writes, in bytes.
    pub output: u64,
    /// Processor time.
    pub processor: Duration,
    /// Time, however little of the processor it got meanwhile.
    pub patience: Duration,
}

impl Allowance {
    /// Several times what compiling a component of so many bytes takes that a usual toolchain made.
    #[must_use]
    pub fn of(size: usize) -> Self {
        let mebibytes = size.div_ceil(1 << 20) as u64;
        Self {
            memory: (512 << 20) + 64 * (mebibytes << 20),
            // Code is a few times as large as what it was made of.
            output: (64 << 20) + 16 * (mebibytes << 20),
            processor: Duration::from_secs(60 + 10 * mebibytes),
            patience: Duration::from_secs(600 + 60 * mebibytes),
        }
    }
}

/// The engine's configuration. Code is of use only to an engine that is configured as the one that compiled it.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        // One thread for the compiler: more would take the cores from the session and from running guests.
        .parallel_compilation(false)
        // Names of functions, never paths of the machine that built the guest.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

/// Compiles in this process.
pub(crate) fn here(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
    engine.precompile_component(wasm).map_err(|error| format::refused(&one_line(&error), wasm.len()))
}

/// Makes a component of what was compiled.
///
/// # Safety
/// The bytes must be what [`here`] or a [`Program`] gave.
#[expect(unsafe_code, reason = "compiled code can be trusted only because of where it comes from")]
pub(crate) unsafe fn load(engine: &Engine, compiled: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: passed on to the caller.
    unsafe { Component::deserialize(engine, compiled) }
}

impl Program {
    /// Has the program compile a component. Waits for it on this thread, which must not end before the program does: it is
    /// killed with the thread that started it. It is killed too when the other end of `wanted` is closed.
    pub(crate) fn compile(&self, wasm: &[u8], wanted: &PipeReader) -> Result<Vec<u8>, LoadError> {
        let allowance = (self.allowance)(wasm.len());
        let failed = |why: String| LoadError::new(Step::Compile, format!("could not be compiled: {why}"));
        let ended = self
            .run(wasm, &allowance, wanted)
            .map_err(|error| failed(format!("the compiler, {}, could not be run: {error}", self.path.display())))?;
        let Some(status) = ended.status else {
            let patience = allowance.patience.as_secs();
            return Err(failed(format!(
                "the compiler was stopped after {patience} s: this machine is too busy, or the component too large"
            )));
        };
        match (status.code(), ended.output) {
            (Some(0), Some(code)) => Ok(code),
            (Some(code), Some(reason)) if code == i32::from(REFUSED) => {
                Err(LoadError::new(Step::Compile, String::from_utf8_lossy(&reason)))
            }
            (Some(_), None) => Err(failed(too_long(wasm.len(), &allowance))),
            _ => Err(failed(fate(status, &ended.errors, wasm.len(), &allowance))),
        }
    }

    fn run(&self, wasm: &[u8], allowance: &Allowance, wanted: &PipeReader) -> io::Result<Ended> {
        let mut input = nameless("component")?;
        input.write_all(wasm)?;
        input.rewind()?;
        let (mut output, mut errors) = (nameless("compiled")?, nameless("errors")?);
        let parent = Some(getpid().as_raw_nonzero().get());
        let confinement = Confinement { parent, ..allowance.into() };
        let child = Command::new(&self.path)
            .args(&self.arguments)
            .args(confinement.arguments())
            // It needs nothing of what this process was told, and whoever signals a terminal's processes means the node.
            .env_clear()
            // A backtrace of the compiler would only hide what it says.
            .env("RUST_BACKTRACE", "0")
            .process_group(0)
            .stdin(input)
            .stdout(output.try_clone()?)
            .stderr(errors.try_clone()?)
            .spawn()?;
        let status = Running(child).wait(allowance.patience, wanted)?;
        let mut ended = Ended { status, output: None, errors: first_words(&mut errors)? };
        // Whatever it was that wrote it: this process takes in no more than was allowed.
        if output.metadata()?.len() <= allowance.output {
            output.rewind()?;
            output.read_to_end(ended.output.insert(Vec::new()))?;
        }
        Ok(ended)
    }
}

/// How a compiler ended.
struct Ended {
    /// None if it was stopped because its time was up, or nobody waits any more.
    status: Option<ExitStatus>,
    /// What it wrote; none if that was more than it may.
    output: Option<Vec<u8>>,
    errors: String,
}

/// A compiler that runs. It does not outlive this.
struct Running(Child);

impl Running {
    fn wait(mut self, patience: Duration, wanted: &PipeReader) -> io::Result<Option<ExitStatus>> {
        let pidfd = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let began = Instant::now();
        loop {
            let left = patience.saturating_sub(began.elapsed());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            // Of a pipe that nobody writes to, all that can be heard is that the other end is closed.
            let mut ends = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(wanted, PollFlags::empty())];
            match poll(&mut ends, Some(&left)) {
                Ok(_) if !ends[0].revents().is_empty() => return self.0.wait().map(Some),
                Ok(_) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has been waited for is neither killed nor waited for again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file without a name, of this process and of whom it is handed to.
fn nameless(what: &str) -> io::Result<File> {
    Ok(memfd_create(what, MemfdFlags::CLOEXEC)?.into())
}

/// What is kept of what a compiler says, in bytes.
const MOST_WORDS: u64 = 400;

/// How what a compiler wrote to its standard error begins.
fn first_words(errors: &mut File) -> io::Result<String> {
    errors.rewind()?;
    let mut words = Vec::new();
    errors.take(MOST_WORDS).read_to_end(&mut words)?;
    Ok(String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" "))
}

fn too_long(size: usize, allowance: &Allowance) -> String {
    let (most, component) = (bytes(allowance.output), bytes(size as u64));
    format!("the compiler wrote more than {most}, the most for a component of {component}")
}

/// Why a compiler that neither compiled nor refused has ended.
fn fate(status: ExitStatus, errors: &str, size: usize, allowance: &Allowance) -> String {
    let component = bytes(size as u64);
    match status.signal().and_then(Signal::from_named_raw) {
        Some(Signal::XCPU) => {
            let most = allowance.processor.as_secs();
            format!(
                "the compiler was stopped after {most} s of processor time, the most for a component of {component}"
            )
        }
        Some(Signal::XFSZ) => too_long(size, allowance),
        Some(Signal::ABORT) if errors.contains("memory allocation of") => {
            let most = bytes(allowance.memory);
            format!("the compiler needed more than {most} of memory, the most for a component of {component}")
        }
        Some(Signal::KILL) => "the compiler was killed, by somebody or for want of memory on this machine".to_owned(),
        _ if errors.is_empty() => format!("the compiler failed ({status}); this is a fault of the compiler"),
        _ => format!("the compiler failed ({status}): {errors}; this is a fault of the compiler"),
    }
}
