use crate::exit::Failure;
use crate::node;

const EXAMPLES: &str = "\
Examples:
  bellwether compile <hello.wasm >hello.cwasm

Nodes call it, so that a component that is too much for the compiler costs a process and not the node. What it writes can be used
by this very version on this kind of machine alone.";

/// Compile a component from stdin to stdout, for a node
#[derive(Debug, clap::Args)]
#[command(hide = true, after_help = EXAMPLES)]
pub struct Args {
    /// The memory that it may take, in bytes
    #[arg(long)]
    memory: Option<u64>,

    /// What it may write, in bytes
    #[arg(long)]
    output: Option<u64>,

    /// The processor time that it may take, in seconds
    #[arg(long)]
    processor: Option<u64>,

    /// The process with which it ends
    #[arg(long)]
    parent: Option<i32>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { memory, output, processor, parent } = *args;
    node::compile(&node::Confinement { memory, output, processor, parent })
}
