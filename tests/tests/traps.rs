//! `tests/TRAPS.md` is what it says, and one of its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const TRAPS: usize = 33;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The cells of the lines of a Markdown table.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests of a file: functions that are marked as such, and the names that a list of tests gives to its entries.
fn tests_of(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            marked =
                (marked || line == "#[test]" || line.starts_with("#[tokio::test")) && !line.starts_with("#[ignore");
            continue;
        }
        let name = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(ToOwned::to_owned);
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(text) = function.filter(|_| marked) {
            found.extend(name(text));
        }
        if let Some((_, text)) = line.split_once(" => ").filter(|(path, _)| path.starts_with("crate::")) {
            found.extend(name(text));
        }
        marked = false;
    }
    found
}

#[test]
fn every_trap_has_tests_and_each_of_them_exists() -> Result<()> {
    let text = std::fs::read_to_string(root().join("tests/TRAPS.md"))?;
    let (traps, places) = text.split_once("## Places").context("no places")?;
    let mut tests: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for row in rows(places).into_iter().skip(2) {
        let mut cells = row.iter().filter_map(|cell| quoted(cell).next());
        let (place, file) = (cells.next().context("no place")?, cells.next().context("no file")?);
        let source = std::fs::read_to_string(root().join(file)).with_context(|| file.to_owned())?;
        tests.insert(place, tests_of(&source));
    }
    let numbered: Vec<_> = rows(traps).into_iter().filter(|row| row[0].parse::<usize>().is_ok()).collect();
    let numbers: Vec<String> = numbered.iter().map(|row| row[0].to_owned()).collect();
    ensure!(numbers == (1..=TRAPS).map(|n| n.to_string()).collect::<Vec<_>>(), "{numbers:?}");
    for row in &numbered {
        ensure!(row.len() == 4 && quoted(row[3]).count() > 0, "trap {} has no test", row[0]);
    }
    // In the text below the table too.
    for (place, name) in quoted(traps).filter_map(|name| name.split_once("::")).filter(|(place, _)| *place != "place") {
        let known = tests.get(place).with_context(|| format!("{place} is no place"))?;
        ensure!(known.contains(name), "{place} has no test {name}, or it is switched off");
    }
    Ok(())
}

/// Where tests look for settings.
const READERS: [&str; 2] = ["tests/tests", "tests/src"];

#[test]
fn every_setting_is_told_of_and_each_of_them_counts() -> Result<()> {
    let text = std::fs::read_to_string(root().join("tests/TRAPS.md"))?;
    let (_, settings) = text.split_once("## Settings").context("no settings")?;
    let (settings, _) = settings.split_once("## Places").context("no places")?;
    let told: BTreeSet<String> =
        rows(settings).iter().filter_map(|row| quoted(row[0]).next()).map(ToOwned::to_owned).collect();
    let mut found = Vec::new();
    READERS.iter().try_for_each(|folder| sources(&root().join(folder), &mut found))?;
    let mut read = BTreeSet::new();
    for path in found {
        let source = std::fs::read_to_string(&path)?;
        // The name is the first argument, whether on the same line or the next.
        let calls = source.split("setting(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
        let names = calls.filter_map(|rest| rest.split('"').next()).filter(|name| name.starts_with("BELLWETHER_"));
        read.extend(names.map(ToOwned::to_owned));
    }
    ensure!(told == read, "told of: {told:?}; read: {read:?}");
    Ok(())
}

#[test]
fn tests_are_recognised() {
    let source = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test]\nasync fn two() {}\n#[test]\n#[ignore = \"slow\"]\nfn off() {}\n\
                  crate::a::b => three,\n";
    assert_eq!(tests_of(source).into_iter().collect::<Vec<_>>(), ["one", "three", "two"]);
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// The core gets its time from the driver; the driver has `CLOCK_BOOTTIME`. Neither they nor what is between them and the servers ever
/// asks for the time of day, and the core asks for no time at all.
#[test]
fn no_decision_knows_the_clock_on_the_wall() -> Result<()> {
    let mut looked = 0;
    for (folder, words) in [
        ("runtime/core/src", &["SystemTime", "Instant::now", "UNIX_EPOCH"][..]),
        ("runtime/coordination/src", &["SystemTime", "UNIX_EPOCH"][..]),
        ("runtime/node/src", &["SystemTime", "UNIX_EPOCH", "ClockId::Realtime"][..]),
    ] {
        let mut found = Vec::new();
        sources(&root().join(folder), &mut found)?;
        for path in found {
            // When something was deployed is written down for people; `rollout.rs` says so, and the core never compares it.
            if path.ends_with("node/src/rollout.rs") {
                continue;
            }
            let source = std::fs::read_to_string(&path)?;
            let used = words
                .iter()
                .find(|word| source.lines().any(|line| !line.trim().starts_with("//") && line.contains(**word)));
            ensure!(used.is_none(), "{} uses {used:?}", path.display());
            looked += 1;
        }
    }
    ensure!(looked > 20, "only {looked} files were looked at");
    Ok(())
}
