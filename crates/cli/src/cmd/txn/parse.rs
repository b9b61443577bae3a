//! The text form of a transaction.

use quorate::{
    Compare, CompareOp, CompareTarget, Delete, KeyRange, LeaseId, Op, Put, Range, Result, Revision,
    Txn,
};

use crate::{args::lease_id, failure::invalid};

/// Reads conditions, operations for when they hold, and operations for when they do not, with empty
/// lines between the three.
pub(crate) fn parse(text: &[u8]) -> Result<Txn> {
    let mut txn = Txn::new();
    let mut part = 0;
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        match line.first() {
            None => {
                part += 1;
                continue;
            }
            Some(b'#') => continue,
            Some(_) => {}
        }
        let refused = |message: String| invalid(format!("line {}: {message}", index + 1));
        let tokens = tokens(line, part == 0).map_err(refused)?;
        match part {
            0 => txn.compares.push(compare(&tokens).map_err(refused)?),
            1 => txn.success.push(op(&tokens).map_err(refused)?),
            2 => txn.failure.push(op(&tokens).map_err(refused)?),
            _ => {
                let message =
                    "there are three parts, and this is a fourth: an empty line ends a part";
                return Err(refused(message.to_owned()));
            }
        }
    }
    Ok(txn)
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// `(`, `)` or a sign of comparison.
    Mark(&'static str),
    /// Something in quotes, which is never a keyword.
    Quoted(Vec<u8>),
    Word(Vec<u8>),
}

impl Token {
    /// The bytes that it stands for, unless it is a mark.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Mark(_) => None,
            Self::Quoted(bytes) | Self::Word(bytes) => Some(bytes),
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(bytes) if bytes == word.as_bytes())
    }
}

/// Reads a condition: `TARGET(KEY) SIGN VALUE`.
fn compare(tokens: &[Token]) -> Result<Compare, String> {
    let usage = || "a condition is written like value(\"k\") = \"v\" or mod(\"k\") > 7".to_owned();
    let [
        Token::Word(target),
        Token::Mark("("),
        key @ ..,
        Token::Mark(")"),
        Token::Mark(sign),
        value,
    ] = tokens
    else {
        return Err(usage());
    };
    let keys = keys(key).ok_or_else(usage)?;
    let value = value.bytes().ok_or_else(usage)?;
    let op = match *sign {
        "=" => CompareOp::Equal,
        "!=" => CompareOp::NotEqual,
        ">" => CompareOp::Greater,
        "<" => CompareOp::Less,
        _ => return Err(usage()),
    };
    let target = match target.as_slice() {
        b"value" | b"val" => CompareTarget::Value(value.into()),
        b"version" | b"ver" => CompareTarget::Version(number(value)?),
        b"create" | b"c" => CompareTarget::CreateRevision(Revision(number(value)?)),
        b"mod" | b"m" => CompareTarget::ModRevision(Revision(number(value)?)),
        b"lease" => CompareTarget::Lease(lease(value)?),
        other => {
            let other = other.escape_ascii();
            return Err(format!(
                "{other} cannot be compared: write value, version, create, mod or lease"
            ));
        }
    };
    Ok(Compare { keys, op, target })
}

/// Reads an operation: `put KEY VALUE`, `get KEY` or `del KEY`.
fn op(tokens: &[Token]) -> Result<Op, String> {
    let (verb, rest) = tokens.split_first().ok_or("an operation is missing")?;
    if verb.is_word("put") {
        return put(rest);
    }
    let (range, usage) = if verb.is_word("get") {
        (true, "get is written get KEY, or get KEY --prefix")
    } else if verb.is_word("del") || verb.is_word("delete") {
        (false, "del is written del KEY, or del KEY --prefix")
    } else {
        return Err("an operation begins with put, get or del".to_owned());
    };
    let keys = keys(rest).ok_or(usage)?;
    Ok(if range {
        Range::new(keys).into()
    } else {
        Delete::new(keys).into()
    })
}

fn put(rest: &[Token]) -> Result<Op, String> {
    let mut lease = None;
    let mut words = Vec::new();
    for token in rest {
        match token {
            Token::Word(word) if word.starts_with(b"--lease=") => {
                lease = self::lease(&word[b"--lease=".len()..])?;
            }
            Token::Word(word) if word.starts_with(b"--") => {
                let word = word.escape_ascii();
                return Err(format!(
                    "put has no option {word}; quote it if it is meant as it is"
                ));
            }
            other => words.push(other.bytes()),
        }
    }
    let [Some(key), Some(value)] = words[..] else {
        return Err("put is written put KEY VALUE, or put --lease=ID KEY VALUE".to_owned());
    };
    let mut put = Put::new(key, value);
    put.lease = lease;
    Ok(put.into())
}

/// A key, or with `--prefix` beside it all that begin with it.
fn keys(tokens: &[Token]) -> Option<KeyRange> {
    let (key, prefix) = match tokens {
        [key] => (key, false),
        [key, option] | [option, key] if option.is_word("--prefix") => (key, true),
        _ => return None,
    };
    // It may be an option that is none.
    if matches!(key, Token::Word(word) if word.starts_with(b"--")) {
        return None;
    }
    let key = key.bytes()?;
    Some(if prefix {
        KeyRange::prefix(key)
    } else {
        KeyRange::key(key)
    })
}

fn number(text: &[u8]) -> Result<i64, String> {
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{} is no number", text.escape_ascii()))
}

