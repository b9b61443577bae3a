//! What is asked: our server, or a real etcd.

use std::path::PathBuf;

use quorate_server::Server;

use super::etcd;

/// A store that nobody else uses.
pub struct Subject {
    url: String,
    kept: Kept,
}

#[allow(dead_code)] // it lives as long as the subject
enum Kept {
    Ours(Server),
    Etcd(etcd::Cluster),
}

impl Subject {
    pub async fn ours() -> Self {
        let server = Server::start().await.unwrap();
        let url = server.url().to_owned();
        let kept = Kept::Ours(server);
        Self { url, kept }
    }

    pub async fn etcd(program: PathBuf) -> Self {
        let start = || etcd::Cluster::builder().program(program).fast().start();
        let cluster = tokio::task::spawn_blocking(start).await.unwrap();
        let url = cluster.endpoint(0);
        let kept = Kept::Etcd(cluster);
        Self { url, kept }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The host and the port.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Another one of the same kind.
    pub async fn another(&self) -> Self {
        match &self.kept {
            Kept::Ours(_) => Self::ours().await,
            Kept::Etcd(_) => Self::etcd(newest()).await,
        }
    }
}

/// Runs one body on our server and on a real etcd, the newest there is, and returns what each told.
pub async fn on_both<T>(body: impl AsyncFn(Subject) -> T) -> (T, T) {
    let (ours, etcd) = (Subject::ours().await, Subject::etcd(newest()).await);
    tokio::join!(body(ours), body(etcd))
}

/// The newest etcd that there is.
pub fn newest() -> PathBuf {
    etcd::server_35().unwrap_or_else(etcd::server)
}

/// Whether there is an etcd 3.5. The server follows it where 3.4 lets everybody do what 3.5 refuses.
pub fn has_etcd_3_5() -> bool {
    etcd::server_35().is_some()
}
