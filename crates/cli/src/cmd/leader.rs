//! `leader`: who leads the cluster, or an election.

use std::{os::unix::ffi::OsStringExt, process::ExitCode, time::Duration};

use futures_util::TryStreamExt;
use quorate::{Client, Key, Leader, backend::Member};
use serde_json::{Value as Json, json};

use super::members;
use crate::{
    args,
    failure::{Failure, NO},
    output::{Output, bytes, lease},
};

/// How often the cluster's leader is looked at: no server tells of a change.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: args::Leader,
) -> Result<ExitCode, Failure> {
    let Some(name) = args.name.map(|name| Key::from(name.into_vec())) else {
        return of_cluster(client, out, args.watch).await;
    };
    let election = client.election(name);
    // Following waits for as long as no server answers; a read tells so.
    let leader = election.leader().await?;
    if !args.watch {
        let Some(leader) = leader else {
            return Ok(ExitCode::from(NO));
        };
        print_elected(out, Some(&leader))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut leaders = election.observe();
    while let Some(leader) = leaders.try_next().await? {
        print_elected(out, leader.as_ref())?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn of_cluster(client: &Client, out: &mut Output, watch: bool) -> Result<ExitCode, Failure> {
    let mut leader = client.cluster_leader().await?;
    if !watch {
        if leader.is_none() {
            return Ok(ExitCode::from(NO));
        }
        print_member(out, leader.as_ref())?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        print_member(out, leader.as_ref())?;
        out.flush()?;
        let before = leader;
        leader = loop {
            tokio::time::sleep(INTERVAL).await;
            let now = match client.cluster_leader().await {
                Ok(now) => now,
                // As good as nobody: without a leader members are slow to answer, or do not.
                Err(error) if error.is_retryable() => None,
                Err(error) => return Err(error.into()),
            };
            if now != before {
                break now;
            }
        };
    }
}

/// The leader's value; an empty line for nobody.
fn print_elected(out: &mut Output, leader: Option<&Leader>) -> Result<(), Failure> {
    let value: &[u8] = leader.map_or(b"", |leader| &leader.value);
    out.result(&[value], || match leader {
        Some(leader) => json!({
            "leader": bytes(&leader.value),
            "key": bytes(&leader.key),
            "token": leader.token.0,
            "lease": lease(leader.lease),
        }),
        None => json!({ "leader": null }),
    })
}

fn print_member(out: &mut Output, leader: Option<&Member>) -> Result<(), Failure> {
    match leader {
        Some(member) => out.result(
            &[
                member.name.as_bytes(),
                member.client_urls.join(",").as_bytes(),
            ],
            || json!({ "leader": members::json(member) }),
        ),
        None => out.result(&[], || json!({ "leader": Json::Null })),
    }
}
