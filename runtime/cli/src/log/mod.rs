//! The log, on stderr: for people on a terminal, otherwise one JSON object a line.
//!
//! Of an event and the spans around it, the fields `node`, `group` and `epoch` say what it is about; the innermost counts.
//! Events of the target `guest` are lines that a guest wrote; their field `context` is the one it gave, and `part` says whether
//! it wrote them in a callback or in a task. Those of the target `build` are lines of the command that builds it (`bellwether dev`).

mod fields;
mod human;
mod json;
mod writer;

use std::io::IsTerminal;
use std::time::Instant;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Global, LogFormat};
use crate::exit::{Exit, Failure};
use fields::Fields;
pub use writer::Flush;
use writer::{Moment, Writer};

/// The libraries that say more than an operator wants to hear, unless asked.
const QUIET: [&str; 6] =
    ["zookeeper_client=warn", "wasmtime=warn", "cranelift_codegen=warn", "h2=warn", "hyper=warn", "tonic=warn"];

/// Installs the log; what is still on its way is written when the guard is dropped.
pub fn install(global: &Global) -> Result<Flush, Failure> {
    let terminal = std::io::stderr().is_terminal();
    let human = match global.log_format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let filter = filter(&global.log)?;
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Local, "cannot set the log up").why(error);
    let (writer, flush) = Writer::start(std::io::stderr()).map_err(|error| failed(&error))?;
    let form = if human { Form::Human { color: global.color.on_stderr(), start: Instant::now() } } else { Form::Json };
    let later = writer.clone();
    bellwether_node::make_lines_elsewhere(move |making| later.made_later(making));
    let lines = Lines { form, writer };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().map_err(|error| failed(&error))?;
    Ok(flush)
}

fn filter(text: &str) -> Result<EnvFilter, Failure> {
    let quiet = QUIET.iter().filter(|directive| {
        // What the user says about a library stands.
        let library = directive.split('=').next().unwrap_or_default();
        !text.split(',').any(|asked| asked.trim().starts_with(library))
    });
    let all: Vec<_> = quiet.copied().chain(std::iter::once(text)).filter(|part| !part.trim().is_empty()).collect();
    EnvFilter::builder().parse(all.join(",")).map_err(|error| {
        Failure::new(Exit::Usage, format!("{text:?} is no log filter"))
            .why(error)
            .help("give a level (error, warn, info, debug, trace), or as in \"info,bellwether_node=debug,guest=warn\"")
    })
}

/// One event, with what its spans say about it.
struct Line<'a> {
    level: Level,
    target: &'a str,
    fields: &'a Fields,
}

impl Line<'_> {
    /// Whether a guest wrote it.
    fn is_guest(&self) -> bool {
        self.target == "guest"
    }

    /// Whether it comes from the command that builds the component.
    fn is_build(&self) -> bool {
        self.target == "build"
    }
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Human { color: bool, start: Instant },
    Json,
}

struct Lines {
    form: Form,
    writer: Writer,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flatten().collect::<Vec<_>>().iter().rev() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.take_in(outer);
            }
        }
        event.record(&mut fields);
        let line = Line { level: *event.metadata().level(), target: event.metadata().target(), fields: &fields };
        let moment = Moment::of_line();
        let text = match self.form {
            Form::Human { color, start } => human::render(&line, moment.running.duration_since(start), color),
            Form::Json => json::render(&line, moment.of_day),
        };
        self.writer.line(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_and_libraries_stay_quiet_unless_asked() {
        assert_eq!(filter("info,[").unwrap_err().exit, Exit::Usage);
        let shown = filter("debug").unwrap().to_string();
        assert!(shown.contains("wasmtime=warn") && shown.contains("debug"), "{shown}");
        let shown = filter("info,wasmtime=trace").unwrap().to_string();
        assert!(shown.contains("wasmtime=trace") && !shown.contains("wasmtime=warn"), "{shown}");
    }
}
