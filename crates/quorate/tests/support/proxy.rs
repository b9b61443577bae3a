//! A TCP proxy on loopback whose network fails on demand.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the network does to every connection, new and old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everything passes.
    Pass,
    /// Connections stay open and nothing passes, in either direction.
    BlackHole,
    /// Everything passes, each chunk this much later.
    Delay(Duration),
    /// Requests pass, and answers do not.
    Mute,
    /// Connections are reset, and new ones at once.
    Reset,
}

/// A proxy in front of one server; it ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Stands in for the server at `url`, such as `http://127.0.0.1:2379`.
    pub async fn before(url: &str) -> Self {
        let server = url.rsplit('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(watch::Sender::new(Network::Pass));
        let sender = Arc::clone(&network);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(client, server.clone(), sender.subscribe()));
            }
        });
        Self {
            address,
            network,
            accepting,
        }
    }

    /// Where clients reach the proxy.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what the network does.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.network.send_replace(Network::Reset);
    }
}

/// Carries one connection until it ends or is reset.
async fn serve(client: TcpStream, server: String, mut network: watch::Receiver<Network>) {
    // Closing with unread data, or with a linger of zero, resets.
    client.set_zero_linger().unwrap();
    let mut reset = network.clone();
    let carry = async {
        // A black hole also swallows what a new connection sends first.
        let open = |network: &Network| *network != Network::BlackHole;
        if network.wait_for(open).await.is_err() {
            return;
        }
        let Ok(server) = TcpStream::connect(server).await else {
            return;
        };
        server.set_nodelay(true).unwrap();
        client.set_nodelay(true).unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = pump(from_client, to_server, network.clone(), false) => (),
            () = pump(from_server, to_client, network, true) => (),
        }
    };
    tokio::select! {
        () = carry => (),
        _ = reset.wait_for(|network| *network == Network::Reset) => (),
    }
}

/// Carries one direction until it ends. What is held back is delivered once the network passes again.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
    answers: bool,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(size @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let passes = |network: &Network| match network {
            Network::BlackHole => false,
            Network::Mute => !answers,
            Network::Pass | Network::Delay(_) | Network::Reset => true,
        };
        let Ok(now) = network.wait_for(passes).await.map(|now| *now) else {
            return;
        };
        if let Network::Delay(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}
