//! What `bellwether new` makes: a guest to begin from, in one of several languages. Its files are those of `templates/`, of the
//! contract in `wit/`, and of `guests/`; tests build each of the projects, and hold the lists here against the folders.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use clap::ValueEnum;

/// The language of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust, by cargo
    Rust,
    /// C, by clang
    C,
    /// JavaScript, by componentize-qjs of npm
    #[value(alias = "javascript")]
    Js,
    /// Python, by componentize-py of PyPI
    Python,
    /// Go, by the usual compiler
    Go,
}

/// A file of a project.
struct File {
    path: &'static str,
    text: &'static str,
    program: bool,
}

/// A file of a language's template.
macro_rules! own {
    ($language:literal, $path:literal) => {
        File { path: $path, text: include_str!(concat!("../templates/", $language, "/", $path)), program: false }
    };
}

/// A script of a language's template.
macro_rules! script {
    ($language:literal, $path:literal) => {
        File { program: true, ..own!($language, $path) }
    };
}

/// A file from elsewhere in this repository.
macro_rules! taken {
    ($path:literal, $from:literal) => {
        File { path: $path, text: include_str!(concat!("../../../", $from)), program: false }
    };
}

/// The contract, of the version that this binary has. Every interface: what a guest does not use does not end up in it.
const CONTRACT: &[File] = &[
    taken!("wit/deps/bellwether-runtime/cluster.wit", "wit/cluster.wit"),
    taken!("wit/deps/bellwether-runtime/handover.wit", "wit/handover.wit"),
    taken!("wit/deps/bellwether-runtime/lifecycle.wit", "wit/lifecycle.wit"),
    taken!("wit/deps/bellwether-runtime/observer.wit", "wit/observer.wit"),
    taken!("wit/deps/bellwether-runtime/state.wit", "wit/state.wit"),
    taken!("wit/deps/bellwether-runtime/ticker.wit", "wit/ticker.wit"),
    taken!("wit/deps/bellwether-runtime/types.wit", "wit/types.wit"),
    taken!("wit/deps/bellwether-runtime/worker.wit", "wit/worker.wit"),
    taken!("wit/deps/bellwether-runtime/workers.wit", "wit/workers.wit"),
    taken!("wit/deps/bellwether-runtime/worlds.wit", "wit/worlds.wit"),
    taken!("wit/deps/config/config.wit", "wit/deps/config/config.wit"),
    taken!("wit/deps/logging/logging.wit", "wit/deps/logging/logging.wit"),
];

const COMMON: &[File] = &[
    taken!("README.md", "runtime/cli/templates/common/README.md"),
    taken!("bellwether.toml", "runtime/cli/templates/common/bellwether.toml"),
    taken!("scenarios/jobs.toml", "runtime/cli/templates/common/jobs.toml"),
    taken!("wit/world.wit", "runtime/cli/templates/common/world.wit"),
];

/// The generator of bindings for C and Go, to be compiled where the project is built.
const TOOLS: &[File] = &[
    taken!("tools/Cargo.toml", "guests/tools/Cargo.toml"),
    taken!("tools/Cargo.lock", "guests/tools/Cargo.lock"),
    taken!("tools/src/main.rs", "guests/tools/src/main.rs"),
];

const RUST: &[File] = &[own!("rust", "Cargo.toml"), own!("rust", "src/lib.rs")];
const C: &[File] = &[own!("c", "guest.c"), script!("c", "build.sh")];
const JS: &[File] = &[own!("js", "guest.js"), own!("js", "package.json")];
const PYTHON: &[File] =
    &[own!("python", "src/app.py"), own!("python", "requirements.txt"), script!("python", "build.sh")];
const GO: &[File] = &[
    own!("go", "guest/guest.go"),
    own!("go", "guest/collect.go"),
    own!("go", "export_bellwether_runtime_handover/export.go"),
    own!("go", "export_bellwether_runtime_lifecycle/export.go"),
    own!("go", "export_bellwether_runtime_ticker/export.go"),
    own!("go", "export_bellwether_runtime_worker/export.go"),
    script!("go", "build.sh"),
    taken!("go.mod", "guests/go/go.mod"),
    taken!("go.sum", "guests/go/go.sum"),
];

/// What is different about a language.
struct Kind {
    name: &'static str,
    files: &'static [&'static [File]],
    /// What has to be done once, before the first build.
    prepare: &'static [&'static str],
    build: &'static str,
    /// What the build is made of, relative to the project.
    watch: &'static [&'static str],
    component: &'static str,
    /// Where all that the guest does is written.
    source: &'static str,
    /// What a build leaves behind.
    ignored: &'static [&'static str],
    /// More rows of the README's table.
    more: &'static str,
    /// What the build needs and installs.
    needs: &'static str,
}

