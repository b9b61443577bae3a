//! Generates `crates/wire/src/gen` from `crates/wire/proto` and `crates/ffi/include/quorate.h` from
//! `crates/ffi/src`, or with `--check` tells whether they are up to date. Run it as `cargo xtask gen`.

mod header;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Files by their names, which belong into one directory.
type Files = BTreeMap<String, Vec<u8>>;

fn main() -> ExitCode {
    let check = match &*std::env::args().skip(1).collect::<Vec<_>>() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => {
            eprintln!("gen: usage: cargo xtask gen [--check]");
            return ExitCode::FAILURE;
        }
    };
    let all = || -> Result<(), Box<dyn Error>> {
        Generated::new("crates/wire/src/gen", |_| true, wire::generate()?).done(check)?;
        Generated::new("crates/ffi/include", header::is_ours, header::generate()?).done(check)
    };
    match all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What belongs into a directory.
struct Generated {
    name: &'static str,
    directory: PathBuf,
    committed: fn(&str) -> bool,
    fresh: Files,
}

impl Generated {
    /// The files of a directory for which `committed` holds are generated.
    fn new(name: &'static str, committed: fn(&str) -> bool, fresh: Files) -> Self {
        Self {
            name,
            directory: root().join(name),
            committed,
            fresh,
        }
    }

    fn done(self, check: bool) -> Result<(), Box<dyn Error>> {
        let mut committed = read(&self.directory)?;
        committed.retain(|name, _| (self.committed)(name));
        if check {
            return self.check(&committed);
        }
        for stale in committed
            .keys()
            .filter(|name| !self.fresh.contains_key(*name))
        {
            fs::remove_file(self.directory.join(stale))?;
        }
        for (name, content) in self.fresh {
            fs::write(self.directory.join(name), content)?;
        }
        Ok(())
    }

    /// Fails, with the first line that differs, unless what is committed is what would be generated.
    fn check(&self, committed: &Files) -> Result<(), Box<dyn Error>> {
        let names: BTreeSet<_> = committed.keys().chain(self.fresh.keys()).collect();
        for name in names {
            let side = |files: &Files| files.get(name).cloned().unwrap_or_default();
            let (old, new) = (side(committed), side(&self.fresh));
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
                "{}/{name} is stale, run `cargo xtask gen`; line {}:\n-{}\n+{}",
                self.name,
                line + 1,
                shown(&old),
                shown(&new),
            )
            .into());
        }
        Ok(())
    }
}

/// Every file of a directory, by name.
fn read(directory: &Path) -> Result<Files, Box<dyn Error>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, fs::read(entry.path())?);
    }
    Ok(files)
}

/// The directory of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
