//! What the job needs of the runtime, as a trait: the contract's imports when it runs as a guest, a model of them in tests.

/// A value of the group's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// Its version.
    pub version: u32,
}

/// What must be true for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// The key does not exist.
    Absent,
    /// The key has this version.
    Version(u32),
}

/// Why the state could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// This node does not lead.
    #[error("this node does not lead any more")]
    NotLeader,
    /// The expectation does not hold.
    #[error("somebody else wrote it: it {}", match .0 { Some(version) => format!("has version {version}"), None => "does not exist".to_owned() })]
    Conflict(Option<u32>),
    /// Anything else; a write may or may not have happened.
    #[error("{0}")]
    Failed(String),
}

/// Why a task was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The member is gone or cannot be reached, or did not answer in time.
    #[error("{0}")]
    Away(String),
    /// The member has too much to do.
    #[error("overloaded")]
    Overloaded,
    /// The member refused the task or failed at it.
    #[error("failed: {0}")]
    Failed(String),
    /// This node does not lead.
    #[error("this node does not lead any more")]
    NotLeader,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For operators.
    Info,
    /// Something is wrong and was dealt with.
    Warn,
}

/// The runtime as the job sees it.
pub trait Outside {
    /// What a key holds.
    ///
    /// # Errors
    /// If the state cannot be read.
    fn get(&mut self, key: &str) -> Result<Option<Entry>, StateError>;
    /// Writes a key; gives its new version.
    ///
    /// # Errors
    /// If the write did not happen, or may not have happened.
    fn put(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<u32, StateError>;
    /// Deletes a key, whatever it holds.
    ///
    /// # Errors
    /// If it did not happen, or may not have happened.
    fn delete(&mut self, key: &str) -> Result<(), StateError>;
    /// The keys with a prefix.
    ///
    /// # Errors
    /// If the state cannot be read.
    fn list(&mut self, prefix: &str) -> Result<Vec<String>, StateError>;
    /// Hands out tasks, each `(member, payload)`, and waits for the answers, which stand in the same order.
    fn scatter(&mut self, tasks: Vec<(String, Vec<u8>)>, timeout_ms: u32) -> Vec<Result<Vec<u8>, TaskError>>;
    /// The term of this node while it leads.
    fn epoch(&mut self) -> Option<u64>;
    /// The files of the corpus and their sizes.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    fn files(&mut self, folder: &str) -> Result<Vec<(String, u64)>, crate::corpus::CorpusError>;
    /// The text of a chunk.
    ///
    /// # Errors
    /// If it cannot be read.
    fn text(&mut self, folder: &str, chunk: &crate::corpus::Chunk) -> Result<Vec<u8>, crate::corpus::CorpusError>;
    /// Logs a line.
    fn log(&mut self, level: Level, message: &str);
}
