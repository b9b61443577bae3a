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
    "raftAppliedIndex",
    "raftIndex",
    "raftTerm",
    "raft_term",
    "size",
    "storageVersion",
    "target",
    "took",
    "totalSize",
    "ts",
    "ttl",
];

/// As many hexadecimal digits in a row are an id.
const ID_DIGITS: usize = 12;

pub struct Normal {
    directory: String,
    /// Of the store.
    address: String,
    rough: bool,
}

impl Normal {
    /// `rough` is without all numbers.
    pub fn new(directory: &Path, endpoint: &str, rough: bool) -> Self {
        Self {
            directory: directory.display().to_string(),
            address: endpoint.replace("http://", ""),
            rough,
        }
    }

    pub fn of(&self, text: &str) -> String {
        let text = text.replace(&self.directory, "DIRECTORY");
        // Where etcdctl itself panicked is no matter.
        let text = text.split("\n\ngoroutine ").next().unwrap_or_default();
        let ends = text.ends_with('\n');
        let lines = text.lines().filter(|line| !is_haste(line));
        let lines: Vec<String> = lines.map(|line| self.line(line)).collect();
        let ends = ends && !lines.is_empty();
        lines.join("\n") + if ends { "\n" } else { "" }
    }

    fn line(&self, line: &str) -> String {
        if line.starts_with(['{', '['])
            && let Ok(mut json) = serde_json::from_str::<Value>(line)
        {
            self.strip(&mut json);
            return self.text(&json.to_string());
        }
        if let Some((field, _)) = line.split_once(" : ")
            && OWN.contains(&field.trim_matches('"'))
        {
            return format!("{field} : OWN");
        }
        self.text(line)
    }

    /// Takes the values of all that is each store's own.
    fn strip(&self, json: &mut Value) {
        match json {
            Value::Object(fields) => {
                fields.remove("peerURLs");
                for (name, value) in fields.iter_mut() {
                    match OWN.contains(&name.as_str()) {
                        true => *value = Value::Null,
                        false => self.strip(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.strip(item)),
            Value::Number(_) if self.rough => *json = Value::Null,
            _ => {}
        }
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
        // A member of ours has no peers.
        squeezed(&words.concat().replace("http://PEER", ""))
    }

    fn word(&self, word: &str) -> String {
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        if word.replace("localhost", "127.0.0.1") == self.address {
            return "ADDRESS".to_owned();
        }
        if word.starts_with("127.0.0.1:") {
            return "PEER".to_owned();
        }
        if word.len() >= ID_DIGITS && word.chars().all(is_hex) {
            return "ID".to_owned();
        }
        let unit = word.trim_start_matches(is_number);
        if word.contains('.') && matches!(unit, "s" | "ms" | "µs") && unit.len() < word.len() {
            return "TIME".to_owned();
        }
        if self.rough && matches!(word, "B" | "kB" | "MB") {
            return "BYTES".to_owned();
        }
        // A hash, or a number.
        if self.rough && (5..=8).contains(&word.len()) && word.chars().all(is_hex) {
            return "#".to_owned();
        }
        if self.rough && word.starts_with(|c: char| c.is_ascii_digit()) && unit.is_empty() {
            return "#".to_owned();
        }
        word.to_owned()
    }
}

/// Whether it complains that it was interrupted while it asked for something, as may be or not.
fn is_haste(line: &str) -> bool {
    line.starts_with('{') && line.contains("context canceled")
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