/// A lease; zero for none.
fn lease(text: &[u8]) -> Result<Option<LeaseId>, String> {
    let text = String::from_utf8_lossy(text);
    if text == "0" {
        return Ok(None);
    }
    lease_id(&text).map(Some).map_err(|error| error.to_string())
}

/// Takes a line apart; marks are there in conditions alone.
fn tokens(line: &[u8], marks: bool) -> Result<Vec<Token>, String> {
    let marks = if marks { MARKS } else { &[] };
    let mark = |text: &[u8]| marks.iter().find(|mark| text.starts_with(mark.as_bytes()));
    let is_apart =
        |text: &[u8]| text.first().is_none_or(u8::is_ascii_whitespace) || mark(text).is_some();
    let mut tokens = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(&first) = rest.first() {
        if let Some(mark) = mark(rest) {
            tokens.push(Token::Mark(mark));
            rest = &rest[mark.len()..];
        } else if first == b'"' {
            let (bytes, after) = quoted(&rest[1..])?;
            if !is_apart(after) {
                return Err("after a closing quote comes a space".to_owned());
            }
            tokens.push(Token::Quoted(bytes));
            rest = after;
        } else {
            let end = (1..rest.len()).find(|&end| is_apart(&rest[end..]));
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            if word.contains(&b'"') {
                return Err("a quote begins with the word: write \"a b\", not a\" b\"".to_owned());
            }
            tokens.push(Token::Word(word.to_vec()));
            rest = after;
        }
        rest = rest.trim_ascii_start();
    }
    Ok(tokens)
}

const MARKS: &[&str] = &["!=", "(", ")", "=", "<", ">"];

/// Reads on from an opening quote, and returns what is quoted and what comes after it.
fn quoted(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut bytes = Vec::new();
    loop {
        match rest {
            [] => return Err("a quote is not closed".to_owned()),
            [b'"', after @ ..] => return Ok((bytes, after)),
            [b'\\', b'x', high, low, after @ ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok();
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                bytes.push(byte.ok_or("after \\x come two hexadecimal digits")?);
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                bytes.push(match escaped {
                    b'"' | b'\\' => *escaped,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    _ => return Err("a backslash is written \\\\ in quotes".to_owned()),
                });
                rest = after;
            }
            [byte, after @ ..] => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_conditions_and_operations_is_read() {
        let text = br#"
# only while nobody else bought
value("stock") > "0"
val(stock)!="none"
mod("stock") = 17
c(stock) < "9"
version("k/" --prefix)=0
lease(k) = 694d71ddacfda227
lease(k) = 0

put stock "sold \"out\"\x00\n"
put --lease=2a buyer me=(you)
get stock
delete reserved/ --prefix

get "--prefix"
"#;
        let txn = parse(text.trim_ascii_start()).unwrap();
        let expected = Txn::new()
            .when(Compare::value("stock").gt("0"))
            .when(Compare::value("stock").ne("none"))
            .when(Compare::mod_revision("stock").eq(Revision(17)))
            .when(Compare::create_revision("stock").lt(Revision(9)))
            .when(Compare::version(KeyRange::prefix("k/")).eq(0))
            .when(Compare::lease("k").eq(LeaseId(0x694d_71dd_acfd_a227)))
            .when(Compare::lease("k").eq(None))
            .then(Op::put("stock", b"sold \"out\"\0\n"))
            .then(Put::new("buyer", "me=(you)").lease(LeaseId(42)))
            .then(Op::range("stock"))
            .then(Op::delete(KeyRange::prefix("reserved/")))
            .or_else(Op::range("--prefix"));
        assert_eq!(txn, expected);
    }

    #[test]
    fn parts_may_be_empty_or_missing() {
        assert_eq!(parse(b"").unwrap(), Txn::new());
        assert_eq!(
            parse(b"\nput k v").unwrap(),
            Txn::new().then(Op::put("k", "v"))
        );
        assert_eq!(
            parse(b"\n\r\nget k\r\n\n\n").unwrap(),
            Txn::new().or_else(Op::range("k"))
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_line() {
        for (text, why) in [
            ("put k v", "line 1: a condition is written"),
            ("value(k) == v", "line 1: a condition is written"),
            ("value(k) = (", "line 1: a condition is written"),
            ("color(k) = v", "line 1: color cannot be compared"),
            ("mod(k) = many", "line 1: many is no number"),
            (
                "lease(k) = wood",
                "line 1: a lease is written in hexadecimal",
            ),
            (
                "# comment\n\nmove a b",
                "line 3: an operation begins with put, get or del",
            ),
            ("\nput k", "line 2: put is written"),
            ("\nput k v w", "line 2: put is written"),
            ("\nput k v --ttl=3", "line 2: put has no option --ttl=3"),
            ("\nget --all", "line 2: get is written"),
            ("\nget --prefix", "line 2: get is written"),
            ("\ndel a b", "line 2: del is written"),
            ("\nput k \"v", "line 2: a quote is not closed"),
            ("\nput a\"b c\"", "line 2: a quote begins with the word"),
            (
                "\nput \"a\"b",
                "line 2: after a closing quote comes a space",
            ),
            ("\nput k \"\\q\"", "line 2: a backslash is written"),
            ("\nput k \"\\xg0\"", "line 2: after \\x come two"),
            ("\n\n\nget k", "line 4: there are three parts"),
        ] {
            let error = parse(text.as_bytes()).expect_err(text).to_string();
            assert!(error.starts_with(why), "{text:?}: {error}");
        }
    }
}
