//! Data goes to stdout, everything else to stderr.

use std::io::{self, Write};

use crate::exit::{Exit, Failure};

/// Writes data to stdout. A reader that has gone away ends the program quietly, as it would any other tool.
pub fn data(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::quiet(Exit::Ok),
        _ => Failure::new(Exit::Local, "cannot write to stdout").why(error),
    })
}

/// Writes a line, or lines, of text to stdout.
pub fn text(text: &str) -> Result<(), Failure> {
    data(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
}

/// Writes JSON to stdout, for people to read as well.
pub fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    text(&serde_json::to_string_pretty(value).map_err(|error| unwritable(&error))?)
}

/// Writes JSON to stdout, on one line.
pub fn json_line(value: &impl serde::Serialize) -> Result<(), Failure> {
    text(&serde_json::to_string(value).map_err(|error| unwritable(&error))?)
}

fn unwritable(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::Failed, "the result cannot be written as JSON").why(error)
}

/// Tells a person on stderr what the data do not say.
pub fn note(text: &str) {
    // If stderr is gone there is nobody left to tell.
    let _ = io::stderr().lock().write_all(format!("note: {text}\n").as_bytes());
}

/// Tells a person on stderr why the program ends.
pub fn report(failure: &Failure, color: bool) {
    let text = layout(failure, color);
    // If stderr is gone there is nobody left to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn layout(failure: &Failure, color: bool) -> String {
    if failure.what.is_empty() {
        return String::new();
    }
    if failure.whole {
        // Laid out, and coloured or not, by whoever made it.
        return format!("{}\n", failure.what.trim_end());
    }
    let (red, green, off) = if color { ("\x1b[1;31m", "\x1b[1;32m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!("{red}error:{off} {}\n", indented(&failure.what, "  "));
    for why in &failure.why {
        text.push_str(&format!("  {}\n", indented(why, "  ")));
    }
    for help in &failure.help {
        text.push_str(&format!("  {green}help:{off} {}\n", indented(help, "    ")));
    }
    text
}

fn indented(text: &str, by: &str) -> String {
    clean(text.trim_end()).replace('\n', &format!("\n{by}"))
}

/// Makes text from elsewhere (a guest, another process) harmless to a terminal: control characters become visible, line
/// ends stay.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => cleaned.push('\n'),
            '\t' => cleaned.push_str("    "),
            '\r' => {}
            // Bidirectional overrides reorder what stands around them, as a cursor movement would.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => cleaned.extend(character.escape_unicode()),
            _ if character.is_control() => cleaned.extend(character.escape_unicode()),
            _ => cleaned.push(character),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let failure = Failure::new(Exit::Failed, "it broke").why("this\nand that").help("mend it");
        assert_eq!(layout(&failure, false), "error: it broke\n  this\n  and that\n  help: mend it\n");
        assert_eq!(layout(&failure, true).matches("\x1b[0m").count(), 2);
        assert_eq!(layout(&Failure::quiet(Exit::Ok), false), "");
        assert_eq!(layout(&Failure::whole(Exit::Manifest, "error: m\n --> f\n"), false), "error: m\n --> f\n");
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\x07\r\n\tc\u{202e}d"), "a\\u{1b}[2Jb\\u{7}\n    c\\u{202e}d");
    }
}
