//! Compiles the `.proto` files in pure Rust: no protoc is needed on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=mote");
    println!("cargo:rerun-if-changed=gomote");
    println!("cargo:rerun-if-changed=goma");
    let files = [
        "mote/v1/types.proto",
        "mote/v1/farm.proto",
        "mote/v1/access.proto",
        "mote/v1/content.proto",
        "mote/v1/buildlet.proto",
        "mote/v1/keeper.proto",
        "mote/v1/runner.proto",
        "gomote/gomote.proto",
        "goma/goma_data.proto",
        "goma/settings.proto",
    ];
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .bytes(".mote.v1")
        .bytes(".protos")
        .bytes(".devtools_goma")
        .compile_fds(descriptors)?;
    Ok(())
}
