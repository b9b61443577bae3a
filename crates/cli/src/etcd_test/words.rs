//! The words of the command line, read as `getopt_long` reads them: options anywhere, their values in
//! the same word or the next, long ones by any beginning that is no other's.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    time::Duration,
};

use quorate::Revision;

/// What was typed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) index: Option<OsString>,
    pub(crate) precond: Option<OsString>,
    pub(crate) servers: Option<OsString>,
    pub(crate) ttl: Option<OsString>,
    /// The verb, and what it is about.
    pub(crate) operands: Vec<OsString>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Delete {
        key: OsString,
    },
    Get {
        key: OsString,
    },
    Leader,
    Lock {
        key: OsString,
        ttl: Duration,
        index: Option<OsString>,
    },
    Set {
        key: OsString,
        value: OsString,
        precond: Option<OsString>,
        /// Zero for ever.
        ttl: Duration,
    },
    Unlock {
        key: OsString,
        index: OsString,
    },
    Watch {
        key: OsString,
        index: Option<Revision>,
    },
}

const OPTIONS: [&str; 4] = ["index", "precond", "servers", "ttl"];

impl Words {
    /// Parts options from operands; with `posix` no option stands behind an operand. An error is a
    /// message.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        posix: bool,
    ) -> Result<Self, String> {
        let mut words = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(word) = arguments.next() {
            let bytes = word.as_bytes();
            let (name, value) = match bytes {
                b"--" => {
                    words.operands.extend(arguments);
                    break;
                }
                [b'-', b'-', long @ ..] => {
                    let (long, value) = match long.iter().position(|byte| *byte == b'=') {
                        Some(at) => (&long[..at], Some(&long[at + 1..])),
                        None => (long, None),
                    };
                    (option(long, "--")?, value)
                }
                [b'-', short, rest @ ..] => {
                    let name = OPTIONS.iter().find(|name| name.as_bytes()[0] == *short);
                    let Some(name) = name else {
                        return Err(format!("there is no option -{}", [*short].escape_ascii()));
                    };
                    (*name, (!rest.is_empty()).then_some(rest))
                }
                _ => {
                    words.operands.push(word);
                    if posix {
                        words.operands.extend(arguments);
                        break;
                    }
                    continue;
                }
            };
            let value = match value {
                Some(value) => OsString::from_vec(value.to_vec()),
                None => arguments
                    .next()
                    .ok_or_else(|| format!("option --{name} needs a value"))?,
            };
            *words.place(name) = Some(value);
        }
        Ok(words)
    }

    /// What is to be done. An error is a message.
    pub(crate) fn verb(self) -> Result<Verb, String> {
        let given = [&self.index, &self.precond, &self.ttl].map(Option::is_some);
        let mut operands = self.operands.into_iter();
        let verb = operands.next().unwrap_or_default();
        let verb = verb.to_string_lossy().to_ascii_lowercase();
        // How many operands it has, and which of the options are for it: index, precond, ttl.
        let (arity, known) = match &*verb {
            "delete" | "get" => (1, [false, false, false]),
            "leader" => (0, [false, false, false]),
            "lock" => (1, [true, false, true]),
            "set" => (2, [false, true, true]),
            "unlock" => (1, [true, false, false]),
            "watch" => (1, [true, false, false]),
            _ => return Err(format!("there is no command {verb}")),
        };
        let operands: Vec<_> = operands.collect();
        if operands.len() != arity {
            return Err(format!("{verb} takes other words"));
        }
        if given
            .iter()
            .zip(known)
            .any(|(given, known)| *given && !known)
        {
            return Err(format!("{verb} takes other options"));
        }
        let mut operands = operands.into_iter();
        let mut operand = || operands.next().unwrap_or_default();
        Ok(match &*verb {
            "delete" => Verb::Delete { key: operand() },
            "get" => Verb::Get { key: operand() },
            "leader" => Verb::Leader,
            "lock" => Verb::Lock {
                key: operand(),
                ttl: seconds(&self.ttl.ok_or("lock needs a ttl")?)?,
                index: self.index,
            },
            "set" => Verb::Set {
                key: operand(),
                value: operand(),
                precond: self.precond,
                ttl: self.ttl.map_or(Ok(Duration::ZERO), |ttl| seconds(&ttl))?,
            },
            "unlock" => Verb::Unlock {
                key: operand(),
                index: self.index.ok_or("unlock needs an index")?,
            },
            _ => Verb::Watch {
                key: operand(),
                index: self.index.map(|index| revision(&index)).transpose()?,
            },
        })
    }

    fn place(&mut self, name: &str) -> &mut Option<OsString> {
        match name {
            "index" => &mut self.index,
            "precond" => &mut self.precond,
            "servers" => &mut self.servers,
            _ => &mut self.ttl,
        }
    }
}

