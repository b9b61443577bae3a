//! Keys, ranges and namespaces. What goes into a namespace is what a store of its own would have taken,
//! and nothing around it is seen or touched.

use std::{sync::Arc, time::Duration};

use arbitrary::{Result, Unstructured};
use futures_util::StreamExt;
use quorate::{
    Compare, CompareOp, CompareTarget, Delete, KeyRange, Op, OpResult, Order, Put, Range, RangeEnd,
    Revision, SortBy, Txn, TxnResult, Value, WatchBatch, WatchRequest,
    backend::{Backend, Memory, Namespace},
};
use tokio::time::timeout;

use crate::paused;

const MAX_STEPS: usize = 24;

/// How deep transactions lie in each other.
const MAX_DEPTH: usize = 2;

/// The first revision at which both stores are alike.
const FIRST: i64 = 3;

const PREFIXES: &[&[u8]] = &[
    b"n/",
    b"n",
    b"\0",
    b"\xff",
    b"\xff\xff",
    b"a\xff",
    b"n/m/",
    b"\xfe\xff\xff",
];

const KEYS: &[&[u8]] = &[
    b"",
    b"\0",
    b"\0\0",
    b"a",
    b"a\0",
    b"b",
    b"n",
    b"n/",
    b"n/a",
    b"m",
    b"o",
    b"\xff",
    b"\xff\xff",
    b"\xfe",
];

/// Runs one input: a prefix, and what is asked.
pub(crate) fn feed(input: &[u8]) {
    let mut u = Unstructured::new(input);
    paused(async {
        let Ok(mut twins) = Twins::new(&mut u).await else {
            return;
        };
        // The input has ended.
        let _ = twins.steps(&mut u).await;
        twins.look_around().await;
    });
}

/// A namespace in a store, and a store that has nothing else.
struct Twins {
    around: Arc<dyn Backend>,
    prefix: Vec<u8>,
    inner: Namespace,
    alone: Memory,
    outside: Vec<Vec<u8>>,
    watches: Vec<[quorate::backend::Watching; 2]>,
}

