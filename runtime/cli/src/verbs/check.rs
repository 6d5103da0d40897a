use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bellwether_node::source::Reference;

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::{log, node, output};

const EXAMPLES: &str = "\
Examples:
  bellwether check                      the manifest of this folder, and the components that it names
  bellwether check node.toml --json
  bellwether check oci://registry.example/wordcount:v2
  bellwether check target/wasm32-wasip2/release/guest.wasm

It touches neither a coordinator nor a running node. What comes from elsewhere is fetched. Exit codes: 3 for a bad manifest, 4 for a bad component.";

/// Check a manifest and its components, or one component, without running anything
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A manifest, or a component (a .wasm file, or one that is elsewhere, as `bellwether swap` takes it); otherwise
    /// ./bellwether.toml
    #[arg(value_name = "MANIFEST|COMPONENT")]
    what: Option<String>,

    /// Write the findings as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let _log = log::install(global)?;
    let what = super::manifest(args.what.clone().map(PathBuf::from));
    let component = component(&what)?;
    if component.is_none() {
        refuse_neither(&what)?;
    }
    let color = global.color.on_stderr();
    let checked = super::serve(async {
        match &component {
            Some(component) => node::check_component(component).await,
            None => node::check(&node::load(&what, color)?).await,
        }
    })?;
    if args.json {
        output::json(&checked.json)?
    } else {
        output::text(&output::clean(&checked.text))?
    }
    if checked.good {
        return Ok(());
    }
    let (what, why) = match &component {
        Some(component) => (component.to_string(), "cannot be used"),
        None => (what.display().to_string(), "names a component that cannot be used"),
    };
    Err(Failure::new(Exit::Component, format!("{what} {why}")).why("the findings on stdout say why"))
}

/// The component that is meant, if it is not a manifest.
fn component(what: &Path) -> Result<Option<Reference>, Failure> {
    let Some(text) = what.to_str() else { return Ok(is_component(what).then(|| Reference::File(what.to_owned()))) };
    match node::reference(text)? {
        Reference::File(file) if !is_component(&file) => Ok(None),
        reference => Ok(Some(reference)),
    }
}

/// By its name, or else by how it begins.
fn is_component(file: &Path) -> bool {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("wasm" | "wat") => true,
        Some("toml") => false,
        _ => {
            let mut magic = [0; 4];
            File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"\0asm"
        }
    }
}

/// Refuses what is neither: its first line is no faulty line of a manifest.
fn refuse_neither(file: &Path) -> Result<(), Failure> {
    if file.extension().is_some_and(|extension| extension == "toml") {
        return Ok(());
    }
    // What cannot be read is told of by whoever reads the manifest.
    let Ok(mut opened) = File::open(file) else { return Ok(()) };
    let mut head = Vec::new();
    if opened.by_ref().take(MOST).read_to_end(&mut head).is_err() {
        return Ok(());
    }
    let not_toml = match std::str::from_utf8(&head).map(str::parse::<toml::Table>) {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.message().trim_end().to_owned(),
        Err(_) => "it is not text".to_owned(),
    };
    let begins: Vec<String> = head.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Err(Failure::new(Exit::Manifest, format!("{} is neither a manifest nor a component", file.display()))
        .why(format!("a manifest is TOML, and this is not: {not_toml}"))
        .why(format!("a component begins with 00 61 73 6d, and this with {}", begins.join(" ")))
        .help("`bellwether check bellwether.toml` looks at a manifest, `bellwether check guest.wasm` at a component"))
}

/// No manifest is longer.
const MOST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_known_by_its_name_or_its_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guest");
        assert!(is_component(Path::new("a.wasm")));
        assert!(!is_component(Path::new("a.toml")));
        assert!(!is_component(&path));
        std::fs::write(&path, b"\0asm\x0d\0\x01\0").unwrap();
        assert!(is_component(&path));
        std::fs::write(&path, b"[node]").unwrap();
        assert!(!is_component(&path));
        assert_eq!(refuse_neither(&path), Ok(()));
        for neither in [&b"int main() { return 0; }\n"[..], b"\x7fELF\x02\xff"] {
            std::fs::write(&path, neither).unwrap();
            let failure = refuse_neither(&path).unwrap_err();
            assert!(failure.what.ends_with("is neither a manifest nor a component"), "{failure:?}");
        }
    }
}
