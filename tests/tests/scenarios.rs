//! `bellwether test`: scenarios that hold, scenarios that do not, and files that make no sense.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use bellwether_tests::cli::{Cli, Ran};
use bellwether_tests::guests::guest;

fn scenarios(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(name)
}

fn play(file: &Path, more: &[&str]) -> Result<Ran> {
    let (file, probe) = (file.display().to_string(), guest("probe").display().to_string());
    let arguments = ["test", &file, "--component", &probe];
    Cli::new().run(arguments.iter().chain(more).copied())
}

fn shown(ran: &Ran) -> String {
    format!("{:?}\n{}\n{}", ran.status, ran.stdout, ran.stderr)
}

#[test]
fn a_guest_that_does_as_expected_passes() -> Result<()> {
    let ran = play(&scenarios("good.toml"), &["--verbose"])?;
    ensure!(ran.status.code() == Some(0), "{}", shown(&ran));
    ensure!(ran.stdout.ends_with("7 passed, 0 failed\n"), "{}", shown(&ran));
    Ok(())
}

#[test]
fn each_expectation_that_does_not_hold_is_told_of() -> Result<()> {
    let ran = play(&scenarios("bad.toml"), &[])?;
    ensure!(ran.status.code() == Some(1), "{}", shown(&ran));
    ensure!(ran.stdout.ends_with("0 passed, 7 failed\n"), "{}", shown(&ran));
    for why in [
        "expected the calls",
        "expected \"by Cause::Swap\" in the log",
        "expected the key a to hold \"1\", but it holds nothing",
        "expected the answer \"b\", but it is \"a\"",
        "expected an error with \"no\" in it, but it returned without an error",
        "expected the node not to lead afterwards, but it does lead",
        "there is no member b that could leave",
    ] {
        ensure!(ran.stdout.contains(why), "{why}\n{}", shown(&ran));
    }
    let ran = play(&scenarios("bad.toml"), &["--json", "--filter", "role"])?;
    let report: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    ensure!(report["scenarios"].as_array().is_some_and(|all| all.len() == 1), "{report}");
    Ok(())
}

#[test]
fn what_cannot_be_played_is_refused_with_the_reason() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("scenarios.toml");
    let refused = |text: &str, code: i32, why: &str| -> Result<()> {
        std::fs::write(&file, text)?;
        let ran = play(&file, &[])?;
        ensure!(ran.status.code() == Some(code) && ran.stderr.contains(why), "{why}\n{}", shown(&ran));
        Ok(())
    };
    refused("", 3, "there is no scenario in it")?;
    refused("[[scenario]]\nname = \"s\"\n[[scenario.step]]\ntock = 1\n", 3, "unknown field `tock`")?;
    refused("[[scenario]]\nname = \"s\"\n[[scenario.step]]\ntick = 1\nelect = 1\n", 3, "one thing happens in a step")?;
    refused(
        "[grants]\nlogging = false\n[[scenario]]\nname = \"s\"\n[[scenario.step]]\ntick = 1\n",
        4,
        "logging = true",
    )?;
    let ran = Cli::new().run(["test", "nowhere.toml"])?;
    ensure!(ran.status.code() == Some(3) && ran.stderr.contains("nowhere.toml"), "{}", shown(&ran));
    Ok(())
}
