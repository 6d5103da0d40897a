//! From the manifest as it is written to the manifest as the node uses it: checks what a schema cannot say.

mod coordination;
mod dev;
mod group;
mod node;
mod sources;

use std::fmt::Display;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use super::address::HostPort;
use super::document::Places;
use super::error::Problem;
use super::model::Manifest;
use super::raw::RawManifest;

/// A look at the node's environment, so that tests can stand in for it.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<std::ffi::OsString>;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the checks have in common.
pub(super) struct Context<'c> {
    /// Where everything stands.
    pub places: &'c Places,
    /// The folder that paths are relative to; absolute.
    pub base: &'c Path,
    /// The node's environment.
    pub environment: Environment<'c>,
    /// Whether this is for `bellwether dev`: components that it builds need not be there yet, but their sources must.
    pub for_dev: bool,
    /// The command that builds them, if there is one.
    pub build: Option<String>,
    /// What was found.
    pub problems: Vec<Problem>,
}

/// Checks everything; `None` when something essential is missing or wrong, which then is among the problems.
pub(super) fn check(cx: &mut Context<'_>, raw: RawManifest, path: &Path) -> Option<Manifest> {
    let node = node::check(cx, raw.node.unwrap_or_default());
    let coordination = coordination::check(cx, raw.coordination.unwrap_or_default());
    let sources = sources::check(cx, raw.sources.unwrap_or_default());
    let store = sources::store(cx, raw.store.unwrap_or_default());
    let signatures = sources::signatures(cx, raw.signatures.unwrap_or_default());
    let dev = dev::check(cx, raw.dev.unwrap_or_default());
    cx.build = dev.build.as_ref().map(|build| build.command.clone());
    let groups = group::check_all(cx, raw.group.unwrap_or_default());
    let (path, node, coordination) = (path.to_owned(), node?, coordination?);
    Some(Manifest { path, node, coordination, sources, store, signatures, dev, groups: groups? })
}

