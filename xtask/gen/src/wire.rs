//! The code of crate quorate-wire.

use std::{error::Error, fs};

use prost::Message;

use crate::{Files, read, root};

/// The file that holds the descriptors of all messages and services.
const DESCRIPTORS: &str = "descriptors.bin";

/// The files that belong into `src/gen`, by name.
pub(crate) fn generate() -> Result<Files, Box<dyn Error>> {
    let proto = root().join("crates/wire/proto");
    let mut sources = fs::read_dir(&proto)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    sources.sort();
    let descriptors = protox::compile(&sources, [&proto])?;
    let mut bare = descriptors.clone();
    for file in &mut bare.file {
        file.source_code_info = None; // large, and of use to generators only
    }
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .out_dir(out.path())
        .build_transport(false)
        .bytes(".")
        .codec_path("crate::codec::SmallCodec")
        .generate_default_stubs(true)
        .client_mod_attribute(".", r#"#[cfg(feature = "client")]"#)
        .server_mod_attribute(".", r#"#[cfg(feature = "server")]"#)
        .compile_fds(descriptors)?;
    let mut files = read(out.path())?;
    files.insert(DESCRIPTORS.to_owned(), bare.encode_to_vec());
    Ok(files)
}
