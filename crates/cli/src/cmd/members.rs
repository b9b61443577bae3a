//! `members`: who makes up the cluster.

use std::process::ExitCode;

use quorate::{Client, backend::Member};
use serde_json::{Value as Json, json};

use crate::{failure::Failure, output::Output};

pub(crate) async fn run(client: &Client, out: &mut Output) -> Result<ExitCode, Failure> {
    for member in client.members().await? {
        let kind = if member.is_learner {
            "learner"
        } else {
            "voter"
        };
        out.result(
            &[
                format!("{:x}", member.id).as_bytes(),
                member.name.as_bytes(),
                member.client_urls.join(",").as_bytes(),
                member.peer_urls.join(",").as_bytes(),
                kind.as_bytes(),
            ],
            || json(&member),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A member; its id in hexadecimal digits, as JSON's numbers are too short.
pub(super) fn json(member: &Member) -> Json {
    json!({
        "id": format!("{:x}", member.id),
        "name": member.name,
        "client_urls": member.client_urls,
        "peer_urls": member.peer_urls,
        "is_learner": member.is_learner,
    })
}
