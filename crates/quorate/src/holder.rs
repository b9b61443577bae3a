//! Who holds a lock, as others are told.

use serde_json::{Value as Json, json};

use crate::Value;

/// Who holds a lock, read off the value of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The name that the holder gave itself.
    pub holder: String,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// When it began to wait, in the form of RFC 3339, by that machine's clock.
    pub since: String,
    /// Whether it is a [`Detached`](crate::Detached) hold, for which the process need not live.
    pub detached: bool,
}

impl Holder {
    /// Reads a lock key's value; `None` if somebody else's tool wrote it.
    pub fn from_value(value: &[u8]) -> Option<Self> {
        let json: Json = serde_json::from_slice(value).ok()?;
        Some(Self {
            holder: json.get("holder")?.as_str()?.to_owned(),
            host: json.get("host")?.as_str()?.to_owned(),
            pid: json.get("pid")?.as_u64()?.try_into().ok()?,
            since: json.get("since")?.as_str()?.to_owned(),
            detached: json
                .get("detached")
                .is_some_and(|detached| detached == true),
        })
    }

    /// This process, under a name or that of its program.
    pub(crate) fn here(name: Option<&String>) -> Self {
        let program = || {
            let path = std::env::current_exe().ok()?;
            Some(path.file_name()?.to_string_lossy().into_owned())
        };
        Self {
            holder: name.cloned().or_else(program).unwrap_or_default(),
            host: hostname(),
            pid: std::process::id(),
            since: jiff::Timestamp::now().to_string(),
            detached: false,
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        let Self {
            holder,
            host,
            pid,
            since,
            detached,
        } = self;
        let mut json = json!({ "holder": holder, "host": host, "pid": pid, "since": since });
        if *detached {
            json["detached"] = json!(true);
        }
        json.to_string().into()
    }
}

#[cfg(unix)]
fn hostname() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(not(unix))]
fn hostname() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_reads_back_and_a_stranger_is_none() {
        let mut here = Holder::here(Some(&"nightly".to_owned()));
        assert_eq!(Holder::from_value(&here.to_value()), Some(here.clone()));
        here.detached = true;
        assert_eq!(Holder::from_value(&here.to_value()), Some(here));
        assert_eq!(Holder::from_value(b""), None);
        assert_eq!(Holder::from_value(b"{\"holder\":7}"), None);
    }
}
