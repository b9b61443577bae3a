//! The balanced channel: follows its servers, and never hangs.
#![cfg(feature = "tonic")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use quorate::{
    Client, Instance, Registration, Service, Tracker,
    balance::{self, Channel, Options},
};
use support::until;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, transport};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// A gRPC server that counts its calls.
struct Server {
    address: String,
    calls: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let calls = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let count = Arc::clone(&calls);
        let (_, health) = tonic_health::server::health_reporter();
        let health = tonic::service::interceptor::InterceptedService::new(health, move |request| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(request)
        });
        let stopped = stop.clone().cancelled_owned();
        let server = transport::Server::builder()
            .add_service(health)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped);
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self {
            address,
            calls,
            stop,
            task,
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Ends calls that run, and takes no others.
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    fn instance(&self) -> Instance {
        Instance::new(&self.address)
    }
}

async fn client() -> Client {
    Client::connect("mem:").await.unwrap()
}

fn api(client: &Client) -> Service {
    client.service("api")
}

async fn register(client: &Client, id: &str, server: &Server) -> Registration {
    api(client).register(id, server.instance()).await.unwrap()
}

async fn register_at(client: &Client, id: &str, address: &str) -> Registration {
    let instance = Instance::new(address);
    api(client).register(id, instance).await.unwrap()
}

async fn track(client: &Client) -> Tracker {
    api(client).track().await.unwrap()
}

async fn check(channel: &Channel) -> Result<(), tonic::Status> {
    let mut health = HealthClient::new(channel.clone());
    health.check(HealthCheckRequest::default()).await.map(drop)
}

#[tokio::test]
async fn calls_are_spread_over_all_instances() {
    let client = client().await;
    let servers = [
        Server::start().await,
        Server::start().await,
        Server::start().await,
    ];
    let mut registrations = Vec::new();
    for (id, server) in ["a", "b", "c"].into_iter().zip(&servers) {
        registrations.push(register(&client, id, server).await);
    }
    let channel = balance::channel(&track(&client).await, Options::new());
    for _ in 0..30 {
        check(&channel).await.unwrap();
    }
    assert!(servers.iter().all(|server| server.calls() == 10));
}

#[tokio::test]
async fn a_service_without_an_instance_fails_at_once_and_says_so() {
    let client = client().await;
    let tracker = track(&client).await;
    let channel = balance::channel(&tracker, Options::new());
    let error = timeout(Duration::from_millis(500), check(&channel))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.message(), "service api has no instance");

    let server = Server::start().await;
    let mut registration = register(&client, "a", &server).await;
    registration.drain().await.unwrap();
    until("it is known", async || {
        tracker.peek().get("a").is_some_and(|a| a.draining)
    })
    .await;
    let error = check(&channel).await.unwrap_err();
    assert_eq!(
        error.message(),
        "service api: all of 1 instances drain or have no weight"
    );
    registration.undrain().await.unwrap();
    until("it is known", async || {
        tracker.peek().get("a").is_some_and(|a| !a.draining)
    })
    .await;
    check(&channel).await.unwrap();
}

