//! `lease`: leases by hand.

use std::{process::ExitCode, time::Duration};

use futures_util::StreamExt;
use quorate::{
    Client, Error, ErrorKind, LeaseId, Result,
    backend::{Beat, BeatStream},
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    args::Lease,
    failure::{Failure, NO, complain},
    output::{Output, bytes},
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    verb: Lease,
) -> Result<ExitCode, Failure> {
    match verb {
        Lease::Grant { ttl } => {
            let granted = client.grant_lease(ttl).await?;
            let id = granted.id.to_string();
            out.result(
                &[id.as_bytes()],
                || json!({ "lease": id, "ttl": granted.ttl.as_secs() }),
            )?;
        }
        Lease::KeepAlive { id, once } => keep_alive(client, out, id, once).await?,
        Lease::List => {
            for id in client.leases().await? {
                let id = id.to_string();
                out.result(&[id.as_bytes()], || json!({ "lease": id }))?;
            }
        }
        Lease::Revoke { id } => {
            let revision = client.revoke_lease(id).await?;
            out.json_only(|| json!({ "lease": id.to_string(), "revision": revision.0 }))?;
        }
        Lease::Status { id } => return status(client, out, id).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(client: &Client, out: &mut Output, id: LeaseId) -> Result<ExitCode, Failure> {
    let status = client.lease_status(id).await?;
    let Some(remaining) = status.remaining else {
        return Ok(ExitCode::from(NO));
    };
    let (granted, remaining) = (status.granted.as_secs(), remaining.as_secs());
    out.text_only(&[b"granted", granted.to_string().as_bytes()])?;
    out.text_only(&[b"remaining", remaining.to_string().as_bytes()])?;
    for key in &status.keys {
        out.text_only(&[b"key", key])?;
    }
    out.json_only(|| {
        let keys: Vec<_> = status.keys.iter().map(|key| bytes(key)).collect();
        json!({
            "lease": id.to_string(),
            "granted": granted,
            "remaining": remaining,
            "keys": keys,
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Renews a lease three times in its time to live; through what may pass by itself until its end is
/// near for certain.
async fn keep_alive(
    client: &Client,
    out: &mut Output,
    id: LeaseId,
    once: bool,
) -> Result<(), Failure> {
    let mut stream = client.backend().keep_alive().await?;
    let mut ttl = beat(&mut *stream, id).await?;
    loop {
        let renewed = Instant::now();
        out.result(
            &[ttl.as_secs().to_string().as_bytes()],
            || json!({ "lease": id.to_string(), "ttl": ttl.as_secs() }),
        )?;
        out.flush()?;
        if once {
            return Ok(());
        }
        let mut pause = ttl / 3;
        ttl = loop {
            sleep(pause).await;
            match again(client, &mut stream, id).await {
                Ok(ttl) => break ttl,
                Err(error) if error.is_retryable() && renewed.elapsed() < ttl => {
                    complain(&error.to_string());
                    pause = RETRY;
                }
                Err(error) => return Err(error.into()),
            }
        };
    }
}

/// One beat, on a new stream if the old one broke.
async fn again(client: &Client, stream: &mut Box<dyn BeatStream>, id: LeaseId) -> Result<Duration> {
    let first = beat(&mut **stream, id).await;
    if !first.as_ref().is_err_and(Error::is_retryable) {
        return first;
    }
    stream.distrust();
    *stream = client.backend().keep_alive().await?;
    beat(&mut **stream, id).await
}

/// Sends one beat and awaits its answer.
async fn beat(stream: &mut dyn BeatStream, id: LeaseId) -> Result<Duration> {
    stream.send(id)?;
    match timeout(PATIENCE, stream.next()).await {
        Ok(Some(Ok(Beat { ttl, .. }))) if ttl.is_zero() => Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no lease {id}"),
        )),
        Ok(Some(answer)) => answer.map(|beat| beat.ttl),
        Ok(None) => Err(Error::new(
            ErrorKind::Unavailable,
            "the stream of beats ended",
        )),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!("no answer to a beat in {PATIENCE:?}"),
        )),
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

/// The pause after a beat that may succeed later.
const RETRY: Duration = Duration::from_millis(500);
