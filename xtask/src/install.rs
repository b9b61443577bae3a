//! Puts the C library in place: the library, its headers, its pkg-config file and its manual page.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{
    run::{cargo, root, run, target},
    test::IS_BUILT,
};

/// The number in the library's name, as `crates/ffi/build.rs` has it.
const ABI: &str = "0";

/// That of the workspace, which this crate has as well.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const USAGE: &str = "usage: cargo xtask install --prefix DIR [--destdir DIR] [--debug]";

/// Where to, and what.
#[derive(Default)]
struct Options {
    /// What the installed files name: an absolute path.
    prefix: PathBuf,
    /// Put before the prefix while files are copied, as packagers need it.
    destdir: Option<PathBuf>,
    debug: bool,
}

/// Builds the library and installs it.
pub(crate) fn install(flags: &[&str]) -> Result<(), String> {
    let options = Options::parse(flags)?;
    if !(options.debug && env::var_os(IS_BUILT).is_some()) {
        let mut build = cargo();
        build.args(["build", "--package", "quorate-ffi"]);
        if !options.debug {
            build.arg("--release");
        }
        run(&mut build)?;
    }
    let built = root()
        .join(target())
        .join(if options.debug { "debug" } else { "release" });
    options.library(&built)?;
    options.headers()?;
    options.pkg_config()?;
    options.man()?;
    eprintln!(
        "xtask: installed libquorate in {}",
        options.place("").display()
    );
    Ok(())
}

impl Options {
    fn parse(flags: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (*flag, None),
            };
            let mut value = || {
                let value = value.or_else(|| flags.next().copied());
                value.map(PathBuf::from).ok_or(USAGE)
            };
            match name {
                "--debug" => options.debug = true,
                "--destdir" => options.destdir = Some(value()?),
                "--prefix" => options.prefix = value()?,
                _ => return Err(USAGE.to_owned()),
            }
        }
        if options.prefix.as_os_str().is_empty() {
            return Err(USAGE.to_owned());
        }
        options.prefix = std::path::absolute(&options.prefix)
            .map_err(|error| format!("{}: {error}", options.prefix.display()))?;
        Ok(options)
    }

    /// Where a file goes.
    fn place(&self, name: &str) -> PathBuf {
        let place = self.prefix.join(name);
        match &self.destdir {
            None => place,
            Some(destdir) => destdir.join(place.strip_prefix("/").unwrap_or(&place)),
        }
    }

    fn library(&self, built: &Path) -> Result<(), String> {
        self.copy(&built.join("libquorate.a"), "lib/libquorate.a")?;
        if cfg!(target_os = "macos") {
            self.copy(
                &built.join("libquorate.dylib"),
                &format!("lib/libquorate.{ABI}.dylib"),
            )?;
            return self.link(&format!("libquorate.{ABI}.dylib"), "lib/libquorate.dylib");
        }
        let file = format!("libquorate.so.{}", VERSION);
        self.copy(&built.join("libquorate.so"), &format!("lib/{file}"))?;
        self.link(&file, &format!("lib/libquorate.so.{ABI}"))?;
        self.link(&format!("libquorate.so.{ABI}"), "lib/libquorate.so")
    }

    fn headers(&self) -> Result<(), String> {
        let include = ffi().join("include");
        let headers = fs::read_dir(&include);
        for header in headers.map_err(|error| format!("{}: {error}", include.display()))? {
            let header = header.map_err(|error| format!("{}: {error}", include.display()))?;
            let name = header.file_name();
            self.copy(
                &header.path(),
                &format!("include/{}", name.to_string_lossy()),
            )?;
        }
        Ok(())
    }

    fn pkg_config(&self) -> Result<(), String> {
        // What the standard library of Rust needs.
        let private = if cfg!(target_os = "macos") {
            "-framework Security -framework CoreFoundation -liconv -lSystem -lm"
        } else {
            "-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"
        };
        let template = ffi().join("quorate.pc.in");
        let text = fs::read_to_string(&template)
            .map_err(|error| format!("{}: {error}", template.display()))?
            .replace("@PREFIX@", &self.prefix.to_string_lossy())
            .replace("@VERSION@", VERSION)
            .replace("@LIBS_PRIVATE@", private);
        self.write("lib/pkgconfig/quorate.pc", text.as_bytes())
    }

    fn man(&self) -> Result<(), String> {
        self.copy(&ffi().join("man/quorate.3"), "share/man/man3/quorate.3")
    }

    fn copy(&self, from: &Path, name: &str) -> Result<(), String> {
        let bytes = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
        self.write(name, &bytes)
    }

    /// Writes a file as a whole: a program that has the old one open keeps it.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let place = self.place(name);
        let failed = |error: std::io::Error| format!("{}: {error}", place.display());
        if let Some(directory) = place.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let beside = PathBuf::from(format!("{}.new", place.display()));
        fs::write(&beside, bytes).map_err(failed)?;
        fs::rename(&beside, &place).map_err(failed)
    }

    fn link(&self, to: &str, name: &str) -> Result<(), String> {
        let place = self.place(name);
        let _ = fs::remove_file(&place);
        symlink(to, &place).map_err(|error| format!("{}: {error}", place.display()))
    }
}

fn ffi() -> PathBuf {
    root().join("crates/ffi")
}
