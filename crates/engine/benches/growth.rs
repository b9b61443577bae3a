//! Does an operation cost more as keys grow in number, and does it grow no faster than their logarithm?
//!
//! `cargo bench -p quorate-engine --bench growth` goes up to a million keys; `KEYS=10000000` up to ten
//! million, which takes some gigabytes of memory.

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use quorate_engine::{Compare, KeyRange, Op, Range, Store, Txn};
use support::{Numbers, filled, key};

fn growth(c: &mut Criterion) {
    let most = std::env::var("KEYS")
        .ok()
        .and_then(|keys| keys.parse().ok());
    let most: usize = most.unwrap_or(1_000_000);
    let sizes = std::iter::successors(Some(1000), |keys| Some(keys * 10));
    for keys in sizes.take_while(|keys| *keys <= most) {
        let mut store = filled(keys);
        let mut numbers = Numbers::below(keys);
        let mut group = c.benchmark_group("growth");
        group.bench_function(BenchmarkId::new("get", keys), |b| {
            b.iter(|| {
                let found = store.range(&Range::new(key(numbers.next())));
                assert_eq!(black_box(found).map(|found| found.count), Ok(1));
            });
        });
        group.bench_function(BenchmarkId::new("range of 100", keys), |b| {
            b.iter(|| {
                // All that a range holds is counted, as in etcd, whatever the limit.
                let first = numbers.next();
                let range = Range::new(KeyRange::between(key(first), key(first + 100)));
                black_box(store.range(&range)).expect("it is read");
            });
        });
        group.bench_function(BenchmarkId::new("put", keys), |b| {
            b.iter(|| {
                write(
                    &mut store,
                    &Txn::new().then(Op::put(key(numbers.next()), "value")),
                );
            });
        });
        group.bench_function(BenchmarkId::new("transaction", keys), |b| {
            b.iter(|| {
                let key = key(numbers.next());
                let stands = Compare::present(&key);
                let other = self::key(numbers.next());
                let txn = Txn::new().when(stands).then(Op::put(&key, "value"));
                write(&mut store, &txn.then(Op::range(other)));
            });
        });
    }
}

/// Writes, and drops history now and then as a store in use does.
fn write(store: &mut Store, txn: &Txn) {
    let done = store.txn(txn).expect("it is written");
    assert!(done.succeeded);
    let revision = done.header.revision;
    if revision.0 % 100_000 == 0 {
        store.compact(revision).expect("it is kept");
    }
}

criterion_group!(benches, growth);
criterion_main!(benches);
