//! Maintenance and the members of the cluster.

use etcd_client::{AlarmAction, AlarmType, Client};

use crate::{Result, transcript::tell};

pub async fn run(client: &mut Client, is_35: bool) -> Result {
    let status = client.status().await?;
    let members = client.member_list().await?;
    let [member] = members.members() else {
        return Err("not one member".into());
    };
    let header = status.header().ok_or("no header")?;
    println!(
        "status: leads {}, is that member {}, size {}, index {}, learner {}, errors {:?}",
        status.leader() == header.member_id(),
        member.id() == header.member_id(),
        status.db_size() >= status.raft_used_db_size() && status.raft_used_db_size() > 0,
        status.raft_index() >= status.raft_applied_index(),
        status.is_learner(),
        status.errors()
    );
    println!(
        "members: client urls {}, learner {}",
        member.client_urls().len(),
        member.is_learner()
    );
    tell("defragment", client.defragment().await);
    let hash = client.hash().await?;
    println!("hash: revision {:?}", hash.header().map(|it| it.revision()));
    let (one, other) = (client.hash_kv(0).await?, client.hash_kv(0).await?);
    println!(
        "hash of the keys: the same {}, compacted {}, revision {:?}",
        one.hash() == other.hash(),
        one.compact_version(),
        one.header().map(|it| it.revision())
    );
    tell("hash of what is compacted", client.hash_kv(2).await);
    tell("hash of the future", client.hash_kv(1000).await);
    // 3.4 answers without a header.
    if is_35 {
        for action in [AlarmAction::Get, AlarmAction::Deactivate] {
            tell("alarms", client.alarm(action, AlarmType::None, None).await);
        }
    }
    tell("move the leader", client.move_leader(4711).await);
    tell("remove no member", client.member_remove(4711).await);
    tell("promote no member", client.member_promote(4711).await);
    let own = member.id();
    tell("move the leader to itself", client.move_leader(own).await);
    tell("promote a voter", client.member_promote(own).await);
    snapshot(client).await
}

/// A real etcd sends its database file; our server has none, and says so.
async fn snapshot(client: &mut Client) -> Result {
    let first = match client.snapshot().await {
        Ok(mut stream) => stream.message().await,
        Err(error) => Err(error),
    };
    match first {
        Ok(Some(piece)) if !piece.blob().is_empty() => Ok(()),
        Err(error) if error.to_string().contains("not implemented") => Ok(()),
        other => Err(format!("a snapshot: {other:?}").into()),
    }
}
