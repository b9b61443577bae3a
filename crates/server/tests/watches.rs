//! Whatever is written, compacted, cancelled, cut off and started again, each watch tells of each
//! change in its range, once, in order, and with what stood before.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    path::Path,
    time::Duration,
};

use quorate_server::{Error, Server};
use quorate_wire::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
        RangeRequest, RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest,
        WatchProgressRequest, WatchRequest, WatchResponse, kv_client::KvClient,
        lease_client::LeaseClient, request_op::Request, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
    mvccpb::{self, event::EventType},
};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

const PATIENCE: Duration = Duration::from_secs(30);
const KEYS: u8 = 8;
const NO_WATCH: i64 = -1;

/// Counts a compaction that may have come before the watch.
const LATE: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_watch_tells_each_change_once_and_in_order() {
    let seed = env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let rounds = env::var("ROUNDS").ok().and_then(|it| it.parse().ok());
    let seed: u64 = seed.unwrap_or(0x5eed);
    for seed in seed..seed + rounds.unwrap_or(1) {
        println!("SEED={seed}");
        run(fastrand::Rng::with_seed(seed)).await;
    }
}

async fn run(random: fastrand::Rng) {
    let directory = TempDir::new().unwrap();
    let (server, channel) = serve(directory.path()).await;
    let mut world = World {
        server,
        channel,
        history: History {
            revision: 1,
            ..History::default()
        },
        streams: Vec::new(),
        random,
    };
    for _ in 0..4 {
        for _ in 0..400 {
            world.step().await;
        }
        for stream in &mut world.streams {
            stream.settle(&world.history).await;
        }
        world = world.restart(directory.path()).await;
    }
    assert!(world.history.changes.len() > 400);
}

/// What was done, as the writer was told.
#[derive(Default)]
struct History {
    changes: Vec<Change>,
    revision: i64,
    compacted: i64,
    standing: BTreeMap<u8, Vec<u8>>,
    leases: BTreeMap<i64, Vec<u8>>,
}

#[derive(Debug)]
struct Change {
    revision: i64,
    key: u8,
    /// None if it was deleted.
    value: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
}

impl History {
    fn note(&mut self, revision: i64, key: u8, value: Option<Vec<u8>>) {
        let before = match &value {
            Some(value) => self.standing.insert(key, value.clone()),
            None => self.standing.remove(&key),
        };
        for keys in self.leases.values_mut() {
            keys.retain(|it| *it != key);
        }
        self.revision = revision;
        self.changes.push(Change {
            revision,
            key,
            value,
            before,
        });
    }
}

/// A watch, and what it has told so far.
#[derive(Clone, Debug)]
struct Watch {
    first: u8,
    /// None watches the first key alone.
    end: Option<u8>,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    fragment: bool,
    /// The first change that it has not told of, and the first revision to be told whole.
    at: usize,
    start: i64,
    is_created: bool,
    /// How many answers to cancellations are due, and whether its changes were compacted away.
    cancels: usize,
    is_over: bool,
    /// How many compactions came upon it with something left to be told. It survives one.
    overtaken: usize,
}

impl Watch {
    fn random(random: &mut fastrand::Rng, start: i64) -> Self {
        let first = random.u8(0..KEYS);
        let filter = random.u8(0..8);
        Self {
            first,
            end: random.bool().then(|| random.u8(first + 1..=KEYS)),
            no_put: filter == 0,
            no_delete: filter == 1,
            prev_kv: random.bool(),
            fragment: random.bool(),
            at: 0,
            start,
            is_created: false,
            cancels: 0,
            is_over: false,
            overtaken: 0,
        }
    }

