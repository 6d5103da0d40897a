//! Telling a component from all the other files that people have at hand.

use bellwether_core::callback::Step;

use crate::error::LoadError;

const MAGIC: &[u8] = b"\0asm";
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
const MODULE: [u8; 4] = [1, 0, 0, 0];

/// Whether the bytes begin as a component does.
pub(crate) fn check(bytes: &[u8]) -> Result<(), LoadError> {
    let no = |reason: String| Err(LoadError::new(Step::Read, reason));
    if bytes.is_empty() {
        return no("the file is empty".into());
    }
    if let Some(rest) = bytes.strip_prefix(MAGIC) {
        return match rest.first_chunk::<4>() {
            Some(&COMPONENT) => Ok(()),
            Some(&MODULE) => {
                no("this is a core WebAssembly module, not a component: build it for the target `wasm32-wasip2`, or \
                                 turn it into a component with `wasm-tools component new --adapt …`"
                    .into())
            }
            Some([version, ..]) => no(format!(
                "this is WebAssembly of a version ({version}) that this runtime does not know: build it with current tools"
            )),
            None => no(format!("the file ends after {} bytes: it is truncated", bytes.len())),
        };
    }
    if is_text(bytes) {
        return no(
            "this is WebAssembly text, not a binary: turn it into one with `wasm-tools parse FILE -o FILE.wasm`".into(),
        );
    }
    if bytes.starts_with(b"\x7fELF") {
        return no("this is a native program (ELF), not a component: build it for the target `wasm32-wasip2`".into());
    }
    let begins: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    no(format!(
        "this is not WebAssembly: it begins with {}, and a component begins with 00 61 73 6d 0d 00 01 00",
        begins.join(" ")
    ))
}

/// Whether this is the text form: after blanks and comments, `(module` or `(component`.
fn is_text(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(64 << 10)]);
    let mut rest = head.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix(";;") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
        } else if let Some(comment) = rest.strip_prefix("(;") {
            rest = comment.split_once(";)").map_or("", |(_, rest)| rest).trim_start();
        } else {
            break;
        }
    }
    let Some(rest) = rest.strip_prefix('(') else { return false };
    let word = rest.trim_start();
    word.starts_with("module") || word.starts_with("component")
}

/// What the compiler's refusal means.
pub(crate) fn refused(text: &str, size: usize) -> LoadError {
    let reason = if text.contains("unexpected end") || text.contains("out of bounds") {
        format!("the component is truncated or damaged ({size} bytes): {text}")
    } else {
        format!("this is not a valid component: {text}")
    };
    LoadError::new(Step::Compile, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_file_is_told_apart() {
        for (bytes, part) in [
            (&b""[..], "empty"),
            (b"\0asm", "truncated"),
            (b"\0asm\x0d\0", "truncated"),
            (b"\0asm\x01\0\0\0", "core WebAssembly module"),
            (b"\0asm\x09\0\0\0", "version (9)"),
            (b"(module)", "WebAssembly text"),
            (b" ;; a comment\n (; another ;) (component)", "WebAssembly text"),
            (b"\x7fELF\x02", "native program"),
            (b"#!/bin/sh", "begins with 23 21 2f 62"),
        ] {
            let error = check(bytes).expect_err("not a component");
            assert!(error.reason.contains(part), "{error:?}");
            assert_eq!(error.step, Step::Read);
        }
        assert_eq!(check(b"\0asm\x0d\0\x01\0"), Ok(()));
    }
}
