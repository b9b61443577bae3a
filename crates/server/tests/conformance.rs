//! The backend for real etcd clusters passes the conformance suite on this server.

use std::sync::Arc;

use quorate::{
    backend::{
        Backend,
        etcd::{Etcd, EtcdOptions},
    },
    conformance,
    conformance::{Need, Subject},
};
use quorate_server::Server;

/// Each case has a server of its own.
async fn served(_: Need) -> Subject {
    let server = Server::start().await.expect("a port is free");
    let options = EtcdOptions {
        endpoints: vec![server.url().to_owned()],
        ..EtcdOptions::default()
    };
    let etcd: Arc<dyn Backend> = Arc::new(Etcd::new(options).expect("a good endpoint"));
    Subject::from(etcd).keeping(server)
}

conformance!(served, served);
