use std::path::PathBuf;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::project::{self, Language};

const EXAMPLES: &str = "\
Examples:
  bellwether new hello --lang rust
  bellwether new ../jobs --lang python

It has a leader that hands out jobs, workers that do them, the contract, a manifest, a test and a build, and shows the commands that
build, test and run it. Nothing is installed or fetched before you give them.";

/// Make a guest to begin from: a project in a folder of its own, in your language
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder to make; its last part is the project's name
    #[arg(value_name = "NAME")]
    folder: PathBuf,

    /// The language
    #[arg(long, value_name = "LANGUAGE")]
    lang: Language,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { folder, lang } = args;
    let shown = folder.display();
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(why) = project::bad_name(name) {
        let failure = Failure::new(Exit::Usage, format!("{:?} cannot be the name of a project", folder.as_os_str()));
        return Err(failure.why(why).help("for example: bellwether new hello --lang rust"));
    }
    if folder.symlink_metadata().is_ok() {
        let failure = Failure::new(Exit::Local, format!("{shown} is there already"));
        return Err(failure.why("nothing was changed").help("choose another name, or remove it"));
    }
    let unmade = |why: String| Failure::new(Exit::Local, format!("{shown} cannot be made")).why(why);
    let parent = project::parent(folder);
    if !parent.is_dir() {
        return Err(unmade(format!("there is no folder {}", parent.display())).help("make that first"));
    }
    project::make(folder, name, *lang)
        .map_err(|error| unmade(error.to_string()).help("nothing is left of it: mend that, and try again"))?;
    let commands: String = lang.commands().iter().map(|command| format!("    {command}\n")).collect();
    output::text(&format!(
        "{shown} has a guest in {}. To build, test and run it:\n\n    cd {shown}\n{commands}\n{} is all that it does; README.md tells the rest.",
        lang.name(),
        lang.source(),
    ))
}
