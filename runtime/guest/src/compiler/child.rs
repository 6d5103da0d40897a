//! The compiler's side: what runs in the process that a node starts.

use std::ffi::OsString;
use std::io::{self, Read, Write};

use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit};
use wasmtime::Engine;

use super::{Allowance, config, here};

/// What the process of a compiler does to itself before it looks at a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Confinement {
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// What it writes, in bytes.
    pub output: Option<u64>,
    /// Seconds of processor time.
    pub processor: Option<u64>,
    /// The process without which it is of no use.
    pub parent: Option<i32>,
}

impl From<&Allowance> for Confinement {
    fn from(allowance: &Allowance) -> Self {
        Self {
            memory: Some(allowance.memory),
            output: Some(allowance.output),
            processor: Some(allowance.processor.as_secs()),
            ..Self::default()
        }
    }
}

impl Confinement {
    /// As options on a command line.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let option = |name: &str, value: Option<String>| value.map(|value| format!("--{name}={value}").into());
        [
            option("memory", self.memory.map(|bytes| bytes.to_string())),
            option("output", self.output.map(|bytes| bytes.to_string())),
            option("processor", self.processor.map(|seconds| seconds.to_string())),
            option("parent", self.parent.map(|process| process.to_string())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn apply(&self) -> io::Result<()> {
        let limit = |resource, current: u64, most: u64| {
            // What was allowed less than that stays so.
            let most = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
            setrlimit(resource, Rlimit { current: Some(current.min(most)), maximum: Some(most) })
        };
        if let Some(parent) = self.parent {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // Had it died before that, nobody would send the signal any more.
            if getppid() != Pid::from_raw(parent) {
                return Err(io::Error::other(format!("process {parent}, which wanted this compiled, is gone")));
            }
        }
        limit(Resource::Core, 0, 0)?;
        if let Some(memory) = self.memory {
            limit(Resource::Data, memory, memory)?;
        }
        if let Some(output) = self.output {
            // It lies in memory that is not this process's own.
            limit(Resource::Fsize, output, output)?;
        }
        if let Some(processor) = self.processor {
            limit(Resource::Cpu, processor, processor.saturating_add(5))?;
        }
        // If memory becomes scarce on the machine, this process is to go and not the node. Where that cannot be said, it is not.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        Ok(())
    }
}

/// What came of compiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// The code was written.
    Compiled,
    /// The component is none, and why; that was written.
    Refused(String),
}

/// The stack of the thread that compiles: the compiler recurses as deeply as the component is nested.
const STACK: usize = 16 << 20;

/// Compiles the component that `input` holds, within limits, and writes what came of it to `output`.
///
/// # Errors
/// When this process cannot be confined as it should be, or cannot read, write or compile at all.
pub fn serve(confinement: &Confinement, mut input: impl Read, mut output: impl Write) -> io::Result<Served> {
    confinement.apply()?;
    let mut wasm = Vec::new();
    input.read_to_end(&mut wasm)?;
    let compiler = std::thread::Builder::new().name("compiler".into()).stack_size(STACK);
    let compiling = compiler.spawn(move || {
        let engine = Engine::new(&config()).map_err(|error| io::Error::other(format!("{error:#}")))?;
        Ok::<_, io::Error>(here(&engine, &wasm))
    })?;
    let compiled = compiling.join().map_err(|_| io::Error::other("the compiler has panicked"))??;
    let (answer, served) = match compiled {
        Ok(code) => (code, Served::Compiled),
        Err(error) => (error.reason.clone().into_bytes(), Served::Refused(error.reason)),
    };
    output.write_all(&answer)?;
    output.flush()?;
    Ok(served)
}
