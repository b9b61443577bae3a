//! The parts of an address that every store has: its scheme and its options.

use std::{fmt, time::Duration};

use percent_encoding::percent_decode_str;

use super::{ConnectOptions, Target, cluster, invalid, namespace_prefix, socket};
use crate::{Result, duration::parse_duration};

pub(super) fn parse(address: &str) -> Result<ConnectOptions> {
    let address = address.trim();
    if address.contains('#') {
        return Err(invalid("write # as %23"));
    }
    let (hosts, query) = address.split_once('?').unwrap_or((address, ""));
    // Where a password may be about, no message quotes anything: it could be a part of it, cut off by
    // a character that should have been encoded.
    let quoting = !address.contains('@') && !address.contains("password");
    let mut query = Query::parse(query, quoting)?;
    let has_scheme = |scheme: &str| {
        let start = hosts.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if hosts.is_empty() {
        return Err(invalid(
            "it is empty: write etcd://host:2379, local: or mem:",
        ));
    }
    if hosts.eq_ignore_ascii_case("mem") {
        return Err(invalid(
            "write mem: for a store in memory, etcd://mem for a host mem",
        ));
    }
    if hosts.eq_ignore_ascii_case("local") {
        return Err(invalid(
            "write local: for a server that is started here, etcd://local for a host local",
        ));
    }
    let mut options = if has_scheme("mem:") {
        ConnectOptions::with_target(memory(&hosts["mem:".len()..])?)
    } else if has_scheme("local:") {
        socket::local(&hosts["local:".len()..], &mut query)?
    } else if has_scheme("unix:") {
        socket::unix(&hosts["unix:".len()..], &mut query)?
    } else {
        cluster::parse(hosts, &mut query)?
    };
    if let Some(namespace) = query.bytes("namespace") {
        if !options.namespace.is_empty() {
            return Err(invalid(
                "the namespace stands in the path and as an option: drop one",
            ));
        }
        if namespace.is_empty() {
            return Err(invalid(
                "option namespace is empty: write a name, or leave it out",
            ));
        }
        options.namespace = namespace_prefix(namespace);
    }
    if let Some(timeout) = query.duration("timeout")? {
        options = options.timeout(timeout);
    }
    if let Some(ttl) = query.duration("ttl")? {
        options.session_ttl = ttl;
    }
    options.holder = query.text("holder")?;
    query.end()?;
    options.check()?;
    Ok(options)
}

fn memory(name: &str) -> Result<Target> {
    if name.starts_with("//") {
        return Err(invalid("write mem: or mem:NAME, without slashes"));
    }
    if name.contains('/') {
        return Err(invalid(
            "a namespace in memory is written mem:NAME?namespace=...",
        ));
    }
    if name.contains(is_separator) {
        return Err(invalid(
            "mem: takes one name; percent-encode what separates hosts",
        ));
    }
    let name = text(decoded(name)?, "the name after mem:")?;
    Ok(Target::Memory((!name.is_empty()).then_some(name)))
}

/// What separates hosts, and so cannot stand anywhere else as it is.
pub(super) fn is_separator(c: char) -> bool {
    matches!(c, ',' | ';') || c.is_whitespace()
}

/// The options of an address, each to be taken once by who understands it.
pub(super) struct Query {
    options: Vec<(&'static str, Vec<u8>)>,
    quoting: bool,
}

impl Query {
    fn parse(query: &str, quoting: bool) -> Result<Self> {
        if query.contains(|c| is_separator(c) || c == '?') {
            return Err(invalid(
                "options stand once, after the last host; percent-encode , ; ? and white space in them",
            ));
        }
        let mut parsed = Self {
            options: Vec::new(),
            quoting,
        };
        for option in query.split('&').filter(|_| !query.is_empty()) {
            let Some((name, value)) = option.split_once('=') else {
                return Err(invalid(
                    "an option is written name=value, and & separates options",
                ));
            };
            let Some(name) = OPTIONS.iter().find(|known| **known == name) else {
                let (shown, known) = (parsed.quoted(name), OPTIONS.join(", "));
                let message = format!("unknown option{shown}; the options are {known}");
                return Err(invalid(message));
            };
            if parsed.options.iter().any(|(other, _)| other == name) {
                return Err(invalid(format!("option {name} stands twice: drop one")));
            }
            parsed.options.push((*name, decoded(value)?));
        }
        Ok(parsed)
    }

    /// A space and a part of the address in quotes, for a message; nothing if it may be secret.
    pub(super) fn quoted(&self, part: &str) -> String {
        if self.quoting {
            format!(" {part:?}")
        } else {
            String::new()
        }
    }

    /// Takes an option.
    pub(super) fn bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let found = self.options.iter().position(|(other, _)| *other == name)?;
        Some(self.options.swap_remove(found).1)
    }

    /// Takes an option that is text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>> {
        self.bytes(name)
            .map(|bytes| text(bytes, format_args!("option {name}")))
            .transpose()
    }

    /// Takes an option that is a duration, and not zero.
    pub(super) fn duration(&mut self, name: &str) -> Result<Option<Duration>> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let duration =
            parse_duration(&text).map_err(|error| invalid(format!("option {name}: {error}")))?;
        if duration.is_zero() {
            return Err(invalid(format!("option {name} is zero: leave it out")));
        }
        Ok(Some(duration))
    }

    /// Refuses what nobody took.
    fn end(&self) -> Result<()> {
        match self.options.first() {
            Some((name, _)) => {
                let message = format!("option {name} is for clusters: leave it out with mem:");
                Err(invalid(message))
            }
            None => Ok(()),
        }
    }
}

/// Takes percent-encoding away.
pub(super) fn decoded(encoded: &str) -> Result<Vec<u8>> {
    for (at, _) in encoded.match_indices('%') {
        let digits = encoded.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(invalid(
                "write % as %25, or two hexadecimal digits after it",
            ));
        }
    }
    Ok(percent_decode_str(encoded).collect())
}

/// Bytes as text, of what the message then says.
pub(super) fn text(bytes: Vec<u8>, what: impl fmt::Display) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| {
        invalid(format!(
            "{what} is no UTF-8 text once it is percent-decoded"
        ))
    })
}

const OPTIONS: &[&str] = &[
    "attempt_timeout",
    "ca",
    "cert",
    "connect_timeout",
    "holder",
    "keepalive_interval",
    "keepalive_timeout",
    "key",
    "namespace",
    "password",
    "server_name",
    "timeout",
    "tls",
    "ttl",
    "user",
];
