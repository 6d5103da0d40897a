//! How the program ends.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, as `--help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The reader of the output went away: not a failure.
    Ok = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The manifest cannot be used.
    Manifest = 3,
    /// A component cannot be used.
    Component = 4,
    /// The coordinator does not answer, or refuses.
    Coordinator = 5,
    /// Something on this machine is missing, taken or not allowed.
    Local = 6,
    /// No node answers.
    NoNode = 7,
    /// A rollout failed: the group went back, or is halted.
    WentBack = 8,
    /// The group does not allow it now; nothing was written.
    Refused = 9,
    /// A rollout was aborted.
    Aborted = 10,
}

impl From<Exit> for i32 {
    fn from(exit: Exit) -> i32 {
        exit as i32
    }
}

/// The process's exit code.
pub fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Why the program ends without having done its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its exit code.
    pub exit: Exit,
    /// What happened; empty if there is nothing to say.
    pub what: String,
    /// Why, or more about it.
    pub why: Vec<String>,
    /// What to do.
    pub help: Vec<String>,
    /// Whether `what` is a whole message that begins with its own `error:`.
    pub whole: bool,
}

impl Failure {
    /// A failure that says what happened.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: Vec::new(), help: Vec::new(), whole: false }
    }

    /// A failure of which everything has been said.
    pub fn quiet(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// A failure whose message has been laid out already.
    pub fn whole(exit: Exit, message: impl Into<String>) -> Self {
        Self { whole: true, ..Self::new(exit, message) }
    }

    /// Says why.
    pub fn why(mut self, why: impl fmt::Display) -> Self {
        self.why.push(why.to_string());
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}
