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
    subject(server)
}

/// The same through a Unix socket.
#[cfg(unix)]
async fn on_a_socket(_: Need) -> Subject {
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("unix:{}", folder.path().join("socket").display());
    let server = Server::builder().listen(address).start().await;
    subject(server.expect("a free path")).keeping(folder)
}

fn subject(server: Server) -> Subject {
    let options = EtcdOptions {
        endpoints: vec![server.url().to_owned()],
        ..EtcdOptions::default()
    };
    let etcd: Arc<dyn Backend> = Arc::new(Etcd::new(options).expect("a good endpoint"));
    Subject::from(etcd).keeping(server)
}

conformance!(served, served);
#[cfg(unix)]
conformance!(on_a_socket, on_a_socket);
