use crate::exit::Failure;
use crate::{node, output};

const EXAMPLES: &str = "\
Examples:
  bellwether schema > bellwether.schema.json

Editors that know JSON Schema for TOML then complete and check bellwether.toml as you type.";

/// Write the manifest's JSON Schema
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

pub fn run(Args {}: &Args) -> Result<(), Failure> {
    output::json(&node::schema())
}
