//! The manifest, `bellwether.toml`: what a node is, where its coordinator is and which groups it takes part in.
//!
//! [`Manifest::load`] reads it in four steps, each of which tells of everything it finds: the text is parsed with the place
//! of each value kept (`document`); held against the JSON Schema that [`schema()`] generates from the raw structs (`shape`),
//! which takes out what is wrong; read by serde (`raw`); and checked for what a schema cannot say (`check`). The
//! reference for people is `MANIFEST.md`.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use toml::de::DeTable;

mod address;
mod check;
mod document;
mod error;
mod mask;
mod model;
mod nearest;
mod raw;
mod schema;
mod shape;

pub use address::{BadAddress, Connect, HostPort};
pub use error::{ManifestError, Problem};
pub(crate) use model::MAX_CONFIG;
pub use model::{Build, Coordination, Dev, DigestAuth, Group, Manifest, Node, Sources, Store, Tls, Worker};
pub use schema::schema;

use check::{Context, Environment};
use document::Places;

/// The admin API's socket in the data folder, unless the manifest names another.
pub(crate) const ADMIN_SOCKET: &str = "admin.sock";

/// The largest manifest.
const MAX_MANIFEST: u64 = 1 << 20;

/// Errors of syntax beyond the first few are mostly consequences of these.
const MAX_SYNTAX_ERRORS: usize = 3;

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// When the file cannot be read, or when anything in it is wrong, down to a component or folder that does not exist and
    /// an environment variable that is not set.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ManifestError> {
        Self::load_in(path.as_ref(), false)
    }

    /// The same for [`dev`](crate::dev()): with a `dev.build`, components need not be there yet, but what they are built from must be.
    ///
    /// # Errors
    /// As [`Manifest::load`], but for that.
    pub fn load_for_dev(path: impl AsRef<Path>) -> Result<Self, ManifestError> {
        Self::load_in(path.as_ref(), true)
    }

    fn load_in(path: &Path, for_dev: bool) -> Result<Self, ManifestError> {
        let failed = |message: String, reason: &str, help: &str| {
            let problem = Problem::new("", None, message).because(reason).help(help);
            Err(ManifestError::new(path, String::new(), vec![problem]))
        };
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes));
        match read {
            Ok(read) if u64::try_from(read).is_ok_and(|read| read <= MAX_MANIFEST) => {}
            Ok(_) => {
                let help = "put large data into files of its own";
                return failed("the manifest is too large".to_owned(), "the most is 1 MiB", help);
            }
            Err(error) => {
                let help = "give the path of a bellwether.toml, or run bellwether in the folder that has one";
                return failed("cannot read the manifest".to_owned(), &check::because(&error), help);
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => parse_in(&text, path, for_dev),
            Err(error) => {
                let line =
                    error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
                let reason = format!("line {line} has a byte that is not");
                failed("the manifest is not valid UTF-8".to_owned(), &reason, "save it as UTF-8")
            }
        }
    }

    /// Checks the text of a manifest that stands, or would stand, at `path`: relative paths in it begin at its folder.
    ///
    /// # Errors
    /// As [`Manifest::load`], but for reading the file.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, ManifestError> {
        parse_in(text, path.as_ref(), false)
    }
}

fn parse_in(text: &str, path: &Path, for_dev: bool) -> Result<Manifest, ManifestError> {
    let (mut root, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        let problems = syntax.iter().take(MAX_SYNTAX_ERRORS).map(|error| syntax_problem(text, error)).collect();
        return Err(ManifestError::new(path, mask::mask_broken(text), problems));
    }
    let mut places = Places::collect(root.get_ref());
    let mut problems = shape::check(root.get_mut(), &mut places);
    let refuse = |problems| Err(ManifestError::new(path, mask::mask(text, &places), problems));
    let raw = match raw::RawManifest::deserialize(toml::Deserializer::from(root)) {
        Ok(raw) => raw,
        // The schema comes from the same structs, so that little can be left to complain of.
        Err(error) => {
            problems.push(syntax_problem(text, &error));
            return refuse(problems);
        }
    };
    let full = match std::path::absolute(path) {
        Ok(full) => full,
        Err(error) => {
            return refuse(vec![
                Problem::new("", None, "the manifest has no absolute path").because(error.to_string()),
            ]);
        }
    };
    let base = full.parent().unwrap_or(&full);
    let environment: Environment<'_> = &|name| std::env::var_os(name);
    let mut cx = Context { places: &places, base, environment, for_dev, build: None, problems };
    let manifest = check::check(&mut cx, raw, &full);
    match manifest {
        Some(manifest) if cx.problems.is_empty() => Ok(manifest),
        _ => refuse(cx.problems),
    }
}

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let problem = Problem::new("", error.span(), "the manifest is not valid TOML").because(error.message());
    if error.message() == "duplicate key" {
        return problem.help("a key stands only once in a table: leave one of the two out");
    }
    let at = error.span().map_or(0, |span| span.start);
    let line_start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    match line.split_once('=').map(|(_, value)| value.trim()) {
        Some("") => problem.help("write a value after the `=`"),
        // The most common mistake by far.
        Some(value) if !value.starts_with(['"', '\'', '[', '{']) => problem.help("text needs quotes, as in `id = \"node-1\"`"),
        _ => problem.help("write tables as `[node]`, and keys as `id = \"node-1\"`, `queue = 64` or `env = [\"HOME\"]`; see https://toml.io"),
    }
}
