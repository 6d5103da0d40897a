//! A line for a person: time since the start, level, node, group, epoch, what happened.

use std::fmt::Write as _;
use std::time::Duration;

use tracing::Level;

use super::Line;
use super::fields::{epoch, plain};
use crate::output::clean;

const OFF: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const CYAN: &str = "\x1b[36m";
const MAGENTA: &str = "\x1b[35m";

/// The colours of nodes: none that a level has.
const NODES: [&str; 6] = ["\x1b[34m", "\x1b[36m", "\x1b[95m", "\x1b[94m", "\x1b[96m", "\x1b[92m"];

/// The fields that have a place of their own in the line.
const PLACED: [&str; 4] = ["message", "node", "group", "epoch"];

/// The fields that have one in a guest's line.
const GUEST: [&str; 2] = ["context", "part"];

pub fn render(line: &Line<'_>, since_start: Duration, color: bool) -> String {
    let paint = |text: &str, with: &str| if color { format!("{with}{text}{OFF}") } else { text.to_owned() };
    let fields = line.fields;
    let mut text = paint(&format!("{:>9.3}s", since_start.as_secs_f64()), DIM);
    text.push(' ');
    text.push_str(&level(line.level, color));
    if let Some(node) = fields.text("node") {
        // The same node has the same colour in every run.
        let sum = node.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let node = clean_line(&node);
        text.push_str(&format!(" {}", paint(&node, NODES[sum % NODES.len()])));
    }
    if let Some(group) = fields.text("group") {
        text.push_str(&format!(" {}", paint(&clean_line(&group), BOLD)));
    }
    if let Some(value) = fields.0.get("epoch") {
        let shown = epoch(value).map_or_else(|| clean_line(&plain(value)), |epoch| format!("e{epoch}"));
        text.push_str(&format!(" {}", paint(&shown, MAGENTA)));
    }
    text.push_str("  ");
    if line.is_guest() {
        // Tasks run beside the callbacks, in instances of their own.
        let mark = if fields.text("part").as_deref() == Some("tasks") { "task|" } else { "guest|" };
        text.push_str(&paint(mark, CYAN));
        text.push(' ');
        if let Some(context) = fields.text("context").filter(|context| !context.is_empty()) {
            text.push_str(&format!("[{}] ", clean_line(&context)));
        }
    }
    if line.is_build() {
        text.push_str(&format!("{} ", paint("build|", DIM)));
    }
    if let Some(message) = fields.text("message") {
        text.push_str(&clean(message.trim_end()));
    }
    for (name, value) in &fields.0 {
        if PLACED.contains(name) || (line.is_guest() && GUEST.contains(name)) {
            continue;
        }
        let value = clean(plain(value).trim_end());
        let value = if needs_quotes(&value) { format!("{value:?}") } else { value };
        // Writing to a String cannot fail.
        let _ = write!(text, " {}", paint(&format!("{name}={value}"), DIM));
    }
    // A trap's backtrace has several lines: they stand under the first.
    let mut text = text.replace('\n', "\n            ");
    text.push('\n');
    text
}

fn level(level: Level, color: bool) -> String {
    let (name, with) = match level {
        Level::ERROR => ("ERROR", "\x1b[1;31m"),
        Level::WARN => ("WARN ", "\x1b[33m"),
        Level::INFO => ("INFO ", "\x1b[32m"),
        Level::DEBUG => ("DEBUG", "\x1b[2;36m"),
        Level::TRACE => ("TRACE", DIM),
    };
    if color { format!("{with}{name}{OFF}") } else { name.to_owned() }
}

fn clean_line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

fn needs_quotes(value: &str) -> bool {
    value.is_empty() || (value.contains([' ', '"']) && !value.contains('\n'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fields::Fields;
    use super::*;

    fn line(level: Level, target: &str, fields: serde_json::Value, color: bool) -> String {
        let fields = Fields::of(fields);
        render(&Line { level, target, fields: &fields }, Duration::from_millis(12_345), color)
    }

    #[test]
    fn the_line_says_when_where_and_what() {
        let fields = json!({"node":"node-1","group":"wordcount","epoch":42,"message":"leads","members":2,"why":"a b"});
        let expected = "   12.345s INFO  node-1 wordcount e42  leads members=2 why=\"a b\"\n";
        assert_eq!(line(Level::INFO, "bellwether_node", fields, false), expected);
        assert_eq!(line(Level::WARN, "x", json!({"message":"m","epoch":"e7"}), false), "   12.345s WARN  e7  m\n");
    }

    #[test]
    fn a_guests_line_is_marked_and_harmless() {
        let fields = json!({"group":"g","context":"count","message":"\u{1b}[2Jone\ntwo"});
        let expected = "   12.345s INFO  g  guest| [count] \\u{1b}[2Jone\n            two\n";
        assert_eq!(line(Level::INFO, "guest", fields, false), expected);
        let fields = json!({"group":"g","part":"tasks","context":"","message":"m"});
        assert_eq!(line(Level::INFO, "guest", fields, false), "   12.345s INFO  g  task| m\n");
    }

    #[test]
    fn a_line_of_the_build_is_marked() {
        assert_eq!(line(Level::INFO, "build", json!({"message":"cc a.c"}), false), "   12.345s INFO   build| cc a.c\n");
    }

    #[test]
    fn colours_change_nothing_but_colour() {
        let fields = json!({"node":"node-1","group":"g","epoch":1,"message":"m","k":"v"});
        let colored = line(Level::ERROR, "x", fields.clone(), true);
        assert!(colored.contains("\x1b[1;31mERROR\x1b[0m"), "{colored:?}");
        let mut stripped = colored;
        while let Some(start) = stripped.find('\x1b') {
            let end = start + stripped[start..].find('m').unwrap();
            stripped.replace_range(start..=end, "");
        }
        assert_eq!(stripped, line(Level::ERROR, "x", fields, false));
    }
}
