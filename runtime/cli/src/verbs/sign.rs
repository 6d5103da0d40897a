use std::fs;
use std::path::{Path, PathBuf};

use bellwether_node::source::signature::{self, MAX_FILE, PrivateKey, Signature};
use bellwether_node::source::{Digest, MAX_COMPONENT};
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  bellwether sign --key release.key wordcount.wasm
  bellwether sign --key release.key wordcount.wasm --json

It writes wordcount.wasm.sig, or adds to the signatures that are there. Publish the file beside the component; in a registry its
text is the annotation `dev.bellwether.signature` of the image.";

/// Sign a component
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The private key, as `bellwether keygen` wrote it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// The component (.wasm)
    component: PathBuf,

    /// Write what was signed as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let key = read(&args.key, MAX_FILE, Exit::Local, "the private key")?;
    let key = String::from_utf8_lossy(&key);
    let key = PrivateKey::from_file(&key).map_err(|error| {
        Failure::new(Exit::Local, format!("cannot use the private key {}", args.key.display())).why(error)
    })?;
    let component = read(&args.component, MAX_COMPONENT, Exit::Component, "the component")?;
    let digest = Digest::of(&component);
    let signature = key.sign(&digest);
    let mut name = args.component.clone().into_os_string();
    name.push(".sig");
    let path = PathBuf::from(name);
    let mut all = if path.exists() { earlier(&path)? } else { Vec::new() };
    // A component that was built anew: what this key said of the old one is of no use any more.
    all.retain(|earlier| earlier.key != signature.key);
    all.push(signature.clone());
    fs::write(&path, signature::write(&all))
        .map_err(|error| Failure::new(Exit::Local, format!("cannot write {}", path.display())).why(error))?;
    if args.json {
        return output::json(&json!({
            "digest": digest, "key": signature.key.to_string(), "name": key.public().name(), "file": path,
        }));
    }
    output::text(&format!("{digest} signed by {} ({}): {}", key.public().name(), signature.key, path.display()))
}

fn earlier(path: &Path) -> Result<Vec<Signature>, Failure> {
    let text = read(path, MAX_FILE, Exit::Local, "the signatures")?;
    signature::parse(&String::from_utf8_lossy(&text)).map_err(|error| {
        Failure::new(Exit::Local, format!("cannot add to the signatures in {}", path.display()))
            .why(error)
            .help("delete the file if it is not needed any more")
    })
}

fn read(path: &Path, most: u64, exit: Exit, what: &str) -> Result<Vec<u8>, Failure> {
    let failed = |why: String| Failure::new(exit, format!("cannot use {what} {}", path.display())).why(why);
    let size = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > most {
        return Err(failed(format!("it has {size} bytes; the most is {most}")));
    }
    fs::read(path).map_err(|error| failed(error.to_string()))
}
