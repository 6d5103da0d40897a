//! What the author of a guest does wrong, and what is said about it: each case beside its whole message. `BLESS=1` takes messages over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bellwether_tests::cli::Cli;
use bellwether_tests::guests::guest;

/// Ten mistakes: each must have its case, and there is none besides.
const MISTAKES: [&str; 10] = [
    "core-module",
    "loops",
    "missing-export",
    "not-granted",
    "panics",
    "returns-error",
    "too-large",
    "wrong-config-key",
    "wrong-signature",
    "wrong-version",
];

fn gallery() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes")
}

/// What differs from one build of a guest to the next, and says nothing of its mistake: sizes, digests, places in its source, and which release of
/// WASI 0.2 its compiler is for.
fn settled(said: &str) -> String {
    let line = |line: &str| {
        for (title, instead) in
            [("  size     ", "N bytes"), ("  digest   sha256:", "…"), ("  memory   ", "N KiB from the start")]
        {
            if line.starts_with(title) {
                return format!("{title}{instead}");
            }
        }
        if let Some((name, rest)) =
            line.split_once("@0.2.").filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
            && name.trim_start().trim_start_matches("imports  ").starts_with("wasi:")
            && !rest.starts_with("0-rc")
        {
            return format!("{name}@0.2.x{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        match line.split_once(".rs:") {
            Some((before, after)) => {
                format!("{before}.rs:…{}", after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':'))
            }
            None => line.to_owned(),
        }
    };
    said.lines().map(line).map(|line| line + "\n").collect()
}

/// Has `bellwether` look at a case, in a folder with the guests.
fn say(case: &Path, folder: &Path) -> Result<String> {
    let name = case.file_stem().and_then(|name| name.to_str()).context("a name")?;
    let text = std::fs::read_to_string(case)?;
    let (file, verb): (String, &[&str]) = if case.extension().is_some_and(|extension| extension == "wat") {
        std::fs::write(folder.join(format!("{name}.wasm")), wat::parse_str(&text)?)?;
        (format!("{name}.wasm"), &["check"])
    } else {
        std::fs::write(folder.join(format!("{name}.toml")), &text)?;
        (format!("{name}.toml"), if text.contains("[[scenario]]") { &["test", "--verbose"] } else { &["check"] })
    };
    let ran = Cli::new().folder(folder).run(verb.iter().copied().chain([file.as_str()]))?;
    let code = ran.code().context("it was ended by a signal")?;
    ensure!(code == 1 || code == 4, "{name} ended with {code}:\n{}{}", ran.stdout, ran.stderr);
    let said = format!("{}{}", ran.stdout, ran.stderr).replace(&format!("{}/", folder.display()), "");
    for never in ["stack backtrace", "/rustc/", "wasmtime"] {
        ensure!(!said.contains(never), "{name}: has {never:?}:\n{said}");
    }
    Ok(settled(&said))
}

#[test]
fn each_mistake_gives_a_message_that_names_the_mend() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("bw-").tempdir()?;
    let folder = folder.path().canonicalize()?;
    for name in ["caller", "faulty", "probe", "sums"] {
        std::fs::copy(guest(name), folder.join(format!("{name}.wasm")))?;
    }
    let mut cases: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(gallery())? {
        cases.push(entry?.path());
    }
    let is_message = |case: &&PathBuf| case.extension().is_some_and(|extension| extension == "err");
    let stems = |cases: Vec<&PathBuf>| -> BTreeSet<String> {
        cases.iter().filter_map(|case| case.file_stem()).map(|stem| stem.to_string_lossy().into_owned()).collect()
    };
    let wanted: BTreeSet<String> = MISTAKES.iter().map(|name| (*name).to_owned()).collect();
    ensure!(stems(cases.iter().filter(|case| !is_message(case)).collect()) == wanted, "each mistake has one case");
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| !is_message(case)) {
        let said = say(case, &folder)?;
        let message = case.with_extension("err");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&message, &said)?;
        } else if std::fs::read_to_string(&message).unwrap_or_default() != said {
            wrong.push(format!("{} gives another message (BLESS=1 takes it over):\n{said}", case.display()));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}
