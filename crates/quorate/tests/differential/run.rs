//! Runs one program on all stores.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Debug,
    path::Path,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use quorate::{
    Delete, Event, KeyRange, LeaseId, Op, Put, Range, Result, Revision, Txn, WatchRequest,
    backend::{
        Backend, BeatStream, Memory, WatchStream,
        etcd::{Etcd, EtcdOptions},
    },
};
use quorate_server::Server;

use crate::{
    compare::{Comparable, loosen, loosen_txn, refusal, words},
    program::{Maker, Step},
    support::etcd::{self, Cluster},
};

/// How many of the last steps are shown when the stores disagree.
const SHOWN: usize = 12;

/// How long etcd may take to tell what the store in memory has told.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a watch of etcd that is behind may take to come to the present: it looks every 100 ms.
const CATCH_UP: Duration = Duration::from_millis(400);

/// Runs the program of a seed on a fresh etcd.
pub fn program(server: &Path, seed: u64, ops: usize) {
    let cluster = Cluster::builder().program(server.to_owned()).start();
    let is_35 = etcd::version(server) >= (3, 5);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::start().await.unwrap();
        let mut trial = Trial::new(&server, &cluster, seed, is_35).await;
        for _ in 0..ops {
            let step = trial.maker.step();
            trial.steps.push_back(step.clone());
            if trial.steps.len() > SHOWN {
                trial.steps.pop_front();
            }
            trial.count += 1;
            trial.take(step).await;
        }
        trial.finish().await;
    });
}

/// The stores, and what is open on them.
struct Trial {
    memory: Memory,
    /// The store behind our server, and that of etcd.
    remote: [Etcd; 2],
    maker: Maker,
    watches: VecDeque<Watch>,
    /// A watch of every change in memory, to know what a revision did.
    log: Box<dyn WatchStream>,
    beats: [Box<dyn BeatStream>; 3],
    seed: u64,
    count: usize,
    steps: VecDeque<Step>,
}

/// A watch on all stores.
struct Watch {
    request: WatchRequest,
    memory: Box<dyn WatchStream>,
    remote: [Box<dyn WatchStream>; 2],
    /// It began in the past and has told nothing yet: etcd may not have come to look at it.
    is_new: bool,
}

/// What each store said: the one in memory, our server, etcd.
type Said<T> = [T; 3];

/// Asks all stores.
macro_rules! ask {
    ($trial:ident.$call:ident($($argument:expr),*)) => {
        [
            $trial.memory.$call($($argument),*).await,
            $trial.remote[0].$call($($argument),*).await,
            $trial.remote[1].$call($($argument),*).await,
        ]
    };
}

impl Trial {
    async fn new(server: &Server, cluster: &Cluster, seed: u64, is_35: bool) -> Self {
        let memory = Memory::new();
        let remote = [vec![server.url().to_owned()], cluster.endpoints()].map(|endpoints| {
            let options = EtcdOptions {
                endpoints,
                attempt_timeout: PATIENCE,
                call_timeout: PATIENCE,
                ..EtcdOptions::default()
            };
            Etcd::new(options).unwrap()
        });
        let all = WatchRequest::new(KeyRange::all());
        Self {
            log: memory.watch(all).await.unwrap().stream,
            beats: [
                memory.keep_alive().await.unwrap(),
                remote[0].keep_alive().await.unwrap(),
                remote[1].keep_alive().await.unwrap(),
            ],
            memory,
            remote,
            maker: Maker::new(seed, is_35),
            watches: VecDeque::new(),
            seed,
            count: 0,
            steps: VecDeque::new(),
        }
    }

