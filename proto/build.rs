//! Compiles the `.proto` files in pure Rust: no protoc is needed on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=mote");
    let files = ["mote/v1/types.proto", "mote/v1/farm.proto", "mote/v1/buildlet.proto", "mote/v1/keeper.proto"];
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().bytes(".mote.v1").compile_fds(descriptors)?;
    Ok(())
}