impl Twins {
    async fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let prefix = match u.ratio(1, 8)? {
            true => some_bytes(u)?,
            false => u.choose(PREFIXES)?.to_vec(),
        };
        let around: Arc<dyn Backend> = Arc::new(Memory::new());
        let inner = match u.ratio(1, 4)? && prefix.len() > 1 {
            // Namespaces nest.
            true => {
                let (outer, rest) = prefix.split_at(1);
                let outer = Namespace::new(Arc::clone(&around), outer.to_vec());
                Namespace::new(Arc::new(outer), rest.to_vec())
            }
            false => Namespace::new(Arc::clone(&around), prefix.clone()),
        };
        let candidates = KEYS.iter().map(|key| key.to_vec());
        let neighbours = [before(&prefix), after(&prefix)].into_iter().flatten();
        let outside: Vec<_> = candidates
            .chain(neighbours)
            .filter(|key| !key.is_empty() && !key.starts_with(&prefix))
            .collect();
        let mut outside = outside;
        outside.sort();
        outside.dedup();
        let mut puts = Txn::new();
        for key in &outside {
            puts = puts.then(Op::put(key.clone(), "outside"));
        }
        let twins = Self {
            around,
            prefix,
            inner,
            alone: Memory::new(),
            outside,
            watches: Vec::new(),
        };
        if twins.outside.is_empty() {
            puts = Txn::new().then(Op::put("x", "")).then(Op::range("x"));
            twins.around.txn(puts).await.expect("a put");
            twins
                .around
                .txn(Txn::new().then(Op::delete("x")))
                .await
                .expect("a deletion");
        } else {
            let again = puts.clone();
            twins.around.txn(puts).await.expect("puts");
            twins.around.txn(again).await.expect("puts");
        }
        for op in [Op::put("x", ""), Op::delete("x")] {
            twins.alone.txn(Txn::new().then(op)).await.expect("a write");
        }
        Ok(twins)
    }

    async fn steps(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        for _ in 0..MAX_STEPS {
            if u.is_empty() {
                break;
            }
            match u.int_in_range(0..=7)? {
                0..=2 => {
                    let range = some_range(u)?;
                    let here = self.inner.range(range.clone()).await;
                    let there = self.alone.range(range.clone()).await;
                    match (here, there) {
                        (Ok(mut here), Ok(there)) => {
                            here.header = there.header;
                            assert_eq!(here, there, "{range:?}");
                        }
                        (Err(here), Err(there)) => {
                            assert_eq!(here.kind(), there.kind(), "{range:?}")
                        }
                        other => panic!("{range:?}: {other:?}"),
                    }
                }
                3..=5 => {
                    let txn = some_txn(u, 0)?;
                    let here = self.inner.txn(txn.clone()).await;
                    let there = self.alone.txn(txn.clone()).await;
                    match (here, there) {
                        (Ok(here), Ok(there)) => {
                            assert_eq!(here.header.revision, there.header.revision);
                            assert_eq!(plain(here), plain(there), "{txn:?}");
                        }
                        (Err(here), Err(there)) => assert_eq!(here.kind(), there.kind(), "{txn:?}"),
                        other => panic!("{txn:?}: {other:?}"),
                    }
                }
                6 => {
                    let mut request = WatchRequest::new(some_keys(u)?);
                    request.start = match u.ratio(1, 2)? {
                        true => Revision::ZERO,
                        false => Revision(u.int_in_range(FIRST + 1..=FIRST + 8)?),
                    };
                    (request.prev_kv, request.no_put, request.no_delete) = u.arbitrary()?;
                    let here = self.inner.watch(request.clone()).await;
                    let there = self.alone.watch(request.clone()).await;
                    match (here, there) {
                        (Ok(here), Ok(there)) => self.watches.push([here, there]),
                        (Err(here), Err(there)) => {
                            assert_eq!(here.kind(), there.kind(), "{request:?}")
                        }
                        other => panic!("{request:?}: {other:?}"),
                    }
                }
                _ => self.wire(u)?,
            }
        }
        Ok(())
    }

    /// Ranges come back from the wire as they went.
    fn wire(&self, u: &mut Unstructured<'_>) -> Result<()> {
        let keys = some_keys(u)?;
        if keys.start.is_empty() {
            // That is refused, whatever the end is.
            return Ok(());
        }
        let (first, end) = keys.to_wire();
        let back = KeyRange::from_wire(first, end);
        let (first, end) = back.to_wire();
        assert_eq!(KeyRange::from_wire(first, end), back);
        for key in KEYS.iter().filter(|key| !key.is_empty()) {
            assert_eq!(
                keys.contains(key),
                back.contains(key),
                "{keys:?} and {back:?} of {key:?}"
            );
        }
        let _ = (keys.to_string(), format!("{back:?}"));
        Ok(())
    }

    /// Compares what the watches tell, and what is around.
    async fn look_around(mut self) {
        for [here, there] in &mut self.watches {
            loop {
                let here = next(here).await;
                let there = next(there).await;
                match (here, there) {
                    (None, None) => break,
                    (Some(here), Some(there)) => assert_eq!(here, there),
                    other => panic!("{other:?}"),
                }
            }
        }
        let all = self
            .around
            .range(Range::new(KeyRange::all()))
            .await
            .expect("all keys");
        let outside = all
            .kvs
            .iter()
            .filter(|kv| !kv.key.starts_with(&self.prefix));
        let outside: Vec<_> = outside
            .inspect(|kv| assert_eq!(kv.value, "outside"))
            .collect();
        let keys: Vec<_> = outside.iter().map(|kv| kv.key.to_vec()).collect();
        assert_eq!(keys, self.outside);
    }
}

/// The next events of a watch, or what ends it.
async fn next(
    watching: &mut quorate::backend::Watching,
) -> Option<std::result::Result<Vec<quorate::Event>, quorate::ErrorKind>> {
    loop {
        let told = timeout(Duration::from_millis(1), watching.stream.next())
            .await
            .ok()??;
        match told {
            Ok(WatchBatch { events, .. }) if events.is_empty() => {}
            Ok(batch) => return Some(Ok(batch.events)),
            Err(error) => return Some(Err(error.kind())),
        }
    }
}

/// A result without headers of ranges within.
fn plain(mut result: TxnResult) -> (bool, Vec<OpResult>) {
    fn strip(results: &mut [OpResult]) {
        for result in results {
            match result {
                OpResult::Range(range) => range.header = Default::default(),
                OpResult::Txn(txn) => {
                    txn.header = Default::default();
                    strip(&mut txn.results);
                }
                OpResult::Delete { .. } | OpResult::Put { .. } => {}
            }
        }
    }
    strip(&mut result.results);
    (result.succeeded, result.results)
}

fn some_bytes(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = u.int_in_range(0..=6)?.min(u.len());
    Ok(u.bytes(length)?.to_vec())
}

