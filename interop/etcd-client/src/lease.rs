//! Leases: grants, keys, beats, revocation and expiry.

use etcd_client::{
    Client, LeaseGrantOptions, LeaseTimeToLiveOptions, LeaseTimeToLiveResponse, PutOptions,
    WatchOptions,
};

use crate::{
    Result,
    transcript::{tell, tell_events},
};

/// Longer than any election timeout, which is what a real etcd raises shorter ones to.
const SHORT: i64 = 3;

pub async fn run(client: &mut Client) -> Result {
    let with_id = |id| Some(LeaseGrantOptions::new().with_id(id));
    tell("grant", client.lease_grant(600, with_id(0x7001)).await);
    tell(
        "grant again",
        client.lease_grant(600, with_id(0x7001)).await,
    );
    tell(
        "grant too long",
        client.lease_grant(9_000_000_001, with_id(0x7002)).await,
    );
    for key in ["l/2", "l/1"] {
        let options = PutOptions::new().with_lease(0x7001).with_prev_key();
        tell("put under it", client.put(key, "v", Some(options)).await);
    }
    tell_left(client, 0x7001).await?;
    tell_left(client, 0x7fff).await?;
    tell("leases", client.leases().await);

    let (mut keeper, mut beats) = client.lease_keep_alive(0x7001).await?;
    keeper.keep_alive().await?;
    tell("a beat", beats.message().await);
    match client.lease_keep_alive(0x7fff).await {
        Ok((mut keeper, mut beats)) => {
            keeper.keep_alive().await?;
            tell("a beat for no lease", beats.message().await);
        }
        Err(error) => println!("a beat for no lease: {error}"),
    }

    tell("revoke", client.lease_revoke(0x7001).await);
    tell("revoke again", client.lease_revoke(0x7001).await);
    tell("its keys", client.get("l/1", None).await);
    expire(client).await
}

async fn expire(client: &mut Client) -> Result {
    let id = LeaseGrantOptions::new().with_id(0x7003);
    tell("a short grant", client.lease_grant(SHORT, Some(id)).await);
    let options = PutOptions::new().with_lease(0x7003);
    tell("put", client.put("l/short", "v", Some(options)).await);
    let watch = WatchOptions::new().with_prev_key();
    let mut stream = client.watch("l/short", Some(watch)).await?;
    tell_events("expiry", &mut stream, 2).await?;
    tell("leases", client.leases().await);
    Ok(())
}

/// What is left of a lease, but for how many seconds these are.
async fn tell_left(client: &mut Client, id: i64) -> Result {
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left: LeaseTimeToLiveResponse = client.lease_time_to_live(id, Some(options)).await?;
    let mut keys: Vec<_> = left
        .keys()
        .iter()
        .map(|it| String::from_utf8_lossy(it))
        .collect();
    keys.sort();
    println!(
        "lease {}: granted {}, alive {}, keys {keys:?}",
        left.id(),
        left.granted_ttl(),
        left.ttl().is_positive()
    );
    Ok(())
}
