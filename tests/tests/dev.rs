//! `bellwether dev` where something is wrong, and where there is no terminal. The whole loop, in each language, is in `projects.rs`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use bellwether_tests::cli::{Cli, binary};
use bellwether_tests::components::too_much_for_the_compiler;
use bellwether_tests::guests::{guest, guest_bytes};
use bellwether_tests::terminal::Terminal;

/// A folder with a manifest whose build copies `src/guest.wasm`, which is not there.
fn folder() -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("bw-").tempdir()?;
    std::fs::create_dir(folder.path().join("src"))?;
    let manifest = "[node]\nid = \"n\"\n[coordination]\nconnect = \"memory:\"\n[dev]\nbuild = \"cp src/guest.wasm guest.wasm\"\nnodes = 1\n\
                    [[group]]\nname = \"g\"\ncomponent = \"guest.wasm\"\n";
    std::fs::write(folder.path().join("bellwether.toml"), manifest)?;
    Ok(folder)
}

fn on_a_terminal(folder: &Path, options: &str) -> Result<Terminal> {
    Terminal::run(folder, &format!("exec env --default-signal=HUP {} dev {options}", binary().display()), |_| {})
}

#[test]
fn without_a_terminal_a_build_that_fails_is_the_end() -> Result<()> {
    let folder = folder()?;
    let ran = Cli::new().folder(folder.path()).run(["dev"])?;
    let failed = "`cp src/guest.wasm guest.wasm` failed, so there is nothing to run";
    ensure!(ran.code() == Some(1) && ran.stderr.contains(failed), "{:?}\n{}", ran.status, ran.stderr);
    ensure!(ran.stderr.contains("\"target\":\"build\"") && ran.stderr.contains("No such file"), "{}", ran.stderr);
    ensure!(!ran.stderr.contains("keys:"), "{}", ran.stderr);
    Ok(())
}

#[test]
fn on_a_terminal_it_waits_until_the_build_is_mended_and_outlives_its_last_node() -> Result<()> {
    let folder = folder()?;
    let mut terminal = on_a_terminal(folder.path(), "")?;
    let mark = terminal.wait_line(0, "a build that fails", |line| line.contains("the build failed"))?;
    terminal.press("k")?;
    let mark = terminal.wait_line(mark, "an answer", |line| line.contains("no node runs yet"))?;
    std::fs::copy(guest("minimal"), folder.path().join("src/guest.wasm"))?;
    let mark = terminal.wait_line(mark, "a leader", |line| line.contains("leads from now on"))?;
    terminal.press("b")?;
    let mark = terminal.wait_line(mark, "a build of the same", |line| line.contains("nothing to swap"))?;
    // Another component, with which the swap comes to nothing.
    std::fs::write(folder.path().join("src/guest.wasm"), "no component")?;
    let mark = terminal.wait_line(mark, "the old release to go on", |line| line.contains("not swapped on n-1"))?;
    terminal.press("x")?;
    let mark = terminal.wait_line(mark, "help", |line| line.contains("keys:"))?;
    terminal.press("k")?;
    let mark = terminal.wait_line(mark, "the end of the node", |line| line.contains("killed"))?;
    terminal.press("r")?;
    let mark = terminal.wait_line(mark, "an answer", |line| line.contains("no node leads at the moment"))?;
    terminal.press("d")?;
    terminal.wait_line(mark, "an answer", |line| line.contains("there is no node that could leave"))?;
    terminal.press("q")?;
    let status = terminal.wait_end()?;
    ensure!(status.success(), "{status}\n{}", terminal.raw());
    Ok(())
}

#[test]
fn a_node_that_cannot_start_takes_those_before_it_along() -> Result<()> {
    let folder = folder()?;
    std::fs::copy(guest("minimal"), folder.path().join("src/guest.wasm"))?;
    std::fs::create_dir_all(folder.path().join(".bellwether/n"))?;
    // In the way of the second one's data.
    std::fs::write(folder.path().join(".bellwether/n/n-2"), "")?;
    let ran = Cli::new().folder(folder.path()).run(["dev", "--nodes", "2"])?;
    ensure!(ran.code() == Some(6) && ran.stderr.contains("n-2"), "{:?}\n{}", ran.status, ran.stderr);
    Ok(())
}

