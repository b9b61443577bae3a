//! The formats of documents.

use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny, IntoDeserializer, value::Error as PlainError},
};

use crate::{Error, ErrorKind, Result};

/// The format of a configuration's document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// JSON; written on several lines.
    Json,
    /// The value itself, for types that serde makes of a string.
    Text,
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

impl Format {
    /// The format that the extension of a key tells: `.json`, `.toml`, `.yaml` or `.yml`. It is JSON
    /// for any other.
    pub fn of(key: impl AsRef<[u8]>) -> Self {
        let name = key.as_ref().to_ascii_lowercase();
        if name.ends_with(b".toml") {
            Self::Toml
        } else if name.ends_with(b".yaml") || name.ends_with(b".yml") {
            Self::Yaml
        } else {
            Self::Json
        }
    }

    /// Checks that a document is one of this format.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if it is not; the message tells where.
    pub fn check(self, document: impl AsRef<[u8]>) -> Result<()> {
        let document = document.as_ref();
        let checked = match self {
            Self::Text => text(document).map(drop),
            Self::Json | Self::Toml | Self::Yaml => self.decode::<IgnoredAny>(document).map(drop),
        };
        checked.map_err(|why| Error::new(ErrorKind::InvalidArgument, why))
    }

    pub(super) fn decode<T: DeserializeOwned>(self, document: &[u8]) -> Result<T, String> {
        let text = text(document)?;
        match self {
            Self::Json => serde_json::from_str(text).map_err(|error| format!("not JSON: {error}")),
            Self::Text => T::deserialize(text.into_deserializer())
                .map_err(|error: PlainError| error.to_string()),
            Self::Toml => toml::from_str(text).map_err(|error| {
                let line = error.span().map(|span| line(text, span.start));
                let place = line.map_or_else(String::new, |line| format!(" at line {line}"));
                let message = error.message().replace('\n', ", ");
                format!("not TOML: {message}{place}")
            }),
            Self::Yaml => yaml_serde::from_str(text).map_err(|error| format!("not YAML: {error}")),
        }
    }

    pub(super) fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<String, String> {
        match self {
            Self::Json => serde_json::to_string_pretty(value).map_err(|error| error.to_string()),
            Self::Text => match serde_json::to_value(value) {
                Ok(serde_json::Value::String(text)) => Ok(text),
                Ok(_) => Err("plain text is made of strings only".into()),
                Err(error) => Err(error.to_string()),
            },
            Self::Toml => toml::to_string_pretty(value).map_err(|error| error.to_string()),
            Self::Yaml => yaml_serde::to_string(value).map_err(|error| error.to_string()),
        }
    }
}

fn text(document: &[u8]) -> Result<&str, String> {
    str::from_utf8(document).map_err(|error| format!("not text in UTF-8: {error}"))
}

/// The number of the line in which a byte is.
fn line(text: &str, at: usize) -> usize {
    let before = text.bytes().take(at);
    1 + before.filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    const ALL: [Format; 4] = [Format::Json, Format::Text, Format::Toml, Format::Yaml];

    #[derive(Debug, Deserialize, Serialize, PartialEq)]
    struct Limits {
        rps: u32,
    }

    #[test]
    fn the_extension_tells_the_format() {
        for (key, format) in [
            ("a.json", Format::Json),
            ("a.TOML", Format::Toml),
            ("a.yaml", Format::Yaml),
            ("a.yml", Format::Yaml),
            ("toml", Format::Json),
            ("", Format::Json),
        ] {
            assert_eq!(Format::of(key), format, "{key}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for format in [Format::Json, Format::Toml, Format::Yaml] {
            let document = format.encode(&Limits { rps: 7 }).unwrap();
            format.check(&document).unwrap();
            let read: Limits = format.decode(document.as_bytes()).unwrap();
            assert_eq!(read, Limits { rps: 7 }, "{format:?}");
        }
        let text = Format::Text.encode("a \"b\"\n").unwrap();
        assert_eq!(text, "a \"b\"\n");
        assert_eq!(Format::Text.decode::<String>(b"a \"b\"\n").unwrap(), text);
        assert!(Format::Text.encode(&7).is_err());
        assert!(Format::Toml.encode(&7).is_err());
    }

    #[test]
    fn a_refusal_tells_the_line() {
        let broken = [
            (Format::Json, "{\n\"rps\": }"),
            (Format::Toml, "a = 1\nrps = = 2"),
            (Format::Yaml, "a: 1\nrps: [1"),
        ];
        for (format, document) in broken {
            let error = format.check(document).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("line"), "{error}");
        }
        for format in ALL {
            assert!(format.check([0xff, 0xfe]).is_err());
        }
    }

    #[test]
    fn deep_and_self_multiplying_documents_are_refused() {
        let deep = "[".repeat(100_000);
        for format in [Format::Json, Format::Yaml] {
            assert!(format.check(&deep).is_err(), "{format:?}");
        }
        assert!(Format::Toml.check(format!("a = {deep}")).is_err());
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let before = n - 1;
            let nine = vec![format!("*a{before}"); 9].join(", ");
            laughs += &format!("a{n}: &a{n} [{nine}]\n");
        }
        let read = Format::Yaml.decode::<serde_json::Value>(laughs.as_bytes());
        assert!(read.is_err());
    }

    proptest! {
        #[test]
        fn no_document_panics(document in proptest::collection::vec(any::<u8>(), 0..200), text in ".*") {
            for format in ALL {
                let _ = format.check(&document);
                let _ = format.check(&text);
                let _ = format.decode::<Limits>(text.as_bytes());
            }
        }
    }
}
