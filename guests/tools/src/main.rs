//! What building the guests in C and Go needs. The commands `wit-bindgen` and `wasm-tools` do the same; this program is made of the
//! same libraries, of these parts alone, since to compile the two takes minutes.
//!
//! ```text
//! guest-tools bindings (c|go) WIT WORLD FOLDER     writes the bindings of a world
//! guest-tools component WIT WORLD MODULE FILE      makes a component of a module for WASI preview 1
//! ```

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_bindgen_core::wit_parser::{Resolve, WorldId};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

fn world(wit: &str, world: &str) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(Path::new(wit)).with_context(|| format!("{wit} cannot be read"))?;
    let id = resolve.select_world(&[package], Some(world))?;
    Ok((resolve, id))
}

fn bindings(language: &str, (mut resolve, id): (Resolve, WorldId), folder: &Path) -> Result<()> {
    let mut generator: Box<dyn WorldGenerator> = match language {
        // A short name, since every type has it in front.
        "c" => wit_bindgen_c::Opts { rename_world: Some("guest".into()), ..Default::default() }.build(),
        "go" => wit_bindgen_go::Opts::default().build(),
        other => bail!("bindings are for c and go, not {other}"),
    };
    let mut files = Files::default();
    generator.generate(&mut resolve, id, &mut files)?;
    for (name, content) in files.iter() {
        let path = folder.join(name);
        let parent = path.parent().context("a file without a folder")?;
        std::fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
        std::fs::write(&path, content).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn component((resolve, id): (Resolve, WorldId), module: &str, file: &str) -> Result<()> {
    let mut bytes = std::fs::read(module).with_context(|| format!("{module} cannot be read"))?;
    embed_component_metadata(&mut bytes, &resolve, id, StringEncoding::UTF8)?;
    let component = ComponentEncoder::default()
        .module(&bytes)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        .validate(true)
        .encode()
        .with_context(|| format!("{module} does not make a component of this world"))?;
    std::fs::write(file, component).with_context(|| format!("{file} cannot be written"))
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["bindings", language, wit, name, folder] => bindings(language, world(wit, name)?, Path::new(folder)),
        ["component", wit, name, module, file] => component(world(wit, name)?, module, file),
        _ => bail!("guest-tools bindings (c|go) WIT WORLD FOLDER, or guest-tools component WIT WORLD MODULE FILE"),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