#[tokio::test]
async fn a_call_waits_for_an_instance_as_long_as_it_is_told_to() {
    let client = client().await;
    let tracker = track(&client).await;
    let short = Options::new().wait(Duration::from_millis(300));
    let start = Instant::now();
    let error = check(&balance::channel(&tracker, short)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(start.elapsed() >= Duration::from_millis(300));

    let channel = balance::channel(&tracker, Options::new().wait(Duration::from_secs(20)));
    let call = tokio::spawn(async move { check(&channel).await });
    sleep(Duration::from_millis(100)).await;
    assert!(!call.is_finished());
    let server = Server::start().await;
    let _registration = register(&client, "a", &server).await;
    call.await.unwrap().unwrap();
}

/// Calls without a pause until it is stopped.
struct Load {
    stop: CancellationToken,
    callers: Vec<JoinHandle<Vec<tonic::Status>>>,
}

impl Load {
    fn on(channel: &Channel) -> Self {
        let stop = CancellationToken::new();
        let caller = |_| {
            let (channel, stop) = (channel.clone(), stop.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.is_cancelled() {
                    failures.extend(check(&channel).await.err());
                }
                failures
            })
        };
        let callers = (0..4).map(caller).collect();
        Self { stop, callers }
    }

    /// Stops, and tells which calls failed.
    async fn stop(self) -> Vec<tonic::Status> {
        self.stop.cancel();
        let mut failures = Vec::new();
        for caller in self.callers {
            failures.extend(caller.await.unwrap());
        }
        failures
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_join_and_leave_under_load_without_a_failed_call() {
    let client = client().await;
    let mut there = BTreeMap::new();
    let first = Server::start().await;
    there.insert(0, (register(&client, "i-0", &first).await, first));
    let tracker = track(&client).await;
    let channel = balance::channel(&tracker, Options::new());
    let load = Load::on(&channel);
    for round in 1..=12 {
        let server = Server::start().await;
        let registration = register(&client, &format!("i-{round}"), &server).await;
        until("the new one is called", async || server.calls() > 10).await;
        there.insert(round, (registration, server));
        if there.len() > 2 {
            let (mut registration, server) = there.pop_first().unwrap().1;
            let id = registration.id().to_owned();
            registration.drain().await.unwrap();
            until("it is known to drain", async || {
                tracker.peek().get(&id).is_some_and(|one| one.draining)
            })
            .await;
            // What was picked before is called; then nothing is any more.
            server.stop().await;
            registration.release().await.unwrap();
        }
    }
    let failures = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_just_goes_away_costs_only_the_calls_that_were_on_their_way() {
    let client = client().await;
    let servers = [Server::start().await, Server::start().await];
    let mut registrations = Vec::new();
    for (id, server) in ["a", "b"].into_iter().zip(&servers) {
        registrations.push(register(&client, id, server).await);
    }
    let channel = balance::channel(&track(&client).await, Options::new());
    let load = Load::on(&channel);
    until("both are called", async || {
        servers.iter().all(|server| server.calls() > 10)
    })
    .await;
    // Still registered: nobody told that it goes.
    let [first, second] = servers;
    first.stop().await;
    let before = second.calls();
    until("the other gets all", async || second.calls() > before + 200).await;
    // What each of the four had sent when the server had closed already.
    let failures = load.stop().await;
    assert!(failures.len() <= 4, "{failures:?}");
    assert!(
        failures
            .iter()
            .all(|failure| failure.code() == Code::Unavailable)
    );
}

#[tokio::test]
async fn a_call_that_runs_ends_well_when_its_instance_leaves() {
    let client = client().await;
    let tracker = track(&client).await;
    let server = Server::start().await;
    let registration = register(&client, "a", &server).await;
    until("it is known", async || tracker.peek().len() == 1).await;
    let channel = balance::channel(&tracker, Options::new());
    let mut health = HealthClient::new(channel.clone());
    let request = HealthCheckRequest::default();
    let mut stream = health.watch(request).await.unwrap().into_inner();
    assert!(stream.next().await.unwrap().is_ok());
    registration.release().await.unwrap();
    until("it is gone", async || tracker.peek().is_empty()).await;
    assert_eq!(check(&channel).await.unwrap_err().code(), Code::Unavailable);
    // The stream goes on until its server ends it.
    assert!(
        timeout(Duration::from_millis(200), stream.next())
            .await
            .is_err()
    );
    server.task.abort();
}

#[tokio::test]
async fn a_server_that_is_killed_costs_few_calls_and_then_none() {
    let client = client().await;
    let tracker = track(&client).await;
    let (a, b) = (Server::start().await, Server::start().await);
    let _registrations = [
        register(&client, "a", &a).await,
        register(&client, "b", &b).await,
    ];
    until("they are known", async || tracker.peek().len() == 2).await;
    let proxy = Proxy::to(&a.address).await;
    let _proxied = register(
        &client,
        "proxied",
        &Server {
            address: proxy.address.clone(),
            ..Server::start().await
        },
    )
    .await;
    until("it is known", async || tracker.peek().len() == 3).await;
    let channel = balance::channel(&tracker, Options::new());
    for _ in 0..9 {
        check(&channel).await.unwrap();
    }
    // Connections break in the middle, and no other is accepted.
    proxy.kill();
    let mut failures = 0;
    for _ in 0..50 {
        if let Err(error) = check(&channel).await {
            assert_eq!(error.code(), Code::Unavailable);
            failures += 1;
        }
    }
    assert!(failures <= 1, "{failures} calls failed");
    // Now it cannot be connected to: no call fails, for however long.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        check(&channel).await.unwrap();
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_call_that_was_sent_is_not_sent_again() {
    let client = client().await;
    // They take what comes, and then close.
    let taken = Arc::new(AtomicUsize::new(0));
    let mut registrations = Vec::new();
    for id in ["a", "b"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let instance = Instance::new(address);
        registrations.push(api(&client).register(id, instance).await.unwrap());
        let taken = Arc::clone(&taken);
        tokio::spawn(async move {
            loop {
                let connection = listener.accept().await.unwrap();
                taken.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(300)).await;
                drop(connection);
            }
        });
    }
    let channel = balance::channel(&track(&client).await, Options::new());
    let error = check(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("did not answer"), "{error}");
    assert_eq!(taken.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_left_alone_when_calls_have_deadlines() {
    let client = client().await;
    let tracker = track(&client).await;
    let server = Server::start().await;
    let _registration = register(&client, "a", &server).await;
    // It accepts connections and never answers.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let _deaf = api(&client)
        .register("deaf", Instance::new(address))
        .await
        .unwrap();
    until("they are known", async || tracker.peek().len() == 2).await;
    let channel = balance::channel(&tracker, Options::new());
    let mut failures = 0;
    for _ in 0..40 {
        let mut request = Request::new(HealthCheckRequest::default());
        request.set_timeout(Duration::from_millis(100));
        let answer = HealthClient::new(channel.clone()).check(request).await;
        if let Err(error) = answer {
            assert_eq!(error.code(), Code::DeadlineExceeded);
            failures += 1;
        }
    }
    assert!(failures <= 2, "{failures} calls failed");
    assert!(server.calls() >= 38);
}

#[tokio::test]
async fn if_nobody_can_be_called_it_fails_and_says_why() {
    let client = client().await;
    let tracker = track(&client).await;
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = unused.local_addr().unwrap().to_string();
    drop(unused);
    let _a = api(&client)
        .register("a", Instance::new(&address))
        .await
        .unwrap();
    let _b = api(&client)
        .register("b", Instance::new("no address at all"))
        .await
        .unwrap();
    until("they are known", async || tracker.peek().len() == 2).await;
    let channel = balance::channel(&tracker, Options::new());
    for _ in 0..4 {
        let error = timeout(Duration::from_secs(5), check(&channel))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().contains("cannot be called"), "{error}");
    }
    // It comes back at the same address.
    let server = Server::start_at(&address).await;
    until("it is called again", async || check(&channel).await.is_ok()).await;
    assert!(server.calls() > 0);
}

#[tokio::test]
async fn an_instance_that_moves_is_called_where_it_is() {
    let client = client().await;
    let tracker = track(&client).await;
    let (a, b) = (Server::start().await, Server::start().await);
    let mut registration = register(&client, "a", &a).await;
    until("it is known", async || tracker.peek().len() == 1).await;
    let channel = balance::channel(&tracker, Options::new());
    check(&channel).await.unwrap();
    registration.set(b.instance()).await.unwrap();
    until("it is known", async || {
        tracker.peek().get("a").unwrap().address == b.address
    })
    .await;
    check(&channel).await.unwrap();
    assert_eq!((a.calls(), b.calls()), (1, 1));
}

/// An address whose packets are dropped: nobody accepts, and the queue of connections is full.
struct BlackHole {
    address: String,
    _kept: (TcpListener, Vec<JoinHandle<()>>),
}

impl BlackHole {
    async fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut fillers = Vec::new();
        for _ in 0..4 {
            fillers.push(tokio::spawn(async move {
                let _open = TcpStream::connect(address).await;
                std::future::pending::<()>().await;
            }));
        }
        sleep(Duration::from_millis(100)).await;
        let refused = timeout(Duration::from_millis(300), TcpStream::connect(address)).await;
        assert!(refused.is_err(), "it should not be reached");
        Self {
            address: address.to_string(),
            _kept: (listener, fillers),
        }
    }
}

#[tokio::test]
async fn many_calls_at_once_do_not_wait_in_a_row_for_a_host_that_is_cut_off() {
    let client = client().await;
    let server = Server::start().await;
    let hole = BlackHole::new().await;
    let _server = register(&client, "a", &server).await;
    let _hole = register_at(&client, "hole", &hole.address).await;
    let channel = balance::channel(&track(&client).await, Options::new());
    let start = Instant::now();
    let calls = (0..20).map(|_| check(&channel));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_deadline_is_for_all_that_a_call_waits_for() {
    let client = client().await;
    let tracker = track(&client).await;
    let late = async |channel: &Channel| {
        let mut request = Request::new(HealthCheckRequest::default());
        request.set_timeout(Duration::from_millis(200));
        let start = Instant::now();
        let error = HealthClient::new(channel.clone()).check(request).await;
        let error = error.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        assert!(start.elapsed() < Duration::from_millis(800));
        error
    };
    // For an instance.
    let patient = Options::new().wait(Duration::from_secs(20));
    let error = late(&balance::channel(&tracker, patient)).await;
    assert!(
        error.message().contains("service api has no instance"),
        "{error}"
    );
    // For a connection.
    let hole = BlackHole::new().await;
    let _hole = register_at(&client, "hole", &hole.address).await;
    until("it is known", async || tracker.peek().len() == 1).await;
    late(&balance::channel(&tracker, Options::new())).await;
}

#[tokio::test]
async fn the_timeout_of_a_channel_is_for_calls_that_have_none() {
    let client = client().await;
    let server = Server::start().await;
    let slow = Proxy::after(&server.address, Duration::from_millis(500)).await;
    let instance = Instance::new(&slow.address);
    let _registration = api(&client).register("a", instance).await.unwrap();
    let tracker = track(&client).await;
    let options = Options::new().timeout(Duration::from_millis(100));
    let error = check(&balance::channel(&tracker, options.clone())).await;
    assert_eq!(error.unwrap_err().code(), Code::DeadlineExceeded);
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_secs(10));
    let channel = balance::channel(&tracker, options);
    HealthClient::new(channel).check(request).await.unwrap();
}

#[tokio::test]
async fn what_changes_beside_the_address_keeps_the_connection() {
    let client = client().await;
    let server = Server::start().await;
    let proxy = Proxy::to(&server.address).await;
    let instance = Instance::new(&proxy.address);
    let mut registration = api(&client).register("a", instance.clone()).await.unwrap();
    let tracker = track(&client).await;
    let channel = balance::channel(&tracker, Options::new());
    for weight in 1..5 {
        registration
            .set(instance.clone().weight(weight))
            .await
            .unwrap();
        until("it is known", async || {
            tracker.peek().get("a").unwrap().weight == weight
        })
        .await;
        check(&channel).await.unwrap();
    }
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 1);
}

/// Passes connections on until it is killed.
struct Proxy {
    address: String,
    connections: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Proxy {
    async fn to(server: &str) -> Self {
        Self::after(server, Duration::ZERO).await
    }

    /// Passes nothing on for a while.
    async fn after(server: &str, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let (server, stopped) = (server.to_owned(), stop.clone());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            let accept = async {
                loop {
                    let (mut here, _) = listener.accept().await.unwrap();
                    count.fetch_add(1, Ordering::SeqCst);
                    let (server, stopped) = (server.clone(), stopped.clone());
                    tokio::spawn(async move {
                        sleep(pause).await;
                        let mut there = TcpStream::connect(server).await.unwrap();
                        let copy = tokio::io::copy_bidirectional(&mut here, &mut there);
                        tokio::select! {
                            _ = copy => {}
                            () = stopped.cancelled() => {}
                        }
                    });
                }
            };
            tokio::select! {
                () = accept => {}
                () = stopped.cancelled() => {}
            }
        });
        Self {
            address,
            connections,
            stop,
        }
    }

    fn kill(&self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_move_to_and_fro_under_load_are_called_where_they_are() {
    let client = client().await;
    let servers = [Server::start().await, Server::start().await];
    let mut registrations = Vec::new();
    for id in ["a", "b", "c"] {
        registrations.push(register(&client, id, &servers[0]).await);
    }
    let tracker = track(&client).await;
    let channel = balance::channel(&tracker, Options::new());
    let load = Load::on(&channel);
    for round in 0..200 {
        for (n, registration) in registrations.iter_mut().enumerate() {
            let server = &servers[(round + n) % 2];
            registration.set(server.instance()).await.unwrap();
        }
    }
    let [first, second] = servers;
    for registration in &mut registrations {
        registration.set(second.instance()).await.unwrap();
    }
    until("all are known to be there", async || {
        let now = tracker.peek();
        now.iter().all(|(_, one)| one.address == second.address)
    })
    .await;
    sleep(Duration::from_millis(100)).await;
    let before = first.calls();
    check(&channel).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(first.calls(), before);
    let failures = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
}
