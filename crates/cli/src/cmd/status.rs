//! `status`: how members are.

use std::process::ExitCode;

use futures_util::future::join_all;
use quorate::{Client, backend};
use serde_json::Value as Json;

use crate::{args, failure::Failure, output::Output};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: &args::Status,
) -> Result<ExitCode, Failure> {
    if !args.all {
        let status = client.status().await?;
        print(out, None, &status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let members = client.members().await?;
    // A member that has not started has no URL, and nothing to say.
    let urls = members
        .into_iter()
        .filter_map(|member| member.client_urls.into_iter().next());
    let asked = urls.map(|url| async move { (client.status_of(&url).await, url) });
    let mut code = ExitCode::SUCCESS;
    for (status, url) in join_all(asked).await {
        match status {
            Ok(status) => print(out, Some(&url), &status)?,
            Err(error) => code = Failure::Store(error).report(&[url]),
        }
    }
    Ok(code)
}

/// Prints a member's status: as text one line a field.
fn print(out: &mut Output, url: Option<&str>, status: &backend::Status) -> Result<(), Failure> {
    let hex = |id: u64| Json::from(format!("{id:x}"));
    let mut fields: Vec<(&str, Json)> = Vec::new();
    if let Some(url) = url {
        fields.push(("endpoint", url.into()));
    }
    let leader = (status.leader != 0).then(|| format!("{:x}", status.leader));
    fields.extend([
        ("member", hex(status.header.member_id)),
        ("cluster", hex(status.header.cluster_id)),
        ("version", status.version.as_str().into()),
        ("leader", leader.into()),
        (
            "is_leader",
            (status.leader == status.header.member_id).into(),
        ),
        ("is_learner", status.is_learner.into()),
        ("revision", status.header.revision.0.into()),
        ("raft_term", status.raft_term.into()),
        ("raft_index", status.raft_index.into()),
        ("raft_applied_index", status.raft_applied_index.into()),
        ("db_size", status.db_size.into()),
        ("db_size_in_use", status.db_size_in_use.into()),
        ("errors", status.errors.join("; ").into()),
    ]);
    for (name, value) in &fields {
        let text = match value {
            Json::Null => String::new(),
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.text_only(&[name.as_bytes(), text.as_bytes()])?;
    }
    out.json_only(|| {
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    })
}
