//! The guests of `guests/`, built when a test asks for one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const TARGET: &str = "wasm32-wasip2";

/// The folder `guests`.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests")
}

/// The component of the guest package of this name, built once a process; cargo's own lock keeps processes apart, and
/// cargo does nothing when nothing changed. With `BELLWETHER_TEST_GUESTS=prebuilt` nothing is built: what lies there is used.
///
/// # Panics
/// When the guest does not build, or there is none of this name; the message says what to do.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, Result<(), String>>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let result = built.entry(name.to_owned()).or_insert_with(|| build(name)).clone();
    // Free before the panic, so that the next test is told the reason and not of a poisoned lock.
    drop(built);
    if let Err(error) = result {
        panic!("{error}");
    }
    let file = folder().join("target").join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
    assert!(file.is_file(), "there is no component {}: it was not built", file.display());
    file
}

/// What the component of the guest package of this name holds.
///
/// # Panics
/// As [`guest`] does.
#[must_use]
pub fn guest_bytes(name: &str) -> Vec<u8> {
    let file = guest(name);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn build(name: &str) -> Result<(), String> {
    if std::env::var_os("BELLWETHER_TEST_GUESTS").is_some_and(|how| how == "prebuilt") {
        return Ok(());
    }
    let folder = folder();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--target", TARGET, "--package", name, "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(folder.join("target"))
        .current_dir(&folder);
    // What cargo sets for the test that runs, or for the host, is not meant for guests.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "RUSTC_WRAPPER"] {
        command.env_remove(name);
    }
    let output =
        command.output().map_err(|error| format!("the guest {name} cannot be built: cargo did not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let missing = said.contains("can't find crate for `core`")
        || said.contains("can't find crate for `std`")
        || said.contains("target may not be installed");
    let help = if missing {
        format!(
            "\n\nThe Rust target {TARGET} is missing. Add it: rustup target add {TARGET}\nWithout rustup, Debian's packages do \
             as well: install rustc-web, rust-web-src, lld-19 and (from bookworm-backports) wasi-libc, build the guests with\n  \
             RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS=\"-Clink-self-contained=no -L \
             native=/usr/lib/wasm32-wasip2 -Clink-arg=--wasm-ld-path=/usr/bin/wasm-ld-19\" cargo build --release \
             -Zbuild-std=std,panic_abort --target {TARGET}\nin \
             the folder guests, and run the tests with BELLWETHER_TEST_GUESTS=prebuilt\n"
        )
    } else {
        String::new()
    };
    Err(format!("the guest {name} in {} does not build:\n{said}{help}", folder.display()))
}

/// The languages that the guest of `guests/README.md`, the sums, is written in: the folders of `guests/`.
pub const LANGUAGES: [&str; 5] = ["rust", "c", "javascript", "python", "go"];

/// The component of the sums in this language, built by its `build.sh`, which does nothing when nothing has changed; it is called once a
/// process. `BELLWETHER_TEST_GUESTS=prebuilt` counts here too.
///
/// # Panics
/// When it does not build, as when the language's tools are missing and cannot be installed; the message says what the script said.
#[must_use]
pub fn language(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, Result<(), String>>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let result = built.entry(name.to_owned()).or_insert_with(|| build_language(name)).clone();
    drop(built);
    if let Err(error) = result {
        panic!("{error}");
    }
    let file = folder().join(format!("target/languages/{name}.wasm"));
    assert!(file.is_file(), "there is no component {}: guests/{name}/build.sh makes it", file.display());
    file
}

fn build_language(name: &str) -> Result<(), String> {
    if std::env::var_os("BELLWETHER_TEST_GUESTS").is_some_and(|how| how == "prebuilt") {
        return Ok(());
    }
    let script = folder().join(name).join("build.sh");
    let failed = |why: &str| format!("the guest in {name} does not build ({}): {why}", script.display());
    let mut command = Command::new(&script);
    command.current_dir(folder()).stdin(std::process::Stdio::null());
    let output = command.output().map_err(|error| failed(&format!("the script did not start: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(&format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr))))
}
