//! Generates `crates/wire/src/gen` from `crates/wire/proto`, or with `--check` tells whether that is
//! up to date. Run it as `cargo xtask gen`.

use std::{collections::BTreeMap, error::Error, fs, path::Path, process::ExitCode};

use prost::Message;

/// The file that holds the descriptors of all messages and services.
const DESCRIPTORS: &str = "descriptors.bin";

fn main() -> ExitCode {
    let outcome = match &*std::env::args().skip(1).collect::<Vec<_>>() {
        [] => write(),
        [flag] if flag == "--check" => check(),
        _ => Err("usage: cargo xtask gen [--check]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Replaces what is committed.
fn write() -> Result<(), Box<dyn Error>> {
    let committed = wire().join("src/gen");
    let fresh = generate()?;
    for stale in read(&committed)?
        .keys()
        .filter(|name| !fresh.contains_key(*name))
    {
        fs::remove_file(committed.join(stale))?;
    }
    for (name, text) in fresh {
        fs::write(committed.join(name), text)?;
    }
    Ok(())
}

/// Fails, with the first line that differs, unless what is committed is what would be generated.
fn check() -> Result<(), Box<dyn Error>> {
    let (committed, fresh) = (read(&wire().join("src/gen"))?, generate()?);
    let mut names: Vec<_> = committed.keys().chain(fresh.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let side = |files: &BTreeMap<String, Vec<u8>>| files.get(name).cloned().unwrap_or_default();
        let (old, new) = (side(&committed), side(&fresh));
        if old == new {
            continue;
        }
        let (old, new) = (String::from_utf8_lossy(&old), String::from_utf8_lossy(&new));
        let line = old
            .lines()
            .zip(new.lines())
            .take_while(|(old, new)| old == new)
            .count();
        let shown = |text: &str| text.lines().nth(line).unwrap_or("(end of file)").to_owned();
        return Err(format!(
            "crates/wire/src/gen/{name} is stale, run `cargo xtask gen`; line {}:\n-{}\n+{}",
            line + 1,
            shown(&old),
            shown(&new),
        )
        .into());
    }
    Ok(())
}

/// The files that belong into `src/gen`, by name.
fn generate() -> Result<BTreeMap<String, Vec<u8>>, Box<dyn Error>> {
    let proto = wire().join("proto");
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
        .generate_default_stubs(true)
        .client_mod_attribute(".", r#"#[cfg(feature = "client")]"#)
        .server_mod_attribute(".", r#"#[cfg(feature = "server")]"#)
        .compile_fds(descriptors)?;
    let mut files = read(out.path())?;
    files.insert(DESCRIPTORS.to_owned(), bare.encode_to_vec());
    Ok(files)
}

/// Every file of a directory, by name.
fn read(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>, Box<dyn Error>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, fs::read(entry.path())?);
    }
    Ok(files)
}

/// The directory of the crate that is generated for.
fn wire() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/wire")
}
