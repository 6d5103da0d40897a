use std::path::{Path, PathBuf};

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::{log, node, output};

const SCENARIOS: &str = "scenarios.toml";
const FOLDER: &str = "scenarios";

const EXAMPLES: &str = "\
Examples:
  bellwether test                                     the scenarios of this folder
  bellwether test tests/scenarios.toml --filter swap
  bellwether test --component target/wasm32-wasip2/release/guest.wasm --verbose

A scenario is a sequence of events (elect, join, tick, task, swap, …) with what the guest is to do about each. No coordinator
and no other node is needed: the members' tasks are done by instances of the same component, unless the scenario answers for
them. Exit codes: 1 if a scenario failed, 3 for a bad file of scenarios, 4 for a bad component.";

/// Play scenarios against a component, and compare what it does with what is expected
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The scenarios; otherwise ./scenarios.toml, or the one file of ./scenarios
    #[arg(value_name = "SCENARIOS")]
    file: Option<PathBuf>,

    /// The component, instead of the one that the scenarios name
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,

    /// The component for the members' tasks, instead of the scenarios'
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,

    /// Only the scenarios whose names contain this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Show what the guest asked for and logged in each step, also where all is well
    #[arg(long, short)]
    verbose: bool,

    /// Write the results as JSON
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
}

pub fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let _log = log::install(global)?;
    let file = args.file.map_or_else(|| of_folder(Path::new("")), Ok)?;
    let tested = super::serve(node::test(&file, args.component, args.worker, args.filter, args.verbose))?;
    if args.json {
        output::json(&tested.json)?
    } else {
        output::text(&output::clean(&tested.text))?
    }
    if tested.good {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("{}: not every scenario went as expected", file.display()))
        .why("the findings on stdout say which step, and how"))
}

/// The scenarios of a folder, where none are named.
fn of_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let usual = folder.join(SCENARIOS);
    let entries = folder.join(FOLDER).read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
    files.sort();
    match &files[..] {
        _ if usual.exists() => Ok(usual),
        [only] => Ok(only.clone()),
        [] => Ok(usual),
        several => {
            let names: Vec<_> = several.iter().map(|file| file.display().to_string()).collect();
            Err(Failure::new(Exit::Manifest, format!("there is no {SCENARIOS}, and {FOLDER} has several files"))
                .help(format!("name one of them: {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_the_usual_file_is_taken_or_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str| std::fs::write(at(name), "").unwrap();
        assert_eq!(of_folder(folder.path()), Ok(at(SCENARIOS)), "which will be missed by its name");
        std::fs::create_dir(at(FOLDER)).unwrap();
        write("scenarios/README.md");
        assert_eq!(of_folder(folder.path()), Ok(at(SCENARIOS)));
        write("scenarios/jobs.toml");
        assert_eq!(of_folder(folder.path()), Ok(at("scenarios/jobs.toml")));
        write("scenarios/again.toml");
        let failure = of_folder(folder.path()).unwrap_err();
        assert!(failure.exit == Exit::Manifest && failure.help[0].contains("jobs.toml"), "{failure:?}");
        write(SCENARIOS);
        assert_eq!(of_folder(folder.path()), Ok(at(SCENARIOS)));
    }
}