/// The long option that begins so.
fn option(long: &[u8], dashes: &str) -> Result<&'static str, String> {
    let mut found = OPTIONS
        .iter()
        .filter(|name| !long.is_empty() && name.as_bytes().starts_with(long));
    match (found.next(), found.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(format!(
            "there is no option {dashes}{}",
            long.escape_ascii()
        )),
    }
}

fn seconds(ttl: &OsStr) -> Result<Duration, String> {
    let seconds = ttl.to_str().and_then(|ttl| ttl.parse().ok());
    let message = || format!("a ttl is a number of seconds, not {}", ttl.display());
    seconds.map(Duration::from_secs).ok_or_else(message)
}

fn revision(index: &OsStr) -> Result<Revision, String> {
    let number = index.to_str().and_then(|index| index.parse().ok());
    let message = || format!("an index is a number, not {}", index.display());
    number.map(Revision).ok_or_else(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Words, String> {
        Words::parse(line.split(' ').map(OsString::from), false)
    }

    fn verb(line: &str) -> Result<Verb, String> {
        parsed(line)?.verb()
    }

    #[test]
    fn options_stand_anywhere_and_their_values_in_the_same_word_or_the_next() {
        let expected = verb("lock -t 5 -i 7 key").unwrap();
        for line in [
            "-t5 -i7 lock key",
            "lock key -t 5 -i 7",
            "lock --ttl=5 key --index 7",
            "--tt 5 --in=7 lock key",
            "lock -t 9 -t 5 -i7 -- key",
            "LOCK key -t5 -i7",
        ] {
            assert_eq!(verb(line).as_ref(), Ok(&expected), "{line}");
        }
        let words = parsed("-s h:1,h:2 get -- -s").unwrap();
        assert_eq!(words.servers.as_deref(), Some(OsStr::new("h:1,h:2")));
        assert_eq!(words.operands, ["get", "-s"]);
        assert_eq!(parsed("get -").unwrap().operands, ["get", "-"]);
        assert_eq!(parsed("-i -- get").unwrap().index, Some("--".into()));
        let posix = Words::parse(["get", "-s", "h"].map(OsString::from), true).unwrap();
        assert_eq!(posix.operands, ["get", "-s", "h"]);
    }

    #[test]
    fn a_wrong_call_is_refused() {
        for line in [
            "",
            "put key",
            "get",
            "get a b",
            "get -t 5 key",
            "get -p x key",
            "get -i 1 key",
            "set key",
            "set -i 1 key value",
            "set -t soon key value",
            "set -t -5 key value",
            "delete",
            "delete -t 1 key",
            "watch",
            "watch -t 1 key",
            "watch -i x key",
            "leader key",
            "leader -i 1",
            "lock key",
            "lock -t 5",
            "lock -p x -t 5 key",
            "unlock key",
            "unlock -t 5 -i 1 key",
            "-x get key",
            "--unknown get key",
            "--=x get key",
            "get key -i",
        ] {
            assert!(verb(line).is_err(), "{line}");
        }
    }
}
