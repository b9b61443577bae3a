//! The services Lock and Election.

use std::time::Duration;

use etcd_client::{
    Client, LeaderKey, LeaseGrantOptions, LockOptions, ProclaimOptions, ResignOptions,
};

use crate::{Result, transcript::tell};

/// Long enough to tell a call that waits from one that is slow.
const A_WHILE: Duration = Duration::from_millis(300);

pub async fn run(client: &mut Client) -> Result {
    for id in [0x7101, 0x7102] {
        let options = LeaseGrantOptions::new().with_id(id);
        client.lease_grant(600, Some(options)).await?;
    }
    locks(client).await?;
    elections(client).await?;
    for id in [0x7101, 0x7102] {
        client.lease_revoke(id).await?;
    }
    Ok(())
}

async fn locks(client: &mut Client) -> Result {
    let lease = |id| Some(LockOptions::new().with_lease(id));
    let held = tell("lock", client.lock("lock", lease(0x7101)).await).ok_or("no lock")?;
    tell("lock again", client.lock("lock", lease(0x7101)).await);
    tell(
        "lock under no lease",
        client.lock("lock", lease(0x7fff)).await,
    );

    let mut other = client.clone();
    let mut waiting = std::pin::pin!(other.lock("lock", lease(0x7102)));
    let early = tokio::time::timeout(A_WHILE, &mut waiting).await;
    println!("the other has to wait: {}", early.is_err());
    tell("unlock", client.unlock(held.key()).await);
    let next = tell("the other", waiting.await).ok_or("no lock")?;
    tell("unlock again", client.unlock(held.key()).await);
    tell("unlock the other", client.unlock(next.key()).await);

    let own = client.lock("own", None).await?;
    let path = String::from_utf8_lossy(own.key()).into_owned();
    let lease = path.strip_prefix("own/").ok_or("another name")?;
    client.lease_revoke(i64::from_str_radix(lease, 16)?).await?;
    let left = client.get(own.key(), None).await?;
    println!("keys of a lock whose lease ended: {}", left.count());
    Ok(())
}

async fn elections(client: &mut Client) -> Result {
    tell("nobody leads", client.leader("election").await);
    let won = client.campaign("election", "first", 0x7101).await;
    let won = tell("campaign", won).ok_or("not elected")?;
    let key: LeaderKey = won.leader().ok_or("no leader")?.clone();
    tell("the leader", client.leader("election").await);
    let mut observed = client.observe("election").await?;
    tell("observe", observed.message().await);

    let mut other = client.clone();
    let mut waiting = std::pin::pin!(other.campaign("election", "second", 0x7102));
    let early = tokio::time::timeout(A_WHILE, &mut waiting).await;
    println!("the other has to wait: {}", early.is_err());
    let options = ProclaimOptions::new().with_leader(key.clone());
    tell("proclaim", client.proclaim("more", Some(options)).await);
    tell("observe", observed.message().await);

    let resign = || Some(ResignOptions::new().with_leader(key.clone()));
    tell("resign", client.resign(resign()).await);
    tell("the other", waiting.await);
    tell("observe", observed.message().await);
    tell("resign again", client.resign(resign()).await);
    let options = ProclaimOptions::new().with_leader(key);
    tell(
        "proclaim too late",
        client.proclaim("late", Some(options)).await,
    );
    tell(
        "campaign under no lease",
        client.campaign("election", "x", 0x7fff).await,
    );
    Ok(())
}
