//! `services`, `discover`: who is there.

use std::{process::ExitCode, sync::Arc, time::Duration};

use quorate::{Change, Client, Instance, Instances, Layout, Service};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep_until};

use crate::{
    args,
    failure::{Failure, NO, complain},
    output::Output,
};

/// How long a watch may be cut off before people are told; another server is reached sooner when only
/// one ends.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn list(client: &Client, out: &mut Output) -> Result<ExitCode, Failure> {
    for (name, instances) in client.services().await? {
        let count = instances.to_string();
        out.result(
            &[name.as_bytes(), count.as_bytes()],
            || json!({ "service": name, "instances": instances }),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn discover(
    client: &Client,
    out: &mut Output,
    args: args::Discover,
) -> Result<ExitCode, Failure> {
    let service = service(client, &args.service);
    // A tracker waits for as long as no server answers; this tells so.
    let now = service.instances().await?;
    if args.watch {
        return watch(&service, out).await;
    }
    complain_of_malformed(&now);
    for (id, instance) in now.iter() {
        print(out, None, id, Some(instance))?;
    }
    Ok(if now.is_empty() {
        ExitCode::from(NO)
    } else {
        ExitCode::SUCCESS
    })
}

async fn watch(service: &Service, out: &mut Output) -> Result<ExitCode, Failure> {
    let mut tracker = service.track().await?;
    let now = tracker.snapshot();
    complain_of_malformed(&now);
    for (id, instance) in now.iter() {
        print(out, Some("joined"), id, Some(instance))?;
    }
    out.flush()?;
    let (reader, mut stale) = (tracker.clone(), false);
    // When to tell that it is stale, and whether that was told.
    let (mut due, mut told) = (None, false);
    loop {
        tokio::select! {
            biased;
            changed = reader.stale_changed(stale) => {
                stale = changed?;
                due = stale.then(|| Instant::now() + PATIENCE);
                if !stale && told {
                    told = false;
                    complain("what was printed is up to date again");
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                (due, told) = (None, true);
                complain("cut off or behind: what was printed may be out of date");
            }
            change = tracker.next() => {
                match change? {
                    Change::Joined(id, instance) => print(out, Some("joined"), &id, Some(&instance)),
                    Change::Left(id) => print(out, Some("left"), &id, None),
                    Change::Updated(id, instance) => {
                        print(out, Some("updated"), &id, Some(&instance))
                    }
                }?;
                // A reader should see a change when it happens.
                out.flush()?;
            }
        }
    }
}

fn print(
    out: &mut Output,
    change: Option<&str>,
    id: &str,
    instance: Option<&Arc<Instance>>,
) -> Result<(), Failure> {
    let weight = instance.map(|instance| instance.weight.to_string());
    let mut text = Vec::new();
    text.extend(change);
    text.push(id);
    if let (Some(instance), Some(weight)) = (instance, &weight) {
        let draining = if instance.draining { "draining" } else { "" };
        text.extend([
            &instance.address,
            weight,
            draining,
            instance.metadata_text(),
        ]);
    }
    let text: Vec<_> = text.into_iter().map(str::as_bytes).collect();
    out.result(&text, || {
        let mut json = match instance {
            Some(instance) => object(instance),
            None => json!({}),
        };
        json["id"] = id.into();
        if let Some(change) = change {
            json["type"] = change.into();
        }
        json
    })
}

fn object(instance: &Instance) -> Json {
    let metadata = serde_json::from_str(instance.metadata_text()).unwrap_or_default();
    let metadata: Json = metadata;
    json!({
        "address": instance.address,
        "weight": instance.weight,
        "draining": instance.draining,
        "metadata": metadata,
    })
}

fn complain_of_malformed(instances: &Instances) {
    for (key, why) in instances.malformed() {
        complain(&format!("{key} is no instance: {why}"));
    }
}

/// The service that was named.
pub(crate) fn service(client: &Client, args: &args::Service) -> Service {
    client.service(&args.name).layout(match args.layout {
        args::Layout::Grpc => Layout::Grpc,
        args::Layout::Quorate => Layout::Quorate,
        args::Layout::Raw => Layout::Raw,
    })
}
