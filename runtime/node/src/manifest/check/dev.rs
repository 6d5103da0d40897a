//! `[dev]`.

use std::path::{Path, PathBuf};

use super::super::model::{Build, Dev};
use super::super::raw::RawDev;
use super::Context;

const NODES: u16 = 3;

pub(super) fn check(cx: &mut Context<'_>, raw: RawDev) -> Dev {
    let RawDev { build, watch, nodes } = raw;
    if build.is_none() && !cx.written("dev.build") && watch.is_some() {
        cx.tell(
            cx.problem("dev.watch", "`dev.watch` names what a build is made of, but there is no build")
                .because("nothing would come of a change here")
                .help("add `build = \"<the command that builds the component>\"` to [dev]"),
        );
    }
    if build.as_ref().is_some_and(|command| command.trim().is_empty() || command.contains('\0')) {
        cx.tell(
            cx.problem("dev.build", "`dev.build` is not a command")
                .because("it is empty, or has a NUL character")
                .help("for example: `build = \"cargo build --release --target wasm32-wasip2\"`"),
        );
    }
    let build = build.map(|command| Build { command, watch: watched(cx, watch) });
    Dev { build, nodes: nodes.unwrap_or(NODES) }
}

fn watched(cx: &mut Context<'_>, watch: Option<Vec<PathBuf>>) -> Vec<PathBuf> {
    let Some(watch) = watch else {
        // Wrong ones have been told of.
        let usual = (!cx.written("dev.watch"))
            .then(|| existing(cx, "dev.build", Path::new("src"), "what `dev.watch` is by default"));
        return usual.flatten().into_iter().collect();
    };
    let named = watch
        .iter()
        .enumerate()
        .filter_map(|(n, path)| existing(cx, &format!("dev.watch[{n}]"), path, "this cannot be watched"));
    named.collect()
}

/// The path of a file or folder. Where nothing is built, the sources need not be there.
fn existing(cx: &mut Context<'_>, key: &str, path: &Path, what: &str) -> Option<PathBuf> {
    let full = cx.path(key, path)?;
    match std::fs::metadata(&full) {
        Err(error) if cx.for_dev => {
            cx.tell_path(key, path, &full, what, super::because(&error));
            None
        }
        _ => Some(full),
    }
}
