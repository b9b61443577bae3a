//! A TCP proxy on loopback that holds back one direction, or both, on demand.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// A direction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flow {
    Requests,
    Answers,
}

/// What passes.
#[derive(Clone, Copy, Debug)]
struct Passes {
    requests: bool,
    answers: bool,
}

/// A proxy in front of one member; it ends when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    passes: Arc<watch::Sender<Passes>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Stands in for the member at an endpoint, such as `http://127.0.0.1:2379`.
    pub(crate) async fn before(endpoint: &str) -> Result<Self, String> {
        let member = endpoint.rsplit('/').next().unwrap_or(endpoint).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let passes = Arc::new(watch::Sender::new(Passes {
            requests: true,
            answers: true,
        }));
        let told = Arc::clone(&passes);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, member.clone(), told.subscribe()));
            }
        });
        Ok(Self {
            address,
            passes,
            accepting,
        })
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets one direction pass, or not. What is held back is delivered later.
    pub(crate) fn set(&self, flow: Flow, passes: bool) {
        self.passes.send_modify(|all| match flow {
            Flow::Requests => all.requests = passes,
            Flow::Answers => all.answers = passes,
        });
    }

    /// Whether one direction passes.
    pub(crate) fn passes(&self, flow: Flow) -> bool {
        let all = *self.passes.borrow();
        match flow {
            Flow::Requests => all.requests,
            Flow::Answers => all.answers,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection until one side ends it.
async fn carry(client: TcpStream, member: String, mut passes: watch::Receiver<Passes>) {
    if passes.wait_for(|passes| passes.requests).await.is_err() {
        return;
    }
    let Ok(member) = TcpStream::connect(member).await else {
        return;
    };
    let _ = (member.set_nodelay(true), client.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_member, to_member) = member.into_split();
    tokio::select! {
        () = pump(from_client, to_member, passes.clone(), |passes| passes.requests) => (),
        () = pump(from_member, to_client, passes, |passes| passes.answers) => (),
    }
}

/// Carries one direction.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut all: watch::Receiver<Passes>,
    passes: impl Fn(&Passes) -> bool,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        if all.wait_for(&passes).await.is_err() || to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}
