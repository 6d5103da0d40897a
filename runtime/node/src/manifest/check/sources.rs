//! `[sources]`, `[store]` and `[signatures]`, and the references by which components are named.

use std::path::Path;
use std::time::Duration;

use bellwether_source::Reference;
use bellwether_source::signature::{PublicKey, Trust};

use super::super::model::{Sources, Store};
use super::super::raw::{RawSignatures, RawSources, RawStore};
use super::{Context, HOUR, node};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

pub(super) fn check(cx: &mut Context<'_>, raw: RawSources) -> Sources {
    let ca = raw.ca.and_then(|path| node::pem(cx, "sources.ca", &path, "CERTIFICATE-----"));
    let timeout = Duration::from_secs(300);
    Sources { ca, timeout: cx.duration("sources.timeout", raw.timeout, timeout, Duration::from_secs(1)..=HOUR) }
}

pub(super) fn store(cx: &mut Context<'_>, raw: RawStore) -> Store {
    Store {
        max: cx.size("store.max", raw.max, GIB, MIB..=TIB),
        compiled: cx.size("store.compiled", raw.compiled, GIB, MIB..=TIB),
    }
}

pub(super) fn signatures(cx: &mut Context<'_>, raw: RawSignatures) -> Trust {
    const HELP: &str = "`bellwether keygen` makes a key and writes what belongs here";
    let mut keys = Vec::new();
    for (n, text) in raw.keys.unwrap_or_default().into_iter().enumerate() {
        let key = format!("signatures.keys[{n}]");
        // Whoever mistakes the two halves of a key must not find the private one in a log.
        keys.extend(cx.take(&key, text.parse::<PublicKey>(), "is not a public key", HELP));
    }
    let required = raw.required.unwrap_or_default();
    if required && keys.is_empty() && cx.problems.iter().all(|problem| !problem.key.starts_with("signatures.keys")) {
        cx.tell(
            cx.problem("signatures.required", "`signatures.required` is set, but no key is trusted")
                .because("no component could ever run")
                .help("add `keys = [\"<name>:ed25519:<base64>\"]`")
                .help(HELP),
        );
    }
    Trust::new(required, keys)
}

/// What names a component. A file must exist; what is elsewhere is looked for when it is needed.
pub(super) fn component(cx: &mut Context<'_>, key: &str, text: &str) -> Option<Reference> {
    let nameless = text.is_empty() || text.contains('\0');
    match Reference::parse(text, Path::new("")) {
        Ok(Reference::File(path)) if cx.for_dev && cx.build.is_some() => cx.path(key, &path).map(Reference::File),
        Ok(Reference::File(path)) => {
            let file = cx.file(key, &path, "the component");
            if let (None, Some(build), Some(problem)) = (&file, &cx.build, cx.problems.last_mut()) {
                problem
                    .help
                    .push(format!("build it: `{build}`, in the manifest's folder; `bellwether dev` does so by itself"));
            }
            file.map(Reference::File)
        }
        Err(_) if nameless => cx.file(key, Path::new(text), "the component").map(Reference::File),
        Ok(other) => Some(other),
        Err(error) => {
            let problem = cx.problem(key, format!("`{key}` does not name a component"));
            cx.tell(problem.because(error.why).help(error.help));
            None
        }
    }
}
