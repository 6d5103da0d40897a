//! What is wrong with a manifest, and how a person is told.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// A report names at most so many problems; more are counted.
const MAX_SHOWN: usize = 30;

/// The width that source lines are cut to.
const WIDTH: usize = 140;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The key that it is about, as in `group[0].limits.memory`; empty if it is about the file.
    pub key: String,
    /// The line, from 1; none if the problem is not in the text.
    pub line: Option<usize>,
    /// The column, in characters from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// Why, in a few words; it stands beside the caret.
    pub reason: String,
    /// What to do about it.
    pub help: Vec<String>,
    span: Option<Range<usize>>,
    related: Option<(Range<usize>, String)>,
}

impl Problem {
    /// A problem of the key `key`, at `span`.
    pub(super) fn new(key: impl Into<String>, span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            line: None,
            column: None,
            message: message.into(),
            reason: String::new(),
            help: Vec::new(),
            span,
            related: None,
        }
    }

    /// Says why.
    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Says what to do.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Points at another place that has to do with it.
    pub(super) fn related(mut self, span: Option<Range<usize>>, label: impl Into<String>) -> Self {
        self.related = span.map(|span| (span, label.into()));
        self
    }

    fn report<'a>(&'a self, path: &'a str, text: &'a str) -> Group<'a> {
        let title = Level::ERROR.primary_title(self.message.as_str());
        let mut group = match &self.span {
            Some(span) => {
                let label = Some(self.reason.as_str()).filter(|reason| !reason.is_empty());
                let mut snippet = Snippet::source(text)
                    .path(path)
                    .annotation(AnnotationKind::Primary.span(span.clone()).label(label));
                if let Some((span, label)) = &self.related {
                    snippet = snippet.annotation(AnnotationKind::Context.span(span.clone()).label(label.as_str()));
                }
                title.element(snippet)
            }
            None => {
                let group = title.element(Origin::path(path));
                if self.reason.is_empty() { group } else { group.element(Level::NOTE.message(self.reason.as_str())) }
            }
        };
        for help in &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }
}

/// A manifest that cannot be used. Its `Display` is the whole message, for a person: each problem with its place in the file,
/// an excerpt, why it is one and what to do. Values that may be secrets are masked.
#[derive(Clone)]
pub struct ManifestError {
    path: PathBuf,
    text: String,
    problems: Vec<Problem>,
}

impl ManifestError {
    /// Takes the problems, in any order; `text` must not hold any secret (see `super::mask`).
    pub(super) fn new(path: &Path, text: String, mut problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty(), "a manifest is refused without a reason");
        for problem in &mut problems {
            let Some(span) = &mut problem.span else { continue };
            *span = within(&text, span);
            if let Some((span, _)) = &mut problem.related {
                *span = within(&text, span);
            }
            let before = &text[..span.start];
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            problem.line = Some(before.matches('\n').count() + 1);
            problem.column = Some(before[line_start..].chars().count() + 1);
        }
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        Self { path: path.to_owned(), text, problems }
    }

    /// The file, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All problems, in the order of the file; at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// As `Display`, with the colours of a terminal.
    #[must_use]
    pub fn to_ansi(&self) -> String {
        self.render(&Renderer::styled().term_width(WIDTH))
    }

    fn render(&self, renderer: &Renderer) -> String {
        let path = self.path.display().to_string();
        let mut shown: Vec<String> = self
            .problems
            .iter()
            .take(MAX_SHOWN)
            .map(|problem| renderer.render(&[problem.report(&path, &self.text)]))
            .collect();
        if let Some(more) = self.problems.len().checked_sub(MAX_SHOWN).filter(|&more| more > 0) {
            shown.push(format!("… and {more} more"));
        }
        shown.join("\n\n")
    }
}

/// The part of `span` that lies in `text`, on the boundaries of characters.
fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain().term_width(WIDTH)))
    }
}

impl fmt::Debug for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestError")
            .field("path", &self.path)
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for ManifestError {}
