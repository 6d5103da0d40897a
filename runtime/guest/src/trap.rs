//! How a failed call is told to a person: what happened, where in the guest, and the guest's last words.

use bellwether_core::callback::CallFailure;
use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};

use crate::context::{Ctx, bytes};
use crate::error::one_line;

/// Frames of the guest that are named.
const FRAMES: usize = 6;
/// The longest name of a function.
const NAME: usize = 120;

/// What the failure of a call means.
pub(crate) fn failure(error: &wasmtime::Error, ctx: &Ctx, budget_ms: u64) -> CallFailure {
    if let Some(what) = &ctx.meter.hit {
        return CallFailure::OverLimit(what.clone());
    }
    let root = error.root_cause().to_string();
    // wasmtime's errors for these have no public type.
    if let Some(what) = root.strip_prefix("resource limit exceeded: ") {
        return CallFailure::OverLimit(what.to_owned());
    }
    if matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
        return CallFailure::OverLimit(format!(
            "more than {} handles at once (files, sockets, streams, requests): let go of those that are not needed",
            ctx.handles()
        ));
    }
    if root.contains("too much data is being copied") || root.contains("hostcall fuel") {
        let limit = bytes(ctx.limits.message_bytes);
        return CallFailure::OverLimit(format!(
            "far more than {limit} in one call between guest and host, which is what `message` under [group.limits] allows: send it in \
             pieces, or raise the limit"
        ));
    }
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt)) {
        return CallFailure::TimedOut { budget_ms };
    }
    CallFailure::Trapped(story(error, ctx))
}

/// The trap's kind, a short backtrace and what the guest said last.
fn story(error: &wasmtime::Error, ctx: &Ctx) -> String {
    let mut story = if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        format!("the guest called exit({})", exit.0)
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        let text = trap.to_string();
        text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned()
    } else if error.downcast_ref::<WasmBacktrace>().is_some() {
        error.root_cause().to_string()
    } else {
        one_line(error)
    };
    if let Some(frames) = place(error) {
        story.push_str(", in ");
        story.push_str(&frames);
    }
    let words: Vec<String> = ctx
        .output
        .last_words()
        .into_iter()
        .filter(|line| !line.trim().is_empty() && !line.contains("RUST_BACKTRACE"))
        .collect();
    if !words.is_empty() {
        story.push_str("; its last words: ");
        story.push_str(&words.join(" | "));
    }
    story
}

/// Where in the guest, innermost first. What every panic passes through says nothing and is left out.
pub(crate) fn place(error: &wasmtime::Error) -> Option<String> {
    let backtrace = error.downcast_ref::<WasmBacktrace>()?;
    let names: Vec<String> = backtrace
        .frames()
        .iter()
        .map(|frame| match frame.func_name() {
            Some(name) => demangle(name),
            None => format!("function {}", frame.func_index()),
        })
        .collect();
    let machinery = |name: &String| {
        ["core::panicking", "std::panicking", "std::rt", "std::sys", "std::process", "rustc::rust_", "__rust"]
            .iter()
            .any(|prefix| name.trim_start_matches('<').starts_with(prefix))
            || ["abort", "rust_panic", "_rust_begin_unwind", "rust_begin_unwind"].contains(&name.as_str())
            || name.contains("__rust_end_short_backtrace")
    };
    let skipped = names.iter().take_while(|name| machinery(name)).count();
    let telling = if skipped == names.len() { &names[..] } else { &names[skipped..] };
    let mut shown: Vec<&str> = telling.iter().take(FRAMES).map(String::as_str).collect();
    if telling.len() > FRAMES {
        shown.push("…");
    }
    (!shown.is_empty()).then(|| shown.join(" < "))
}

fn demangle(name: &str) -> String {
    let mut name = format!("{:#}", rustc_demangle::demangle(name));
    if name.len() > NAME {
        name.truncate(name.floor_char_boundary(NAME));
        name.push('…');
    }
    name
}