impl Language {
    fn kind(self) -> Kind {
        match self {
            Self::Rust => Kind {
                name: "Rust",
                files: &[RUST],
                prepare: &["rustup target add wasm32-wasip2"],
                build: "cargo build --release --target wasm32-wasip2",
                watch: &["src", "wit", "Cargo.toml"],
                component: "target/wasm32-wasip2/release/guest.wasm",
                source: "src/lib.rs",
                ignored: &["/target"],
                more: "",
                needs: "The build needs Rust 1.85 or later, and a C compiler for its linker. Cargo brings the crate `wit-bindgen`,\n\
                        which makes the bindings while it compiles.",
            },
            Self::C => Kind {
                name: "C",
                files: &[C, TOOLS],
                prepare: &[],
                build: "./build.sh",
                watch: &["guest.c", "wit", "build.sh"],
                component: "build/guest.wasm",
                source: "guest.c",
                ignored: &["/build", "/tools/target"],
                more: "| `tools/` | makes the bindings, by wit-bindgen; `build.sh` compiles it |\n",
                needs: "The build needs clang and lld 19, C's library for WASI 0.2 (`wasi-libc` of 2024 or later) and Rust as\n\
                        rustup installs it, for the bindings and the linker `wasm-component-ld`. It installs none of them: where one\n\
                        is missing, it says which command does. After the first build, `build/bindings/guest.h` has the contract in C.",
            },
            Self::Js => Kind {
                name: "JavaScript",
                files: &[JS],
                prepare: &["npm install"],
                build: "npm run build",
                watch: &["guest.js", "wit", "package.json"],
                component: "build/guest.wasm",
                source: "guest.js",
                ignored: &["/build", "/node_modules"],
                more: "",
                needs: "The build needs Node.js 18 or later. `npm install` brings `componentize-qjs`, which puts this and the engine\n\
                        QuickJS into one component. There is no `console`, no timer and no `TextEncoder`; what runs while the module is\n\
                        loaded runs at build time.",
            },
            Self::Python => Kind {
                name: "Python",
                files: &[PYTHON],
                prepare: &[],
                build: "./build.sh",
                watch: &["src", "wit", "requirements.txt", "build.sh"],
                component: "build/guest.wasm",
                source: "src/app.py",
                ignored: &["/build", "/.venv", "__pycache__"],
                more: "| `requirements.txt` | what `build.sh` installs from PyPI, into `.venv` |\n",
                needs: "The build needs Python 3.10 or later. It installs `componentize-py` from PyPI into `.venv`, which puts this\n\
                        and a whole CPython into one component. After the first build, `build/bindings` has the contract for editors.\n\
                        What runs while a module is imported runs at build time.",
            },
            Self::Go => Kind {
                name: "Go",
                files: &[GO, TOOLS],
                prepare: &[],
                build: "./build.sh",
                watch: &["guest", "wit", "build.sh", "go.mod"],
                component: "build/guest.wasm",
                source: "guest/guest.go",
                ignored: &["/build", "/tools/target"],
                more: "| `guest/collect.go` | when Go's collector runs, and why no sooner |\n\
                       | `export_…/` | where the bindings look for the exports |\n\
                       | `tools/` | makes the bindings, by wit-bindgen, and the component; `build.sh` compiles it |\n",
                needs: "The build needs Go 1.25 or later, and Rust for `tools/`. Go fetches the one module that the bindings need.\n\
                        After the first build, `build/module` is the whole module, for editors.",
            },
        }
    }

    /// Where all that the guest does is written.
    pub fn source(self) -> &'static str {
        self.kind().source
    }

    /// The language, for people.
    pub fn name(self) -> &'static str {
        self.kind().name
    }

    /// The commands that build the project, test it and run it, in its folder.
    pub fn commands(self) -> Vec<&'static str> {
        let Kind { prepare, build, .. } = self.kind();
        prepare.iter().copied().chain([build, "bellwether test scenarios/jobs.toml", "bellwether dev"]).collect()
    }

    fn files(self) -> impl Iterator<Item = &'static File> {
        COMMON.iter().chain(CONTRACT).chain(self.kind().files.iter().copied().flatten())
    }

    fn filled(self, text: &str, name: &str) -> String {
        let kind = self.kind();
        let watch: Vec<String> = kind.watch.iter().map(|path| format!("\"{path}\"")).collect();
        text.replace("{{name}}", name)
            .replace("{{language}}", kind.name)
            .replace("{{build}}", kind.build)
            .replace("{{watch}}", &watch.join(", "))
            .replace("{{component}}", kind.component)
            .replace("{{source}}", kind.source)
            .replace("{{commands}}", &self.commands().join("\n"))
            .replace("{{more}}\n", &format!("{}\n", kind.more))
            .replace("{{needs}}", kind.needs)
    }

    fn ignored(self) -> String {
        self.kind().ignored.iter().chain(&["/.bellwether"]).map(|path| format!("{path}\n")).collect()
    }
}

