use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::{log, node, output};

const EXAMPLES: &str = "\
Examples:
  bellwether check                      the manifest of this folder, and the components that it names
  bellwether check node.toml --json
  bellwether check target/wasm32-wasip2/release/guest.wasm

It touches neither a coordinator nor a running node. Exit codes: 3 for a bad manifest, 4 for a bad component.";

/// Check a manifest and its components, or one component, without running anything
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A manifest, or a component (.wasm); otherwise ./bellwether.toml
    #[arg(value_name = "MANIFEST|COMPONENT")]
    file: Option<PathBuf>,

    /// Write the findings as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let _log = log::install(global)?;
    let file = super::manifest(args.file.clone());
    let color = global.color.on_stderr();
    let checked = super::serve(async {
        if is_component(&file) {
            node::check_component(&file).await
        } else {
            node::check(&node::load(&file, color)?).await
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
    let what = if is_component(&file) { "cannot be used" } else { "names a component that cannot be used" };
    Err(Failure::new(Exit::Component, format!("{} {what}", file.display())).why("the findings on stdout say why"))
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
    }
}