/// The same with a build that leaves a process, whose number is in the file `pid`, and then does what `rest` says.
fn folder_with_a_long_build(rest: &str) -> Result<tempfile::TempDir> {
    let folder = folder()?;
    let path = folder.path().join("bellwether.toml");
    let manifest = std::fs::read_to_string(&path)?;
    let build = format!("sleep 3600 & echo $! >pid; echo begun; {rest}");
    std::fs::write(&path, manifest.replace("cp src/guest.wasm guest.wasm", &build))?;
    Ok(folder)
}

fn wait_until_its_process_is_gone(folder: &Path) -> Result<()> {
    let pid = std::fs::read_to_string(folder.join("pid"))?;
    let stat = format!("/proc/{}/stat", pid.trim());
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    // Whoever is its parent now may take a moment to see its end.
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        ensure!(std::time::Instant::now() < deadline, "the process of the build goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_build_is_ended_with_all_its_processes() -> Result<()> {
    // An interrupt, as ever, a quit, and the end of the terminal.
    for key in [Some("\x03"), Some("\x1c"), None] {
        let folder = folder_with_a_long_build("wait")?;
        let mut terminal = on_a_terminal(folder.path(), "")?;
        terminal.wait_line(0, "the build", |line| line.contains("build| begun"))?;
        if let Some(key) = key {
            terminal.press(key)?;
            ensure!(terminal.wait_end()?.success(), "{key:?}: {}", terminal.raw());
        } else {
            drop(terminal);
        }
        wait_until_its_process_is_gone(folder.path())?;
    }
    Ok(())
}

#[test]
fn what_a_build_that_failed_has_left_is_ended() -> Result<()> {
    let folder = folder_with_a_long_build("exit 3")?;
    let mut terminal = on_a_terminal(folder.path(), "")?;
    terminal.wait_line(0, "the failure", |line| line.contains("the build failed: exit status: 3"))?;
    wait_until_its_process_is_gone(folder.path())?;
    terminal.press("q")?;
    ensure!(terminal.wait_end()?.success(), "{}", terminal.raw());
    Ok(())
}

#[test]
fn whoever_has_enough_does_not_wait_for_the_first_compilation() -> Result<()> {
    let folder = folder()?;
    // That takes seconds and comes to nothing: waited for, it would be the end, with another exit code.
    std::fs::write(folder.path().join("src/guest.wasm"), too_much_for_the_compiler(&guest_bytes("probe")))?;
    let mut terminal = on_a_terminal(folder.path(), "")?;
    terminal.wait_line(0, "the build", |line| line.contains("built in"))?;
    terminal.press("q")?;
    ensure!(terminal.wait_end()?.success(), "{}", terminal.raw());
    ensure!(!terminal.raw().contains("could not be compiled"), "{}", terminal.raw());
    Ok(())
}

#[test]
fn nodes_that_join_a_zookeeper_say_so() -> Result<()> {
    let folder = folder()?;
    std::fs::copy(guest("minimal"), folder.path().join("src/guest.wasm"))?;
    // Nobody is there; that it is said does not depend on it.
    let mut terminal = on_a_terminal(folder.path(), "--coordinator zookeeper://127.0.0.1:1")?;
    let said = "these nodes join the ZooKeeper at zookeeper://127.0.0.1:1, as --coordinator says";
    let mark = terminal.wait_line(0, "a word about it", |line| line.contains(said))?;
    terminal.wait_line(mark, "the start", |line| line.contains("started"))?;
    terminal.press("q")?;
    ensure!(terminal.wait_end()?.success(), "{}", terminal.raw());
    Ok(())
}