    fn request(&self, id: i64) -> RequestUnion {
        let filters = [(self.no_put, 0), (self.no_delete, 1)];
        RequestUnion::CreateRequest(WatchCreateRequest {
            key: vec![self.first].into(),
            range_end: self.end.map(|end| vec![end]).unwrap_or_default().into(),
            start_revision: self.start,
            progress_notify: true,
            filters: filters.iter().filter(|it| it.0).map(|it| it.1).collect(),
            prev_kv: self.prev_kv,
            watch_id: id,
            fragment: self.fragment,
        })
    }

    /// The next change that it has to tell of.
    fn next<'a>(&mut self, history: &'a History) -> Option<&'a Change> {
        let end = self.end.unwrap_or(self.first + 1);
        while let Some(change) = history.changes.get(self.at) {
            let is_filtered = match change.value {
                Some(_) => self.no_put,
                None => self.no_delete,
            };
            let is_in = (self.first..end).contains(&change.key) && change.revision >= self.start;
            if is_in && !is_filtered {
                return Some(change);
            }
            self.at += 1;
        }
        None
    }

    fn hear(&mut self, history: &History, response: &WatchResponse) {
        let mut last = 0;
        for event in &response.events {
            let due = self.next(history);
            let due = due.unwrap_or_else(|| panic!("nothing is due, and this is told: {event:?}"));
            check(due, event, self.prev_kv, history);
            last = due.revision;
            self.at += 1;
        }
        assert!(response.header.as_ref().unwrap().revision >= last);
        if !response.fragment {
            let parted = self.next(history).filter(|due| due.revision == last);
            assert!(parted.is_none(), "a revision is parted: {parted:?}");
        }
    }

    /// All up to a revision must have been told.
    fn check_told(&mut self, history: &History, revision: i64) {
        let lost = self.next(history).filter(|due| due.revision <= revision);
        assert!(lost.is_none(), "at {revision} {lost:?} is lost to {self:?}");
    }
}

fn check(due: &Change, event: &mvccpb::Event, prev_kv: bool, history: &History) {
    let kv = event.kv.as_ref().unwrap();
    assert_eq!(
        (kv.mod_revision, &kv.key[..]),
        (due.revision, &[due.key][..])
    );
    assert_eq!(event.r#type() == EventType::Put, due.value.is_some());
    assert_eq!(kv.value, due.value.clone().unwrap_or_default());
    match (&event.prev_kv, &due.before) {
        (Some(prev), Some(before)) => assert!(prev_kv && prev.value == before[..]),
        (None, Some(_)) => assert!(!prev_kv || due.revision <= history.compacted),
        (prev, None) => assert!(prev.is_none()),
    }
}

/// A stream of watches. It is read when the driver likes to.
struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    watches: BTreeMap<i64, Watch>,
    /// The watches whose creation is to be told next.
    created: VecDeque<i64>,
    next_id: i64,
    /// The revision that was told last on request: several requests may get one answer.
    progress: i64,
}

