use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use bellwether_node::source::signature::PrivateKey;

use crate::exit::{Exit, Failure};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  bellwether keygen release --out release.key
  bellwether keygen release --out release.key >>trusted-keys

What it writes to stdout is the public key; it belongs in the manifest of every node: `[signatures] keys = [\"…\"]`.";

/// Make a key that signs components
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What people call the key: letters, digits, `.`, `_`, `-` and `@`
    name: String,

    /// The file for the private key; it must not exist, and only its owner can read it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let key = PrivateKey::generate(&args.name)
        .map_err(|error| Failure::new(Exit::Usage, "the key cannot be made").why(error))?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.out);
    file.and_then(|mut file| file.write_all(key.to_file().as_bytes()).and_then(|()| file.sync_all())).map_err(
        |error| {
            let failure = Failure::new(Exit::Local, format!("cannot write the private key to {}", args.out.display()));
            let exists = error.kind() == std::io::ErrorKind::AlreadyExists;
            let failure = failure.why(error);
            if exists { failure.help("a key is never overwritten: name another file") } else { failure }
        },
    )?;
    output::text(&key.public().to_string())
}
