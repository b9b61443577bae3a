//! What does a change cost, and those who watch it?

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quorate_engine::{KeyRange, Op, Txn, WatchRequest, Watcher};
use support::{filled, key};

fn dispatch(c: &mut Criterion) {
    let mut group = c.benchmark_group("dispatch");
    for watchers in [1_u32, 100, 10_000] {
        for (what, keys) in [
            ("a key", KeyRange::key(key(7))),
            ("a prefix", KeyRange::prefix("key/")),
        ] {
            let mut store = filled(1000);
            let request = WatchRequest::new(keys);
            let mut open: Vec<Watcher> = (0..watchers)
                .map(|_| Watcher::new(&store, request.clone()).expect("valid").0)
                .collect();
            group.throughput(Throughput::Elements(watchers.into()));
            group.bench_function(BenchmarkId::new(what, watchers), |b| {
                b.iter(|| {
                    let put = Txn::new().then(Op::put(key(7), "value"));
                    store.txn(&put).expect("it is written");
                    for watcher in &mut open {
                        let told = black_box(watcher.next(&store)).expect("it is kept");
                        assert!(told.is_some());
                    }
                });
            });
        }
    }
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