impl Stream {
    /// Each has a connection of its own: one that is not read would hold up the others.
    async fn open(server: &Server) -> Self {
        let (requests, receiver) = mpsc::channel(1000);
        let mut client =
            WatchClient::new(connect(server).await).max_decoding_message_size(usize::MAX);
        let answers = client.watch(ReceiverStream::new(receiver)).await.unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
            watches: BTreeMap::new(),
            created: VecDeque::new(),
            next_id: 1,
            progress: 0,
        }
    }

    async fn send(&self, request: RequestUnion) {
        let request_union = Some(request);
        // Nobody listens at a stream that was cut.
        let _ = self.requests.send(WatchRequest { request_union }).await;
    }

    async fn create(&mut self, watch: Watch) {
        let id = self.next_id;
        self.next_id += 1;
        self.send(watch.request(id)).await;
        self.watches.insert(id, watch);
        self.created.push_back(id);
    }

    async fn cancel(&mut self, id: i64) {
        self.watches.get_mut(&id).unwrap().cancels += 1;
        let cancel = WatchCancelRequest { watch_id: id };
        self.send(RequestUnion::CancelRequest(cancel)).await;
    }

    async fn ask_for_progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}))
            .await;
    }

    fn hear(&mut self, history: &History, response: &WatchResponse) {
        let id = response.watch_id;
        let revision = response.header.as_ref().unwrap().revision;
        assert!(revision <= history.revision, "{revision} is yet to come");
        if response.created {
            assert_eq!(self.created.pop_front(), Some(id), "{response:?}");
            assert!(!response.canceled, "{response:?}");
            let watch = self.watches.get_mut(&id).unwrap();
            watch.is_created = true;
            return;
        }
        if id == NO_WATCH {
            assert!(response.events.is_empty());
            self.progress = revision;
            for watch in self.watches.values_mut() {
                if watch.is_created && !watch.is_over {
                    watch.check_told(history, revision);
                }
            }
            return;
        }
        let watch = self.watches.get_mut(&id).expect("it was cancelled");
        assert!(watch.is_created);
        if response.canceled && response.compact_revision > 0 {
            assert!(!watch.is_over && response.compact_revision <= history.compacted);
            let missed = watch.next(history).map(|due| due.revision);
            let is_missed = missed.is_some_and(|it| it < response.compact_revision);
            // One that begins before the compaction ends, whatever there would be to tell.
            let is_late = watch.overtaken >= LATE && watch.start < response.compact_revision;
            assert!(is_late || (is_missed && watch.overtaken > 1), "{watch:?}");
            watch.is_over = true;
        } else if response.canceled {
            watch.cancels = watch.cancels.checked_sub(1).expect("nobody cancelled it");
            self.watches.remove(&id);
        } else if response.events.is_empty() {
            assert!(!watch.is_over);
            watch.check_told(history, revision);
        } else {
            assert!(!watch.is_over);
            watch.hear(history, response);
        }
    }

    /// Hears what there is, up to so many messages; fails if the stream has ended.
    async fn read(&mut self, history: &History, messages: usize) -> Result<(), Status> {
        for _ in 0..messages {
            let Ok(message) = timeout(Duration::from_millis(2), self.answers.message()).await
            else {
                break;
            };
            let message = message?.ok_or_else(|| Status::unavailable("it has ended"))?;
            self.hear(history, &message);
        }
        Ok(())
    }

    /// Hears all that there is to be told.
    async fn settle(&mut self, history: &History) {
        self.progress = 0;
        self.ask_for_progress().await;
        loop {
            let over = self.watches.iter().filter(|(_, it)| it.is_over);
            let over: Vec<_> = over
                .filter(|it| it.1.cancels == 0)
                .map(|it| *it.0)
                .collect();
            for id in over {
                self.cancel(id).await;
            }
            let mut watches = self.watches.values_mut();
            let is_due = |it: &mut Watch| it.cancels > 0 || it.next(history).is_some();
            let is_due = watches.any(is_due) || !self.created.is_empty();
            if !is_due && self.progress == history.revision {
                return;
            }
            let message = timeout(PATIENCE, self.answers.message()).await;
            let message = message.unwrap_or_else(|_| panic!("nothing comes: {:?}", self.watches));
            self.hear(history, &message.unwrap().unwrap());
        }
    }
}

/// A server on a directory, and who uses it.
struct World {
    server: Server,
    channel: Channel,
    history: History,
    streams: Vec<Stream>,
    random: fastrand::Rng,
}

impl World {
    fn value(&mut self) -> Vec<u8> {
        let length = match self.random.u8(..) {
            0..4 => 1_200_000,
            4..40 => self.random.usize(..100_000),
            _ => self.random.usize(..20),
        };
        vec![self.random.u8(..); length]
    }

    fn put(&mut self, key: u8, lease: i64) -> PutRequest {
        PutRequest {
            key: vec![key].into(),
            value: self.value().into(),
            lease,
            ..PutRequest::default()
        }
    }

