//! Turns `proto/peers.proto` into Rust. The compiler is protox, so that no `protoc` need be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/peers.proto");
    let files = protox::compile(["peers.proto"], ["proto"])?;
    // Without tonic's own transport: `peers` keeps its connections itself (see `peers/link.rs`).
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(files)?;
    Ok(())
}
