//! Components with something added.

use std::fmt::Write as _;

/// Appends a section to a component; each kind may come any number of times, in any order.
#[must_use]
pub fn with_section(component: &[u8], id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = component.to_vec();
    bytes.push(id);
    let mut size = content.len();
    loop {
        let more = size >= 0x80;
        bytes.push((size & 0x7f) as u8 | if more { 0x80 } else { 0 });
        size >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend(content);
    bytes
}

/// The component with a core module that nothing uses, which is small and valid, and for which the compiler takes more than half a
/// gigabyte: a jump table whose entries each carry the values of thousands of variables.
///
/// # Panics
/// When the module's text is none, which does not depend on the component.
#[must_use]
#[expect(clippy::expect_used, reason = "the text is always the same")]
pub fn too_much_for_the_compiler(component: &[u8]) -> Vec<u8> {
    const VARIABLES: usize = 2000;
    const ENTRIES: usize = 4000;
    let locals = "i64 ".repeat(VARIABLES);
    let mut steps = String::new();
    for variable in 1..=VARIABLES {
        // Writing to a string cannot fail.
        let _ = write!(steps, "(local.set {variable} (i64.add (local.get {variable}) (i64.const 1)))");
    }
    let entries = "0 ".repeat(ENTRIES);
    let text =
        format!("(module (func (param i32) (local {locals}) (loop {steps} (br_table {entries} 1 (local.get 0)))))");
    with_section(component, 1, &wat::parse_str(text).expect("a module"))
}
