//! What a node has logged.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

/// One line of a node's log: of its JSON, or whatever else it wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// As it stands.
    pub text: String,
    /// As JSON; null if it is none.
    pub json: Value,
}

impl Line {
    fn text_at(&self, pointer: &str) -> &str {
        self.json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// What it says.
    #[must_use]
    pub fn message(&self) -> &str {
        match self.text_at("/message") {
            "" if self.json.is_null() => &self.text,
            message => message,
        }
    }

    /// `INFO`, `WARN`, …
    #[must_use]
    pub fn level(&self) -> &str {
        self.text_at("/level")
    }

    /// The group that it is about; empty if none.
    #[must_use]
    pub fn group(&self) -> &str {
        self.text_at("/group")
    }

    /// The epoch that it is about.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.json.get("epoch").and_then(Value::as_u64)
    }

    /// Which event it tells of, for programs: `elected`, `demoted`, `registered`, …; empty if it has no such word.
    #[must_use]
    pub fn what(&self) -> &str {
        self.text_at("/fields/what")
    }

    /// Whether it tells of `what` in `group`.
    #[must_use]
    pub fn tells(&self, group: &str, what: &str) -> bool {
        self.group() == group && self.what() == what
    }

    /// What a guest wrote under this context (the probe writes a line for each callback, under its name); none for other lines.
    #[must_use]
    pub fn guest(&self, context: &str) -> Option<&str> {
        (self.text_at("/target") == "guest" && self.text_at("/fields/context") == context).then(|| self.message())
    }
}

/// A log that grows.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    read: u64,
    rest: Vec<u8>,
    lines: Vec<Arc<Line>>,
}

impl Log {
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: 0, rest: Vec::new(), lines: Vec::new() }
    }

    /// All whole lines so far.
    pub fn lines(&mut self) -> &[Arc<Line>] {
        // A file that is not there yet is empty.
        let _ = self.read_on();
        &self.lines
    }

    fn read_on(&mut self) -> std::io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        self.read += file.read_to_end(&mut self.rest)? as u64;
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let json = serde_json::from_str(&text).unwrap_or(Value::Null);
            self.lines.push(Arc::new(Line { text, json }));
        }
        Ok(())
    }
}