    /// Fails unless all said the same.
    #[track_caller]
    fn agree<T: PartialEq + Debug>(&self, what: &str, [memory, server, etcd]: &Said<T>) {
        if memory == etcd && server == etcd {
            return;
        }
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|step| format!("  {step:?}"))
            .collect();
        panic!(
            "the stores disagree on {what} at step {} of seed {} (revision {}, compacted {}), after\n{}\n\
             in memory: {memory:?}\nserver:    {server:?}\netcd:      {etcd:?}\n\
             repeat it with QUORATE_SEED={} QUORATE_OPS={}",
            self.count,
            self.seed,
            self.maker.revision,
            self.maker.compacted,
            steps.join("\n"),
            self.seed,
            self.count,
        );
    }

    #[track_caller]
    fn compare<T: Comparable + Debug>(&self, what: &str, said: Said<Result<T>>) {
        self.agree(what, &said.map(words));
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Beat(lease) => self.beat(lease).await,
            Step::Compact(revision, physical) => self.compact(revision, physical).await,
            Step::DropWatch => {
                self.settle().await;
                self.watches.pop_front();
            }
            Step::Grant(id, ttl) => {
                let plain = |granted: Result<quorate::Granted>| match granted {
                    Ok(granted) => format!(
                        "{} {:?} {}",
                        granted.id, granted.ttl, granted.header.revision
                    ),
                    Err(error) => refusal(&error),
                };
                let said = ask!(self.grant(id, ttl));
                self.agree("a grant", &said.map(plain));
            }
            Step::LeaseStatus(id, keys) => {
                let said = ask!(self.lease_status(id, keys));
                self.compare("the status of a lease", said);
            }
            Step::Leases => {
                let set = |leases: Result<Vec<LeaseId>>| -> BTreeSet<LeaseId> {
                    leases.unwrap().into_iter().collect()
                };
                let said = ask!(self.leases());
                self.agree("the leases", &said.map(set));
            }
            Step::Range(range) => self.range(range).await,
            Step::Revoke(id) => {
                let said = ask!(self.revoke(id));
                self.compare("a revocation", said);
            }
            Step::Settle => self.settle().await,
            Step::Txn(txn) => self.txn(txn).await,
            Step::Watch(request) => self.watch(request).await,
        }
        self.maker.revision = self.memory.revision();
        self.look_at_log();
    }

    async fn beat(&mut self, lease: LeaseId) {
        let mut said = <Said<String>>::default();
        for (beats, said) in self.beats.iter_mut().zip(&mut said) {
            beats.send(lease).unwrap();
            let beat = tokio::time::timeout(PATIENCE, beats.next()).await;
            *said = words(
                beat.expect("a beat is answered")
                    .expect("the stream goes on"),
            );
        }
        self.agree("a beat", &said);
    }

    /// What a compaction takes from a watch depends on how far it has come. Most that may not have come
    /// to the present are given up, since to wait for them takes long.
    async fn compact(&mut self, revision: Revision, physical: bool) {
        self.settle().await;
        if self.watches.iter().any(|watch| watch.is_new) {
            if self.maker.one_in(5) {
                tokio::time::sleep(CATCH_UP).await;
                self.watches
                    .iter_mut()
                    .for_each(|watch| watch.is_new = false);
            } else {
                self.watches.retain(|watch| !watch.is_new);
            }
        }
        let said = ask!(self.compact(revision, physical));
        if said[0].is_ok() {
            self.maker.compacted = revision;
        }
        self.compare("a compaction", said);
    }

    async fn range(&mut self, range: Range) {
        let said = ask!(self.range(range.clone()));
        let loose = |answer: Result<_>| {
            answer.map(|mut found| {
                loosen(&range, &mut found);
                found
            })
        };
        self.compare("a range", said.map(loose));
    }

    async fn txn(&mut self, txn: Txn) {
        let said = ask!(self.txn(txn.clone()));
        let loose = |answer: Result<_>| {
            answer.map(|mut done| {
                loosen_txn(&txn, &mut done);
                done
            })
        };
        self.compare("a transaction", said.map(loose));
    }

    async fn watch(&mut self, request: WatchRequest) {
        match ask!(self.watch(request.clone())) {
            [Ok(memory), Ok(server), Ok(etcd)] => {
                let created = [&memory, &server, &etcd].map(|watching| watching.created.revision);
                self.agree("where a watch was created", &created);
                let is_new = (Revision(1)..=created[0]).contains(&request.start);
                self.watches.push_back(Watch {
                    is_new,
                    request,
                    memory: memory.stream,
                    remote: [server.stream, etcd.stream],
                });
                self.maker.watches = self.watches.len();
            }
            [memory, server, etcd] => {
                // One may tell at once what the other tells with its first batch.
                let said = [
                    opening(memory).await,
                    opening(server).await,
                    opening(etcd).await,
                ];
                self.agree("the opening of a watch", &said);
            }
        }
    }

    /// Lets every watch tell what it has to tell, and compares that.
    async fn settle(&mut self) {
        for mut watch in std::mem::take(&mut self.watches) {
            let (memory, ended) = ready(&mut *watch.memory);
            let [server, etcd] = &mut watch.remote;
            let server = read(&mut **server, memory.len()).await;
            let etcd = read(&mut **etcd, memory.len()).await;
            watch.is_new &= memory.is_empty();
            let what = format!("what {:?} tells", watch.request);
            self.agree(&what, &[memory, server, etcd]);
            if !ended {
                self.watches.push_back(watch);
            }
        }
        self.maker.watches = self.watches.len();
    }

    /// Ends every watch with an event, so that nothing too much goes unseen.
    async fn finish(&mut self) {
        let starts = self
            .watches
            .iter()
            .map(|watch| watch.request.keys.start.clone());
        for key in starts.collect::<BTreeSet<_>>() {
            let key = if key.is_empty() { b"\0".into() } else { key };
            let put = Op::Put(Put::new(key.clone(), "last"));
            for op in [put, Op::Delete(Delete::new(key))] {
                self.txn(Txn::new().then(op)).await;
            }
        }
        self.settle().await;
        let all = Range::new(KeyRange::all());
        self.range(all).await;
    }

    /// Notes which revisions changed a key twice, and which deleted one.
    fn look_at_log(&mut self) {
        while let Some(Some(batch)) = self.log.next().now_or_never() {
            for changes in batch
                .unwrap()
                .events
                .chunk_by(|a, b| a.revision() == b.revision())
            {
                let keys: BTreeSet<_> = changes.iter().map(Event::key).collect();
                if keys.len() < changes.len() {
                    self.maker.doubled.insert(changes[0].revision());
                }
                if changes
                    .iter()
                    .any(|event| matches!(event, Event::Delete { .. }))
                {
                    self.maker.deleting.insert(changes[0].revision());
                }
            }
        }
    }
}

