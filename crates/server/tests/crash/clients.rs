//! Those who write, read and watch while the server is killed.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use quorate::{Client, Delete, Key, KeyRange, Op, Put, Range, Result, Revision, WatchRequest};
use tokio::task::JoinSet;

use crate::told::Told;

/// How many of each kind there are.
const WRITERS: u64 = 4;

/// The three keys that a transaction writes with one value.
pub(crate) const OF_A_TXN: [&str; 3] = ["a", "b", "c"];

pub(crate) struct Clients(JoinSet<Result<()>>);

/// One of them. What it does ends with the first error, as when the server dies.
struct Caller {
    client: Client,
    told: Arc<Told>,
    /// What its values begin with, unlike those of any other round and caller.
    name: String,
    number: u64,
    random: fastrand::Rng,
}

impl Clients {
    pub(crate) async fn start(
        url: &str,
        told: &Arc<Told>,
        round: u64,
        random: &mut fastrand::Rng,
    ) -> Self {
        let mut clients = JoinSet::new();
        let client = Client::connect(url).await.unwrap();
        for number in 0..WRITERS {
            let mut caller = || Caller {
                client: client.clone(),
                told: Arc::clone(told),
                name: format!("{round}.{number}"),
                number,
                random: random.fork(),
            };
            clients.spawn(caller().put_and_delete());
            clients.spawn(caller().commit());
            clients.spawn(caller().lease());
            clients.spawn(caller().watch());
            if number == 0 {
                clients.spawn(caller().compact());
                clients.spawn(caller().read());
            }
        }
        Self(clients)
    }

    /// Ends them all. Whoever found a contradiction has panicked.
    pub(crate) async fn end(mut self) {
        self.0.abort_all();
        while let Some(ended) = self.0.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

impl Caller {
    async fn put_and_delete(mut self) -> Result<()> {
        for n in 0.. {
            let key = Key::from(format!("put/{}/{}", self.number, self.random.u8(..20)));
            if self.random.u8(..) < 50 {
                let deleted = self.client.delete_with(Delete::new(key.clone())).await?;
                let mut facts = self.told.facts();
                facts.revision = facts.revision.max(deleted.revision);
                if deleted.deleted > 0 {
                    facts.change(deleted.revision, key, None);
                }
            } else {
                let value = format!("{}/{n}", self.name);
                let revision = self.client.put(key.clone(), value.clone()).await?;
                let value = Some(value.into());
                self.told.facts().change(revision, key, value);
            }
        }
        Ok(())
    }

    async fn commit(self) -> Result<()> {
        for n in 0.. {
            let value = format!("{}/{n}", self.name);
            let keys = OF_A_TXN.map(|key| Key::from(format!("txn/{}/{key}", self.number)));
            let txn = self.client.txn();
            let puts = keys.iter().map(|key| Op::put(key.clone(), value.clone()));
            let done = puts.fold(txn, |txn, put| txn.then(put)).commit().await?;
            let mut facts = self.told.facts();
            facts.header(done.header);
            for key in keys {
                let value = Some(value.clone().into());
                facts.change(done.header.revision, key, value);
            }
        }
        Ok(())
    }

    async fn lease(mut self) -> Result<()> {
        for n in 0.. {
            let lease = self.client.grant_lease(Duration::from_secs(600)).await?.id;
            let key = Key::from(format!("lease/{}/{n}", self.name));
            let put = Put::new(key.clone(), "v").lease(lease);
            let revision = self.client.put_with(put).await?.revision;
            {
                let mut facts = self.told.facts();
                facts.change(revision, key.clone(), Some("v".into()));
                facts.leases.insert(lease, key.clone());
            }
            if self.random.u8(..) < 200 {
                self.told.facts().leases.remove(&lease);
                let revision = self.client.revoke_lease(lease).await?;
                let mut facts = self.told.facts();
                facts.change(revision, key, None);
                facts.ended.insert(lease);
            }
        }
        Ok(())
    }

    /// Some watch from the past, and are told of many changes at once.
    async fn watch(self) -> Result<()> {
        let start = {
            let facts = self.told.facts();
            let back = Revision(facts.revision.0 - self.number.cast_signed() * 10);
            back.max(facts.compacted).max(Revision(1))
        };
        let request = WatchRequest::new(KeyRange::all()).start(start);
        let mut watch = self.client.watch(request);
        while let Some(batch) = watch.next().await {
            let batch = batch?;
            let mut facts = self.told.facts();
            facts.header(batch.header);
            for event in batch.events {
                facts.event(event);
            }
        }
        Ok(())
    }

    async fn compact(mut self) -> Result<()> {
        loop {
            tokio::time::sleep(Duration::from_millis(self.random.u64(..300))).await;
            let revision = Revision(self.told.facts().revision.0 - self.random.i64(..200));
            if revision > self.told.facts().compacted {
                self.client.compact(revision, false).await?;
                self.told.facts().compacted = revision;
            }
        }
    }

    async fn read(self) -> Result<()> {
        loop {
            let found = self.client.range(Range::new(KeyRange::all())).await?;
            let mut facts = self.told.facts();
            facts.header(found.header);
            for kv in found.kvs {
                facts.kv(kv);
            }
        }
    }
}