    async fn write(&mut self) {
        let key = self.random.u8(0..KEYS);
        let mut kv = KvClient::new(self.channel.clone());
        match self.random.u8(..) {
            0..120 => {
                let put = self.put(key, 0);
                let value = put.value.to_vec();
                let answer = kv.put(put).await.unwrap().into_inner();
                let revision = answer.header.unwrap().revision;
                self.history.note(revision, key, Some(value));
            }
            120..170 => {
                let end = self.random.u8(key + 1..=KEYS);
                let delete = DeleteRangeRequest {
                    key: vec![key].into(),
                    range_end: vec![end].into(),
                    prev_kv: false,
                };
                let answer = kv.delete_range(delete).await.unwrap().into_inner();
                let revision = answer.header.unwrap().revision;
                let gone: Vec<u8> = self
                    .history
                    .standing
                    .range(key..end)
                    .map(|it| *it.0)
                    .collect();
                assert_eq!(answer.deleted, gone.len() as i64);
                for key in gone {
                    self.history.note(revision, key, None);
                }
            }
            170..210 => {
                let mut keys: Vec<u8> = (0..KEYS).collect();
                self.random.shuffle(&mut keys);
                let puts: Vec<_> = keys[..4].iter().map(|key| self.put(*key, 0)).collect();
                let success = puts.iter().cloned().map(|put| RequestOp {
                    request: Some(Request::RequestPut(put)),
                });
                let txn = TxnRequest {
                    success: success.filter(|it| size(it) < 150_000).collect(),
                    ..TxnRequest::default()
                };
                let answer = kv.txn(txn).await.unwrap().into_inner();
                let revision = answer.header.unwrap().revision;
                for put in puts.iter().filter(|it| it.value.len() < 150_000) {
                    self.history
                        .note(revision, put.key[0], Some(put.value.to_vec()));
                }
            }
            210..240 => self.put_leased(key).await,
            _ => self.revoke().await,
        }
    }

    async fn put_leased(&mut self, key: u8) {
        let id = self.random.i64(1..4);
        if !self.history.leases.contains_key(&id) {
            let mut leases = LeaseClient::new(self.channel.clone());
            let grant = LeaseGrantRequest { ttl: 10_000, id };
            leases.lease_grant(grant).await.unwrap();
            self.history.leases.insert(id, Vec::new());
        }
        let put = self.put(key, id);
        let value = put.value.to_vec();
        let mut kv = KvClient::new(self.channel.clone());
        let answer = kv.put(put).await.unwrap().into_inner();
        let revision = answer.header.unwrap().revision;
        self.history.note(revision, key, Some(value));
        self.history.leases.get_mut(&id).unwrap().push(key);
    }

    async fn revoke(&mut self) {
        let Some((&id, _)) = self.history.leases.first_key_value() else {
            return;
        };
        let mut leases = LeaseClient::new(self.channel.clone());
        let answer = leases
            .lease_revoke(LeaseRevokeRequest { id })
            .await
            .unwrap();
        let revision = answer.into_inner().header.unwrap().revision;
        let mut keys = self.history.leases.remove(&id).unwrap();
        keys.sort_unstable();
        for key in keys {
            self.history.note(revision, key, None);
        }
    }

    async fn compact(&mut self) {
        let History {
            revision,
            compacted,
            ..
        } = self.history;
        if revision <= compacted {
            return;
        }
        let revision = self.random.i64(compacted + 1..=revision);
        let mut kv = KvClient::new(self.channel.clone());
        let physical = false;
        let compact = CompactionRequest { revision, physical };
        kv.compact(compact).await.unwrap();
        self.history.compacted = revision;
        for watch in self
            .streams
            .iter_mut()
            .flat_map(|it| it.watches.values_mut())
        {
            watch.overtaken = match (watch.is_created, watch.next(&self.history)) {
                (false, _) => LATE,
                (true, Some(_)) => watch.overtaken + 1,
                (true, None) => 0,
            };
        }
    }

