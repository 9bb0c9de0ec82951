//! Compiles every file below `proto/` without protoc, into messages, clients, servers and one
//! descriptor set that serves gRPC reflection and JSON output.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();

    let descriptors = protox::compile(&files, [root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let mut prost = tonic_prost_build::Config::new();
    prost.bytes(["."]);
    prost.enable_type_names();
    prost.extern_path(
        ".spire.api.server.entry.v1.SyncAuthorizedEntriesResponse",
        "crate::wire::SyncAuthorizedEntriesResponse",
    );
    tonic_prost_build::configure()
        .include_file("wire.rs")
        .compile_fds_with_config(descriptors, prost)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