fn some_key(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    match u.ratio(1, 4)? {
        true => some_bytes(u),
        false => Ok(u.choose(KEYS)?.to_vec()),
    }
}

fn some_keys(u: &mut Unstructured<'_>) -> Result<KeyRange> {
    let first = some_key(u)?;
    Ok(match u.int_in_range(0..=5)? {
        0 => KeyRange::prefix(first),
        1 => KeyRange::from(first),
        2 => KeyRange::between(first, some_key(u)?),
        3 => KeyRange::all(),
        4 => KeyRange::from_wire(first, some_key(u)?),
        _ => KeyRange::key(first),
    })
}

fn some_number(u: &mut Unstructured<'_>) -> Result<i64> {
    const NUMBERS: &[i64] = &[0, 0, 0, 1, 2, 3, 4, 5, 6, 9, -1, i64::MAX, i64::MIN];
    Ok(*u.choose(NUMBERS)?)
}

fn some_range(u: &mut Unstructured<'_>) -> Result<Range> {
    let mut range = Range::new(some_keys(u)?);
    range.limit = some_number(u)?;
    if u.ratio(1, 4)? {
        // Before that the stores differ.
        range.revision = Revision(some_number(u)?);
        if (1..FIRST).contains(&range.revision.0) {
            range.revision.0 = FIRST;
        }
    }
    if u.ratio(1, 2)? {
        use SortBy::{CreateRevision, Key, ModRevision, Value, Version};
        let by = *u.choose(&[CreateRevision, Key, ModRevision, Value, Version])?;
        range.order = Some((
            by,
            *u.choose(&[Order::Ascending, Order::Descending, Order::Unstated])?,
        ));
    }
    (range.serializable, range.keys_only, range.count_only) = u.arbitrary()?;
    if u.ratio(1, 4)? {
        range.min_mod_revision = Revision(some_number(u)?);
        range.max_mod_revision = Revision(some_number(u)?);
        range.min_create_revision = Revision(some_number(u)?);
        range.max_create_revision = Revision(some_number(u)?);
    }
    Ok(range)
}

fn some_value(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(u.choose(&["", "1", "2"])?.to_owned().into())
}

fn some_txn(u: &mut Unstructured<'_>, depth: usize) -> Result<Txn> {
    let mut txn = Txn::new();
    for _ in 0..u.int_in_range(0..=2)? {
        use CompareOp::{Equal, Greater, Less, NotEqual};
        let target = match u.int_in_range(0..=4)? {
            0 => CompareTarget::CreateRevision(Revision(some_number(u)?)),
            1 => CompareTarget::ModRevision(Revision(some_number(u)?)),
            2 => CompareTarget::Version(some_number(u)?),
            3 => CompareTarget::Lease(None),
            _ => CompareTarget::Value(some_value(u)?),
        };
        let mut compare = Compare::absent(some_keys(u)?);
        compare.target = target;
        compare.op = *u.choose(&[Equal, Greater, Less, NotEqual])?;
        txn = txn.when(compare);
    }
    for _ in 0..u.int_in_range(0..=3)? {
        let op = some_op(u, depth)?;
        txn = match u.ratio(3, 4)? {
            true => txn.then(op),
            false => txn.or_else(op),
        };
    }
    Ok(txn)
}

fn some_op(u: &mut Unstructured<'_>, depth: usize) -> Result<Op> {
    Ok(match u.int_in_range(0..=7)? {
        0..=3 => {
            let mut put = Put::new(some_key(u)?, some_value(u)?);
            put.prev_kv = u.arbitrary()?;
            put.ignore_value = u.ratio(1, 8)?;
            put.ignore_lease = u.ratio(1, 8)?;
            put.into()
        }
        4 => {
            let mut keys = some_keys(u)?;
            if keys.end == RangeEnd::Unbounded {
                // Beside a put in it etcd refuses any range but one without an end.
                keys = KeyRange::key(keys.start);
            }
            let mut delete = Delete::new(keys);
            delete.prev_kv = u.arbitrary()?;
            delete.into()
        }
        5 if depth < MAX_DEPTH => Op::Txn(some_txn(u, depth + 1)?),
        _ => some_range(u)?.into(),
    })
}

/// The key before all that begin with `prefix`, and near it.
fn before(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut key = prefix.to_vec();
    match key.last_mut() {
        Some(0) => {
            key.pop();
        }
        Some(last) => *last -= 1,
        None => return None,
    }
    Some(key)
}

/// The first key after all that begin with `prefix`.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < 0xff)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}
