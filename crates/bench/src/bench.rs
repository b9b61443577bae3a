//! What a scenario is given: a client, keys of its own, a bound on its time.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use quorate::{Client, KeyRange, Session};

use crate::Result;

/// The time to live of sessions.
pub(crate) const TTL: Duration = Duration::from_secs(10);

/// How many tasks write or read at once where many do.
pub(crate) const TASKS: usize = 64;

#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) endpoint: String,
    /// What the keys of this run begin with.
    pub(crate) prefix: String,
    /// When loops end early.
    until: Instant,
}

impl Bench {
    pub(crate) async fn new(
        endpoint: &str,
        scenario: &str,
        prefix: Option<&str>,
        cap: Duration,
    ) -> Result<Self> {
        let prefix = prefix.map_or_else(
            || format!("/bench/quorate/{scenario}/{:08x}/", fastrand::u32(..)),
            str::to_owned,
        );
        Ok(Self {
            client: Client::connect(endpoint).await?,
            endpoint: endpoint.to_owned(),
            prefix,
            until: Instant::now() + cap,
        })
    }

    pub(crate) fn key(&self, name: impl AsRef<str>) -> String {
        [&self.prefix, name.as_ref()].concat()
    }

    pub(crate) fn is_late(&self) -> bool {
        Instant::now() > self.until
    }

    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// A client with a connection of its own.
    pub(crate) async fn another_client(&self) -> Result<Client> {
        Ok(Client::connect(self.endpoint.as_str()).await?)
    }

    /// A session of its own for each of many.
    pub(crate) async fn sessions(&self, count: usize) -> Result<Vec<Session>> {
        let client = self.client.clone();
        all(count, move |_| {
            let client = client.clone();
            async move { Ok(client.session_with_ttl(TTL).await?) }
        })
        .await
    }

    /// Does `0..count` on so many tasks, each one of them after the other, and tells how long each took.
    pub(crate) async fn each<F>(
        &self,
        count: usize,
        tasks: usize,
        work: impl Fn(Self, usize) -> F + Clone + Send + Sync + 'static,
    ) -> Result<Vec<Duration>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let took = all(tasks, |first| {
            let (bench, work) = (self.clone(), work.clone());
            async move {
                let mut took = Vec::with_capacity(count / tasks + 1);
                for number in (first..count).step_by(tasks) {
                    if bench.is_late() {
                        break;
                    }
                    let begun = Instant::now();
                    work(bench.clone(), number).await?;
                    took.push(begun.elapsed());
                }
                Ok(took)
            }
        });
        Ok(took.await?.concat())
    }

    /// Puts `count` keys under `directory`.
    pub(crate) async fn fill(
        &self,
        count: usize,
        tasks: usize,
        directory: &'static str,
        value: String,
    ) -> Result<Vec<Duration>> {
        let work = move |bench: Self, number: usize| {
            let value = value.clone();
            async move {
                let key = bench.key(format!("{directory}{number}"));
                bench.client.put(key, value).await?;
                Ok(())
            }
        };
        self.each(count, tasks, work).await
    }

    /// Has the connection made.
    pub(crate) async fn warm(&self) -> Result<()> {
        self.fill(20, 1, "warm/", "w".to_owned()).await.map(drop)
    }

    pub(crate) async fn count(&self, directory: &str) -> Result<u64> {
        Ok(self
            .client
            .count(KeyRange::prefix(self.key(directory)))
            .await?)
    }

    /// Removes the keys of this run.
    pub(crate) async fn clean(&self) -> Result<()> {
        self.client
            .delete(KeyRange::prefix(self.prefix.as_str()))
            .await?;
        Ok(self.client.close().await?)
    }
}

/// Runs `0..count` at once, each as a task, and returns what came of them in that order.
pub(crate) async fn all<T, F>(count: usize, task: impl Fn(usize) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|one| tokio::spawn(task(one))).collect();
    let mut outcomes = Vec::with_capacity(count);
    for task in tasks {
        outcomes.push(task.await??);
    }
    Ok(outcomes)
}

/// A value of so many bytes.
pub(crate) fn value(bytes: usize) -> String {
    "v".repeat(bytes)
}
