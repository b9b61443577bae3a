//! The process that uses every recipe at once, in one client, and compares what it knows with the store.
//!
//! - `holds`: locks, campaigns, detached holds
//! - `electors`: electors, and who follows the leader
//! - `keys`: ephemeral keys, registrations and their trackers
//! - `copies`: observers, watches, and the keys that they follow
//! - `settings`: configuration
//! - `leases`: leases, sessions, clients, health

mod copies;
mod electors;
mod holds;
mod keys;
mod leases;
mod settings;

use std::{collections::BTreeMap, future::Future, time::Duration};

use futures_util::{StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use quorate::{Client, Compare, Op, Result, Revision};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::sleep,
};

use super::{
    pace::Pace,
    wire::{Answer, LIMIT, Quiet, Request, SOCKET, Sample},
};
use crate::{
    history::{What, nanos, now},
    torture::worker::Desk,
};

/// Everything lies below this.
const NAMESPACE: &str = "soak/";

/// How long between two comparisons.
const LOOK: Duration = Duration::from_millis(100);

/// Works until the process shall stop.
pub(crate) async fn play(desk: &Desk) {
    let floor = match Floor::open(desk).await {
        Ok(floor) => floor,
        Err(error) => return unexpected(desk, format!("open: {error}")),
    };
    let listener = match UnixListener::bind(desk.directory.join(SOCKET)) {
        Ok(listener) => listener,
        Err(error) => return unexpected(desk, format!("{SOCKET}: {error}")),
    };
    tokio::select! {
        () = desk.stopping() => {}
        () = floor.work() => {}
        () = floor.serve(&listener) => {}
    }
}

fn unexpected(desk: &Desk, text: String) {
    desk.note(What::Unexpected { text });
}

/// What all recipes stand on.
struct Floor<'a> {
    desk: &'a Desk,
    client: Client,
    /// Another client, with connections of its own, which tells what is in the store.
    probe: Client,
    pace: Pace,
    electors: electors::Electors,
    keys: keys::Keys,
    copies: copies::Copies,
    settings: settings::Settings,
    leases: leases::Leases,
}

/// What is wrong, if something is.
type Agreed = Result<(), String>;

impl<'a> Floor<'a> {
    async fn open(desk: &'a Desk) -> Result<Self> {
        Ok(Self {
            desk,
            client: desk.client.namespace(NAMESPACE),
            probe: Client::connect(desk.address.clone())
                .await?
                .namespace(NAMESPACE),
            pace: Pace::new(),
            electors: electors::Electors::default(),
            keys: keys::Keys::default(),
            copies: copies::Copies::default(),
            settings: settings::Settings::default(),
            leases: leases::Leases::default(),
        })
    }

    /// Uses every recipe.
    async fn work(&self) {
        let mut all = FuturesUnordered::<LocalBoxFuture<'_, ()>>::new();
        holds::work(self, &mut all);
        electors::work(self, &mut all);
        keys::work(self, &mut all);
        copies::work(self, &mut all);
        settings::work(self, &mut all);
        leases::work(self, &mut all);
        while all.next().await.is_some() {}
    }

    async fn churn(
        &self,
        recipe: &'static str,
        pause: Duration,
        step: impl AsyncFnMut() -> Result<()>,
    ) {
        self.pace.churn(self.desk, recipe, pause, step).await;
    }

    /// Does something to a key as it stands now. A write whose answer is lost may arrive long after the step
    /// that made it, and then shall not undo what came later.
    async fn replace(&self, key: &str, op: Op) -> Result<()> {
        let now = self.client.get(key).await?;
        let revision = now.map_or(Revision::ZERO, |kv| kv.mod_revision);
        let stands = Compare::mod_revision(key).eq(revision);
        let txn = self.client.txn().when(stands).then(op);
        txn.commit().await.map(drop)
    }