impl Context<'_> {
    /// A problem with the value of `key`; to be given to [`Self::tell`].
    fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem::new(key, self.places.value_or_parent(key), message)
    }

    fn tell(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Whether the text has `key`, though its value may have been taken out as wrong.
    fn written(&self, key: &str) -> bool {
        self.places.has(key)
    }

    /// The value, or its error told.
    fn take<T, E: Display>(&mut self, key: &str, result: Result<T, E>, message: &str, help: &str) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.tell(self.problem(key, format!("`{key}` {message}")).because(error.to_string()).help(help));
                None
            }
        }
    }

    /// A duration of `range`; `default` when it is absent, or wrong and told.
    fn duration(
        &mut self,
        key: &str,
        text: Option<String>,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(text) = text else { return default };
        let (least, most) = (*range.start(), *range.end());
        let help = format!(
            "write a number and a unit (ms, s, m for minutes, h, days), {} to {}, as in `{} = \"{}\"`",
            shown(least),
            shown(most),
            key.rsplit('.').next().unwrap_or(key),
            shown(default)
        );
        let why = match humantime::parse_duration(text.trim()) {
            Ok(duration) if range.contains(&duration) => return duration,
            Ok(duration) if duration < least => {
                let problem = self.problem(key, format!("`{key}` is too short: {text:?}"));
                self.tell(problem.because(format!("the least is {}", shown(least))).help(help));
                return default;
            }
            Ok(_) => {
                let problem = self.problem(key, format!("`{key}` is too long: {text:?}"));
                self.tell(problem.because(format!("the most is {}", shown(most))).help(help));
                return default;
            }
            Err(humantime::DurationError::UnknownUnit { unit, .. }) if unit.is_empty() => {
                "the unit is missing".to_owned()
            }
            Err(humantime::DurationError::UnknownUnit { unit, .. }) => format!("unknown unit {unit:?}"),
            Err(humantime::DurationError::Empty) => "it is empty".to_owned(),
            Err(humantime::DurationError::NumberOverflow) => "the number is too large or too precise".to_owned(),
            Err(_) => "it does not begin with a number".to_owned(),
        };
        let problem = self.problem(key, format!("`{key}` is not a duration: {text:?}"));
        self.tell(problem.because(why).help(help));
        default
    }

    /// A size in bytes of `range`; `default` when it is absent, or wrong and told.
    fn size(&mut self, key: &str, text: Option<String>, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(text) = text else { return default };
        let (least, most) = (shown_size(*range.start()), shown_size(*range.end()));
        let help = format!(
            "write a number and a unit (KiB, MiB, GiB; or kB, MB, GB, of 1000), {least} to {most}, as in `{} = \"{}\"`",
            key.rsplit('.').next().unwrap_or(key),
            shown_size(default)
        );
        let trimmed = text.trim();
        let unit = trimmed.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim_start();
        let problem = match trimmed.parse::<ByteSize>() {
            Ok(_) if unit.is_empty() => {
                self.problem(key, format!("`{key}` is not a size: {text:?}")).because("the unit is missing")
            }
            Ok(size) if range.contains(&size.0) => return size.0,
            Ok(size) if size.0 < *range.start() => {
                self.problem(key, format!("`{key}` is too small: {text:?}")).because(format!("the least is {least}"))
            }
            Ok(_) => {
                self.problem(key, format!("`{key}` is too large: {text:?}")).because(format!("the most is {most}"))
            }
            Err(_) => {
                let why = if trimmed.is_empty() {
                    "it is empty".to_owned()
                } else if unit.len() == trimmed.len() {
                    "it does not begin with a number".to_owned()
                } else {
                    format!("unknown unit {unit:?}")
                };
                self.problem(key, format!("`{key}` is not a size: {text:?}")).because(why)
            }
        };
        self.tell(problem.help(help));
        default
    }

    /// A `host:port`; port 0 only where a port is chosen at start.
    fn address(&mut self, key: &str, text: &str, zero: bool) -> Option<HostPort> {
        let help = "write a host and a port, as in \"10.0.0.7:7400\", \"node-1.example:7400\" or \"[::1]:7400\"";
        let address = self.take(key, text.parse::<HostPort>(), "is not an address", help)?;
        if address.port == 0 && !zero {
            self.tell(
                self.problem(key, format!("`{key}` has port 0")).because("nothing can be reached there").help(help),
            );
            return None;
        }
        Some(address)
    }

    /// A path, resolved against the manifest's folder. Empty paths and those with a NUL are told.
    fn path(&mut self, key: &str, path: &Path) -> Option<PathBuf> {
        let text = path.as_os_str().as_encoded_bytes();
        if text.is_empty() || text.contains(&0) {
            let why = if text.is_empty() { "it is empty" } else { "it has a NUL character" };
            self.tell(self.problem(key, format!("`{key}` is not a path")).because(why));
            return None;
        }
        Some(resolve(self.base, path))
    }

    /// The path of a file that exists.
    fn file(&mut self, key: &str, path: &Path, what: &str) -> Option<PathBuf> {
        let full = self.path(key, path)?;
        let reason = match std::fs::metadata(&full) {
            Ok(found) if found.is_file() => return Some(full),
            Ok(found) if found.is_dir() => "this is a folder".to_owned(),
            Ok(_) => "this is not a regular file".to_owned(),
            Err(error) => because(&error),
        };
        self.tell_path(key, path, &full, &format!("{what} cannot be used"), reason);
        None
    }

    /// The contents of a file of at most `most` bytes, and its path.
    fn contents(&mut self, key: &str, path: &Path, what: &str, most: usize) -> Option<(PathBuf, Vec<u8>)> {
        let full = self.file(key, path, what)?;
        let mut contents = Vec::new();
        // One byte more than allowed shows that there is more.
        let read = std::fs::File::open(&full).and_then(|file| {
            file.take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut contents)
        });
        let reason = match read {
            Ok(_) if contents.len() <= most => return Some((full, contents)),
            Ok(_) => format!("it is larger than {}", shown_size(u64::try_from(most).unwrap_or(u64::MAX))),
            Err(error) => because(&error),
        };
        self.tell_path(key, path, &full, &format!("{what} cannot be read"), reason);
        None
    }

    /// Tells of a path that is of no use.
    fn tell_path(&mut self, key: &str, written: &Path, full: &Path, message: &str, reason: String) {
        let mut problem = self.problem(key, format!("`{key}`: {message}: {}", full.display())).because(reason);
        if written.is_relative() {
            problem = problem.help(format!("paths are relative to the manifest's folder, {}", self.base.display()));
        }
        self.tell(problem);
    }
}

/// Why a file or folder cannot be used.
pub(super) fn because(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::NotADirectory => "a part of the path is not a folder".to_owned(),
        _ => error.to_string(),
    }
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A size in the largest unit that it is a whole number of.
fn shown_size(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

/// `path` below `base`, without `.` parts. `..` stays: what it means is the file system's to say.
fn resolve(base: &Path, path: &Path) -> PathBuf {
    base.join(path).components().filter(|part| *part != Component::CurDir).collect()
}
