//! A gRPC client that follows its servers as they come and go.
//!
//! `cargo run --features tonic --example grpc_client [URL]`; the URL is `mem:` if none is given. The
//! servers are two of gRPC's health service, in this process.

use std::{error::Error, time::Duration};

use quorate::{
    Client, Instance, Registration, Service,
    balance::{self, Options},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".into());
    let client = Client::connect(url).await?.namespace("example-grpc-client");
    let health = client.service("health").take_over();

    let tracker = health.track().await?;
    let options = Options::new().wait(Duration::from_secs(5));
    let mut caller = HealthClient::new(balance::channel(&tracker, options));

    let first = Server::start(&health, "health-1").await?;
    let second = Server::start(&health, "health-2").await?;
    for call in 1..=4 {
        caller.check(HealthCheckRequest::default()).await?;
        println!("call {call} was answered");
    }
    first.leave().await?;
    for call in 5..=8 {
        caller.check(HealthCheckRequest::default()).await?;
        println!("call {call} was answered, with one server gone");
    }
    second.leave().await?;
    client.close().await?;
    Ok(())
}

struct Server {
    registration: Registration,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), transport::Error>>,
}

impl Server {
    async fn start(service: &Service, id: &str) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (_, health) = tonic_health::server::health_reporter();
        let serving = transport::Server::builder()
            .add_service(health)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            });
        let task = tokio::spawn(serving);
        let registration = service
            .register(id, Instance::new(address.to_string()))
            .await?;
        println!("{id} serves at {address}");
        Ok(Self {
            registration,
            stop,
            task,
        })
    }

    /// Goes without failing a call: clients turn away first.
    async fn leave(mut self) -> Result<(), Box<dyn Error>> {
        self.registration.drain().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let _ = self.stop.send(());
        self.task.await??;
        println!("{} has left", self.registration.id());
        self.registration.release().await?;
        Ok(())
    }
}
