//! `config edit`: change a document in an editor.

use std::{
    env,
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use quorate::{Client, Error, ErrorKind, Format, Key, Revision, Swap};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

use super::print_written;
use crate::{
    args::{self, DocumentFormat},
    failure::Failure,
    output::Output,
};

pub(super) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::FormattedDocument,
) -> Result<ExitCode, Failure> {
    let key = Key::from(args.name.into_vec());
    let format = DocumentFormat::of(args.format, &key);
    let present = client.get(&key).await?;
    let (before, revision) = present.map_or_else(
        || (Vec::new(), Revision::ZERO),
        |kv| (kv.value.to_vec(), kv.mod_revision),
    );
    let draft = Draft::new(&before, format).map_err(Failure::System)?;
    let edited = edit(&draft.path).await;
    let after = draft.read();
    if after.as_ref().is_ok_and(|after| *after == before) {
        draft.discard();
        edited?;
        return Ok(ExitCode::SUCCESS);
    }
    edited.map_err(|failure| draft.kept(failure))?;
    let after = after.map_err(|error| {
        let message = format!("{} cannot be read: {error}", draft.path.display());
        Failure::System(io::Error::new(error.kind(), message))
    })?;
    match write(client, &key, revision, format, after).await {
        Ok(written) => {
            draft.discard();
            print_written(out, &key, written)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(draft.kept(Failure::Store(error))),
    }
}

/// Writes the document if it is one, and the key is as it was.
async fn write(
    client: &Client,
    key: &Key,
    expected: Revision,
    format: Format,
    document: Vec<u8>,
) -> Result<Revision, Error> {
    format.check(&document)?;
    match client.put_if_revision(key, expected, document).await? {
        Swap::Done(revision) => Ok(revision),
        Swap::Refused(present) => {
            let message = match present {
                Some(kv) => format!(
                    "{key} was written meanwhile, at revision {}",
                    kv.mod_revision
                ),
                None => format!("{key} was deleted meanwhile"),
            };
            Err(Error::new(ErrorKind::Conflict, message))
        }
    }
}

/// Runs the editor until it ends.
async fn edit(path: &Path) -> Result<(), Failure> {
    let named = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR"));
    let mut command = editor.unwrap_or_else(|| "vi".into());
    let name = command.to_string_lossy().into_owned();
    command.push(" \"$1\"");
    // These are for the editor; it has the terminal.
    let _interrupts = signal(SignalKind::interrupt()).map_err(Failure::System)?;
    let _quits = signal(SignalKind::quit()).map_err(Failure::System)?;
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .arg("sh")
        .arg(path)
        .status()
        .await
        .map_err(Failure::System)?;
    if status.success() {
        return Ok(());
    }
    let message = format!("the editor {name} failed ({status})");
    Err(Failure::System(io::Error::other(message)))
}

/// The file that is edited.
struct Draft {
    path: PathBuf,
}

impl Draft {
    /// Makes a file that only its owner may read, with the extension that editors know.
    fn new(document: &[u8], format: Format) -> io::Result<Self> {
        let extension = match format {
            Format::Json => "json",
            Format::Toml => "toml",
            Format::Yaml => "yaml",
            _ => "txt",
        };
        let process = std::process::id();
        let mut count = 0;
        loop {
            let name = format!("quorate-edit-{process}-{count}.{extension}");
            let path = env::temp_dir().join(name);
            let mut options = OpenOptions::new();
            match options.write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => {
                    let draft = Self { path };
                    if let Err(error) = file.write_all(document) {
                        draft.discard();
                        return Err(error);
                    }
                    return Ok(draft);
                }
                // What another process has left.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => count += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        fs::read(&self.path)
    }

    fn discard(&self) {
        // What it holds is in the store; a copy that stays is no failure.
        let _ = fs::remove_file(&self.path);
    }

    /// Says where the draft is that could not be written.
    fn kept(&self, failure: Failure) -> Failure {
        let place = format!("what you wrote is in {}", self.path.display());
        match failure {
            Failure::Store(error) => Failure::Store(error.context(place)),
            Failure::System(error) => {
                let message = format!("{place}: {error}");
                Failure::System(io::Error::new(error.kind(), message))
            }
            Failure::Output(error) => Failure::Output(error),
        }
    }
}