/// Why a name is none for a project: it names the group, the package and the folder alike.
pub fn bad_name(name: &str) -> Option<&'static str> {
    let letter = name.starts_with(|first: char| first.is_ascii_lowercase());
    let others = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
    match name {
        "nodes" => Some("a group cannot have this name: the layout in ZooKeeper needs it"),
        _ if name.is_empty() || name.len() > 64 || !letter || !others => {
            Some("it is not of 1 to 64 small letters, digits, `-` or `_`, beginning with a letter")
        }
        _ => None,
    }
}

/// The folder that a project will lie in.
pub fn parent(folder: &Path) -> &Path {
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the project in `folder`, which must not exist. Until it is whole it lies beside, and is removed if anything fails.
pub fn make(folder: &Path, name: &str, language: Language) -> io::Result<()> {
    // As any new folder is, less the umask.
    let aside = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(parent(folder))?;
    for file in language.files() {
        write(&aside.path().join(file.path), &language.filled(file.text, name), file.program)?;
    }
    write(&aside.path().join(".gitignore"), &language.ignored(), false)?;
    // Onto a file or a folder with something in it, should one have come meanwhile, this fails.
    fs::rename(aside.path(), folder)?;
    // It is not there any more: nothing is left to remove.
    let _ = aside.keep();
    Ok(())
}

fn write(path: &Path, text: &str, program: bool) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o777).create(parent)?;
    }
    let mode = if program { 0o777 } else { 0o666 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    fn all() -> impl Iterator<Item = Language> {
        Language::value_variants().iter().copied()
    }

    fn below(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { found.extend(below(&path)) } else { found.push(path) }
        }
        found
    }

    #[test]
    fn no_template_and_no_part_of_the_contract_is_left_out() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let texts: BTreeSet<&str> = all().flat_map(Language::files).map(|file| file.text).collect();
        for path in below(&here.join("templates")).into_iter().chain(below(&here.join("../../wit"))) {
            let part =
                path.extension().is_none_or(|extension| extension != "md") || path.starts_with(here.join("templates"));
            let text = fs::read_to_string(&path).unwrap();
            assert!(!part || texts.contains(text.as_str()), "{} is in no project", path.display());
        }
    }

    #[test]
    fn the_same_manifest_will_do_with_a_zookeeper() {
        for language in all() {
            let folder = tempfile::tempdir().unwrap();
            let project = folder.path().join("hello");
            make(&project, "hello", language).unwrap();
            let manifest = project.join("bellwether.toml");
            let text = fs::read_to_string(&manifest).unwrap();
            let memory = "connect = \"memory:\"";
            assert!(text.contains(memory), "{text}");
            fs::write(&manifest, text.replace(memory, "connect = \"zookeeper://127.0.0.1:2181\"")).unwrap();
            let loaded = crate::node::load_for_dev(&manifest, false);
            assert!(loaded.is_ok(), "{language:?}: {:?}", loaded.err());
        }
    }

    #[test]
    fn every_blank_is_filled_in() {
        for language in all() {
            for file in language.files() {
                let text = language.filled(file.text, "hello");
                // Two braces may stand together in a source as well.
                let mut blanks = text.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0));
                let blank = blanks.find(|name| name.bytes().all(|byte| byte.is_ascii_lowercase()));
                assert_eq!(blank, None, "{language:?}: {}", file.path);
            }
        }
    }

    #[test]
    fn a_project_uses_the_versions_that_the_guests_of_this_repository_are_tested_with() {
        let pinned = |text: &str, version: &str| assert!(text.contains(version), "{version} is not in:\n{text}");
        pinned(include_str!("../../../guests/javascript/build.sh"), "need_npm_package componentize-qjs 0.4.5");
        pinned(include_str!("../templates/js/package.json"), "\"componentize-qjs\": \"0.4.5\"");
        pinned(include_str!("../../../guests/python/build.sh"), "need_pypi_package componentize-py 0.25.1");
        pinned(include_str!("../templates/python/requirements.txt"), "componentize-py==0.25.1");
        pinned(include_str!("../../../guests/Cargo.toml"), "wit-bindgen = \"0.61\"");
        pinned(include_str!("../templates/rust/Cargo.toml"), "wit-bindgen = \"0.61\"");
        let rest = |text: &'static str| text.split_once('\n').unwrap().1;
        let collect = include_str!("../../../guests/go/sums/collect.go");
        assert_eq!(rest(collect), rest(include_str!("../templates/go/guest/collect.go")));
    }

    #[test]
    fn a_name_suits_the_group_the_package_and_the_folder() {
        for good in ["a", "hello", "my-jobs_2"] {
            assert_eq!(bad_name(good), None, "{good}");
        }
        for bad in ["", "Hello", "2fast", "-a", "a b", "a.b", "é", "nodes", &"a".repeat(65)] {
            assert!(bad_name(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn nothing_is_left_half_made() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        fs::create_dir(&there).unwrap();
        fs::write(there.join("mine"), "mine").unwrap();
        make(&there, "there", Language::Rust).unwrap_err();
        assert_eq!(below(folder.path()), [there.join("mine")]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        make(&folder.path().join("absent/new"), "new", Language::C).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
