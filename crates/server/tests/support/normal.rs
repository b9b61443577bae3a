//! What etcdctl prints, without what differs from one store to the next: ids, times, sizes, addresses,
//! and how the store and its member are called.

use std::path::Path;

use serde_json::Value;

/// Fields whose values are each store's own.
const OWN: &[&str] = &[
    "ClusterID",
    "DBSize",
    "ID",
    "Leader",
    "MemberID",
    "RaftAppliedIndex",
    "RaftIndex",
    "RaftTerm",
    "StorageVersion",
    "TTL",
    "Took",
    "Version",
    "clientURLs",
    "cluster_id",
    "dbSize",
    "dbSizeInUse",
    "id",
    "leader",
    "member_id",
    "name",
    "peerURLs",
    "raftAppliedIndex",
    "raftIndex",
    "raftTerm",
    "raft_term",
    "storageVersion",
    "target",
    "took",
    "totalSize",
    "ts",
    "ttl",
    "version_of_store",
];

/// As many hexadecimal digits in a row are an id.
const ID_DIGITS: usize = 10;

pub struct Normal {
    directory: String,
    rough: bool,
}

impl Normal {
    /// `rough` is without all numbers.
    pub fn new(directory: &Path, rough: bool) -> Self {
        let directory = directory.display().to_string();
        Self { directory, rough }
    }

    pub fn of(&self, text: &str) -> String {
        let text = text.replace(&self.directory, "DIRECTORY");
        let ends = text.ends_with('\n');
        let lines: Vec<String> = text.lines().map(|line| self.line(line)).collect();
        lines.join("\n") + if ends { "\n" } else { "" }
    }

    fn line(&self, line: &str) -> String {
        if line.starts_with(['{', '['])
            && let Ok(mut json) = serde_json::from_str::<Value>(line)
        {
            strip(&mut json);
            return self.text(&json.to_string());
        }
        if let Some((field, _)) = line.split_once(" : ")
            && OWN.contains(&field.trim_matches('"'))
        {
            return format!("{field} : OWN");
        }
        self.text(line)
    }

    fn text(&self, line: &str) -> String {
        let mut words = Vec::new();
        let mut rest = line;
        while let Some(letter) = rest.chars().next() {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | 'µ');
            let length = match is_part(letter) {
                true => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
                false => letter.len_utf8(),
            };
            let (word, after) = rest.split_at(length);
            words.push(self.word(word));
            rest = after;
        }
        squeezed(&words.concat())
    }

    fn word(&self, word: &str) -> String {
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        if word.starts_with("127.0.0.1:") {
            return "ADDRESS".to_owned();
        }
        if word.len() >= ID_DIGITS && word.chars().all(is_hex) {
            return "ID".to_owned();
        }
        let unit = word.trim_start_matches(is_number);
        if word.contains('.') && matches!(unit, "s" | "ms" | "µs") && unit.len() < word.len() {
            return "TIME".to_owned();
        }
        if self.rough && word.starts_with(|c: char| c.is_ascii_digit()) && unit.is_empty() {
            return "#".to_owned();
        }
        word.to_owned()
    }
}

/// Takes the values of all that is each store's own.
fn strip(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match OWN.contains(&name.as_str()) {
                    true => *value = Value::Null,
                    false => strip(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Without the widths of columns, and the places after which time remains.
fn squeezed(line: &str) -> String {
    let mut squeezed = String::with_capacity(line.len());
    for letter in line.chars() {
        let again = matches!(letter, ' ' | '-' | '─') && squeezed.ends_with(letter);
        if !again {
            squeezed.push(letter);
        }
    }
    match squeezed.split_once("remaining(") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}remaining({after}")
        }
        None => squeezed,
    }
}
