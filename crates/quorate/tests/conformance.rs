//! Every backend and every adapter passes the conformance suite.
#![cfg(all(feature = "etcd", feature = "testing"))]

mod support;

use std::sync::Arc;

use quorate::{
    backend::{
        Backend, Memory, Namespace,
        etcd::{Etcd, EtcdOptions},
        fault::Fault,
    },
    conformance,
    conformance::{Need, Subject},
};
use support::etcd;

/// The store in memory: each case has one of its own.
async fn memory(_: Need) -> Arc<dyn Backend> {
    Arc::new(Memory::new())
}

/// A real etcd. Cases that need one alone take turns on another.
async fn etcd(need: Need, adapter: fn(Arc<dyn Backend>) -> Arc<dyn Backend>) -> Subject {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let connect = |endpoint: String| {
        let options = EtcdOptions {
            endpoints: vec![endpoint],
            ..EtcdOptions::default()
        };
        let etcd: Arc<dyn Backend> = Arc::new(Etcd::new(options).expect("a good endpoint"));
        Subject::from(adapter(etcd))
    };
    match need {
        Need::Shared => connect(etcd::shared()),
        _ => {
            let turn = TURN.lock().await;
            connect(etcd::shared_alone()).keeping(turn)
        }
    }
}

fn namespace(backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    Arc::new(Namespace::new(backend, "namespace/"))
}

fn fault(backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    Arc::new(Fault::new(backend))
}

conformance!(in_memory, memory);
conformance!(in_memory_namespace, async |need| namespace(
    memory(need).await
));
conformance!(in_memory_nested_namespace, async |need| {
    namespace(namespace(memory(need).await))
});
conformance!(in_memory_fault, async |need| fault(memory(need).await));
conformance!(on_etcd, async |need| etcd(need, |backend| backend).await);
conformance!(on_etcd_namespace, async |need| etcd(need, namespace).await);
conformance!(on_etcd_fault, async |need| etcd(need, fault).await);