/// What a watch in memory tells without waiting, and whether it ended.
fn ready(stream: &mut dyn WatchStream) -> (Vec<String>, bool) {
    let mut told = Vec::new();
    loop {
        match stream.next().now_or_never() {
            None => return (told, false),
            Some(Some(Ok(batch))) => {
                told.extend(batch.events.iter().map(|event| format!("{event:?}")))
            }
            Some(Some(Err(error))) => {
                told.push(refusal(&error));
                return (told, true);
            }
            Some(None) => return (told, true),
        }
    }
}

/// What a watch over the network tells, until it has told so much; what comes along is told as well.
async fn read(stream: &mut dyn WatchStream, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    let reading = async {
        while told.len() < count {
            match stream.next().await {
                Some(Ok(batch)) => {
                    told.extend(batch.events.iter().map(|event| format!("{event:?}")))
                }
                Some(Err(error)) => told.push(refusal(&error)),
                None => return,
            }
        }
    };
    if tokio::time::timeout(PATIENCE, reading).await.is_err() {
        told.push("nothing more".to_owned());
    }
    told
}

/// How a watch fails.
async fn opening(watching: Result<quorate::backend::Watching>) -> String {
    match watching {
        Err(error) => refusal(&error),
        Ok(mut watching) => {
            let first = tokio::time::timeout(PATIENCE, watching.stream.next()).await;
            match first {
                Ok(Some(Err(error))) => refusal(&error),
                other => format!("{other:?}"),
            }
        }
    }
}