    async fn step(&mut self) {
        let choice = self.random.u8(..);
        if choice < 110 {
            return self.write().await;
        }
        if choice < 116 {
            return self.compact().await;
        }
        if choice < 126 && self.streams.len() < 6 {
            return self.streams.push(Stream::open(&self.server).await);
        }
        if self.streams.is_empty() {
            return;
        }
        let at = self.random.usize(..self.streams.len());
        let stream = &mut self.streams[at];
        let ids: Vec<i64> = stream.watches.keys().copied().collect();
        match choice {
            126..150 if ids.len() < 12 => {
                let since = self.history.compacted.max(1)..=self.history.revision + 1;
                let start = self.random.i64(since);
                let watch = Watch::random(&mut self.random, start);
                stream.create(watch).await;
            }
            150..165 if !ids.is_empty() => {
                let id = ids[self.random.usize(..ids.len())];
                if stream.watches[&id].cancels == 0 {
                    stream.cancel(id).await;
                }
            }
            165..175 => stream.ask_for_progress().await,
            175..178 => drop(self.streams.remove(at)),
            178..182 => stream.settle(&self.history).await,
            182..184 => {
                self.server.control().cut_streams();
                self.resume().await;
            }
            _ => {
                let messages = self.random.usize(1..8);
                stream.read(&self.history, messages).await.unwrap();
            }
        }
    }

    /// Goes on with all watches on new streams, each from where it was.
    async fn resume(&mut self) {
        for mut old in std::mem::take(&mut self.streams) {
            while old.read(&self.history, 1).await.is_ok() {}
            let mut stream = Stream::open(&self.server).await;
            for mut watch in old.watches.into_values() {
                let next = watch.next(&self.history).map(|due| due.revision);
                watch.start = next.unwrap_or(self.history.revision + 1);
                watch.start = watch.start.max(self.history.compacted);
                watch = Watch {
                    at: 0,
                    is_created: false,
                    cancels: 0,
                    is_over: false,
                    overtaken: 0,
                    ..watch
                };
                stream.create(watch).await;
            }
            self.streams.push(stream);
        }
    }

    /// Goes on with another server on the same directory.
    async fn restart(self, directory: &Path) -> Self {
        let Self {
            server, history, ..
        } = self;
        let mut random = self.random;
        if random.bool() {
            timeout(PATIENCE, server.stop()).await.expect("it goes on");
        } else {
            drop(server);
        }
        let (server, channel) = serve(directory).await;
        let mut next = Self {
            server,
            channel,
            history,
            streams: self.streams,
            random,
        };
        next.check().await;
        next.resume().await;
        next
    }

    /// The store is as the writer was told.
    async fn check(&self) {
        let mut kv = KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let all = RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..RangeRequest::default()
        };
        let found = kv.range(all).await.unwrap().into_inner();
        assert_eq!(found.header.unwrap().revision, self.history.revision);
        let found: BTreeMap<u8, Vec<u8>> = found
            .kvs
            .into_iter()
            .map(|kv| (kv.key[0], kv.value.to_vec()))
            .collect();
        assert!(found == self.history.standing, "other keys or values");
    }
}

fn size(op: &RequestOp) -> usize {
    match &op.request {
        Some(Request::RequestPut(put)) => put.value.len(),
        _ => 0,
    }
}

async fn serve(directory: &Path) -> (Server, Channel) {
    let start = async {
        loop {
            let builder = Server::builder().data_dir(directory);
            let builder = builder.progress_interval(Duration::from_millis(20));
            match builder.start().await {
                Err(Error::DataDirInUse { .. }) => sleep(Duration::from_millis(1)).await,
                server => break server.unwrap(),
            }
        }
    };
    let server = timeout(PATIENCE, start)
        .await
        .expect("its directory stays locked");
    let channel = connect(&server).await;
    (server, channel)
}

async fn connect(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(server.url().to_owned()).unwrap();
    endpoint.connect().await.unwrap()
}