    /// Follows something for a while, then follows it anew, for ever. What is followed stays while there
    /// is rest; what ends by itself is followed anew at once.
    async fn follow(
        &self,
        recipe: &'static str,
        most: Duration,
        mut once: impl AsyncFnMut() -> Result<()>,
    ) {
        loop {
            let span = crate::torture::worker::between(most / 5, most);
            tokio::select! {
                () = self.pace.due(span) => self.pace.count(recipe),
                ended = once() => match ended {
                    Ok(()) => self.desk.rest(LOOK / 2, LOOK).await,
                    Err(error) => self.desk.failed(recipe, &error).await,
                },
            }
        }
    }

    /// Answers the orchestrator, one line for one line.
    async fn serve(&self, listener: &UnixListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                return unexpected(self.desk, "nobody can be let in".to_owned());
            };
            if let Err(error) = self.converse(stream).await {
                unexpected(self.desk, format!("the orchestrator: {error}"));
            }
        }
    }

    async fn converse(&self, stream: UnixStream) -> std::io::Result<()> {
        let (input, mut output) = stream.into_split();
        let mut lines = BufReader::new(input).lines();
        while let Some(line) = lines.next_line().await? {
            let answer = match serde_json::from_str(&line)? {
                Request::Rest => Answer::Quiet(self.rest().await),
                Request::Sample => match self.sample().await {
                    Ok(sample) => Answer::Sample(sample),
                    Err(error) => Answer::Failed(error.to_string()),
                },
                Request::Go => {
                    self.pace.set(true);
                    Answer::Going
                }
            };
            let mut line = serde_json::to_vec(&answer)?;
            line.push(b'\n');
            output.write_all(&line).await?;
        }
        Ok(())
    }

    /// Brings the churn to rest, and waits until all agree with the store.
    async fn rest(&self) -> Quiet {
        let since = now();
        self.pace.set(false);
        let mut quiet = Quiet::default();
        loop {
            let judged = self.judge().await;
            let time = now() - since;
            quiet.disagreements.clear();
            for (recipe, agreed) in judged {
                match agreed {
                    Ok(()) => {
                        quiet.times.entry(recipe.to_owned()).or_insert(time);
                    }
                    Err(why) => {
                        quiet.times.remove(recipe);
                        quiet.disagreements.push(format!("{recipe}: {why}"));
                    }
                }
            }
            if quiet.disagreements.is_empty() || time > nanos(LIMIT) {
                return quiet;
            }
            sleep(LOOK).await;
        }
    }

    /// Whether each recipe agrees with the store now.
    async fn judge(&self) -> Vec<(&'static str, Agreed)> {
        let mut judged = Vec::new();
        let busy = self.pace.busy();
        let rest = if busy.is_empty() {
            Ok(())
        } else {
            Err(format!("{} go on", busy.join(", ")))
        };
        judged.push(("rest of all", rest));
        judged.extend(holds::agree(self).await);
        judged.extend(electors::agree(self).await);
        judged.extend(keys::agree(self).await);
        judged.extend(copies::agree(self).await);
        judged.extend(settings::agree(self).await);
        judged.extend(leases::agree(self).await);
        judged
    }

    async fn sample(&self) -> Result<Sample> {
        let leases = self.probe.leases().await?.len();
        let keys = self.probe.count(quorate::KeyRange::all()).await?;
        Ok(Sample {
            leases: u64::try_from(leases).expect("there are not that many"),
            keys,
            ..Sample::of_this_process(self.pace.counts())
        })
    }
}

/// What a probe found, or why it failed, as part of what does not agree.
async fn probed<T>(probe: impl Future<Output = Result<T>>) -> Result<T, String> {
    probe
        .await
        .map_err(|error| format!("the store does not answer: {error}"))
}

/// Whether two are the same.
fn same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    ours: &BTreeMap<K, V>,
    stored: &BTreeMap<K, V>,
) -> Agreed {
    if ours == stored {
        return Ok(());
    }
    let missing = stored
        .iter()
        .filter(|(key, value)| ours.get(key) != Some(value));
    let excess = ours
        .iter()
        .filter(|(key, value)| stored.get(key) != Some(value));
    Err(format!(
        "the store has {:?}, here is {:?}",
        missing.collect::<Vec<_>>(),
        excess.collect::<Vec<_>>()
    ))
}
