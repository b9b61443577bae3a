//! The verbs on documents: configuration that people read and write.

use std::ffi::OsString;

use clap::{Args as Group, ValueEnum};
use quorate::{Format, Key};

#[derive(Group)]
pub(crate) struct Document {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) name: OsString,
}

#[derive(Group)]
pub(crate) struct GetDocument {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) name: OsString,

    /// As it stood at this revision
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) rev: Option<i64>,
}

#[derive(Group)]
pub(crate) struct FormattedDocument {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) name: OsString,

    /// The format [default: by the key's extension .json, .toml, .yaml or .yml, else json]
    #[arg(long, value_enum)]
    pub(crate) format: Option<DocumentFormat>,
}

#[derive(Group)]
pub(crate) struct SetDocument {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) name: OsString,

    /// The document; - is standard input
    #[arg(
        default_value = "-",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) value: OsString,

    /// The format [default: by the key's extension .json, .toml, .yaml or .yml, else json]
    #[arg(long, value_enum)]
    pub(crate) format: Option<DocumentFormat>,

    /// Write only if the key was last written at this revision; 0 is if it does not exist
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) revision: Option<i64>,
}

#[derive(Group)]
pub(crate) struct RollBack {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) name: OsString,

    /// Write the value that it had at this revision
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) revision: i64,

    /// The format [default: by the key's extension .json, .toml, .yaml or .yml, else json]
    #[arg(long, value_enum)]
    pub(crate) format: Option<DocumentFormat>,
}

/// The format of a document.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DocumentFormat {
    Json,
    /// Any text
    Text,
    Toml,
    Yaml,
}

impl DocumentFormat {
    /// The format that was asked for, or that of the key.
    pub(crate) fn of(asked: Option<Self>, key: &Key) -> Format {
        match asked {
            Some(Self::Json) => Format::Json,
            Some(Self::Text) => Format::Text,
            Some(Self::Toml) => Format::Toml,
            Some(Self::Yaml) => Format::Yaml,
            None => Format::of(key),
        }
    }
}
