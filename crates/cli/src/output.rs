//! How results are printed: as text for people and shells, or as JSON.
//!
//! Text is one line a result, its fields apart by tabs, keys and values as the bytes that they are. JSON
//! is one object a line.

use std::io::{self, BufWriter, Stdout, Write};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::ValueEnum;
use quorate::{KeyValue, LeaseId};
use serde_json::{Value as Json, json};

use crate::failure::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One object a line
    Json,
    /// Lines of fields with tabs between them, keys and values as raw bytes
    Text,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            stdout: BufWriter::new(io::stdout()),
        }
    }

    /// Prints one result, in the form that was asked for.
    pub(crate) fn result(
        &mut self,
        text: &[&[u8]],
        json: impl FnOnce() -> Json,
    ) -> Result<(), Failure> {
        self.text_only(text)?;
        self.json_only(json)
    }

    /// Prints a line that belongs to text alone.
    pub(crate) fn text_only(&mut self, text: &[&[u8]]) -> Result<(), Failure> {
        match self.format {
            Format::Json => Ok(()),
            Format::Text => self.write(&text.join(&b'\t')),
        }
    }

    /// Prints a result that text has no line for.
    pub(crate) fn json_only(&mut self, json: impl FnOnce() -> Json) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.write(json().to_string().as_bytes()),
            Format::Text => Ok(()),
        }
    }

    fn write(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.stdout
            .write_all(line)
            .and_then(|()| self.stdout.write_all(b"\n"))
            .map_err(Failure::Output)
    }

    /// Prints what was kept back so far; for results that come one by one.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(Failure::Output)
    }
}

/// A key with everything that the store tells of it.
pub(crate) fn key_value(kv: &KeyValue) -> Json {
    let mut json = key_only(kv);
    json["value"] = bytes(&kv.value);
    json
}

/// A key that was read without its value.
pub(crate) fn key_only(kv: &KeyValue) -> Json {
    json!({
        "key": bytes(&kv.key),
        "create_revision": kv.create_revision.0,
        "mod_revision": kv.mod_revision.0,
        "version": kv.version,
        "lease": lease(kv.lease),
    })
}

/// Bytes: a string if they are text, else `{"base64": "..."}`.
pub(crate) fn bytes(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => Json::from(text),
        Err(_) => json!({ "base64": BASE64_STANDARD.encode(bytes) }),
    }
}

/// A lease in hexadecimal digits, as etcdctl writes it, or null.
pub(crate) fn lease(lease: Option<LeaseId>) -> Json {
    lease.map(|lease| lease.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_become_base64() {
        assert_eq!(bytes("grün".as_bytes()), json!("grün"));
        assert_eq!(bytes(b"\xff\x00"), json!({ "base64": "/wA=" }));
    }
}
