//! Host management and shared configuration, end to end: hosts register and vanish when they die, a
//! list and a load balancer follow them, and all of them take new settings without a restart.
//!
//! `cargo run -p quorate --features config --example fleet [URL]`

use std::{env, thread, time::Duration};

use quorate::{Change, Client, Instance, Result, Strategy};
use serde::{Deserialize, Serialize};
use tokio::{runtime, sync::oneshot};

/// What all hosts share: credentials and flags.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Settings {
    database: String,
    password: String,
    maintenance: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let url = env::args().nth(1).unwrap_or_else(|| "mem:fleet".to_owned());
    let operator = Client::connect(url.as_str())
        .await?
        .namespace("example-fleet");
    let settings = operator.config::<Settings>("settings.toml");
    settings
        .set(&Settings {
            database: "10.0.0.2:5432".to_owned(),
            password: "first".to_owned(),
            maintenance: false,
        })
        .await?;

    // Each host is a process of its own; here it is a thread with a client of its own.
    let mut hosts: Vec<_> = (1..=3)
        .map(|number| start_host(url.clone(), number))
        .collect();

    // The load balancer: complete from the beginning, then told every change.
    let mut tracker = operator.service("web").track().await?;
    while tracker.snapshot().len() < 3 {
        tracker.next().await?;
    }
    for (id, host) in tracker.snapshot().iter() {
        println!("{id} is at {} in {:?}", host.address, host.metadata("rack"));
    }
    let picker = tracker.picker(Strategy::RoundRobin);
    let picked: Vec<_> = (0..4)
        .filter_map(|_| Some(picker.pick()?.id().to_owned()))
        .collect();
    println!("requests go to {}", picked.join(", "));

    println!("the operator changes the password");
    settings
        .update(|settings| settings.password = "second".to_owned())
        .await?;
    for (_, told) in &mut hosts {
        let _ = told.await; // each host says that it has taken it over
    }

    println!("one host dies");
    let (die, _) = hosts.remove(0);
    let _ = die.send(());
    loop {
        if let Change::Left(id) = tracker.next().await? {
            println!("{id} has vanished; {} are left", tracker.snapshot().len());
            return Ok(());
        }
    }
}

/// Runs a host until it is told to die, which it does without a farewell. Tells when it has taken over
/// other settings than its first.
fn start_host(url: String, number: u32) -> (oneshot::Sender<()>, oneshot::Receiver<()>) {
    let (die, dead) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            tokio::select! {
                ended = host(url, number, tell) => eprintln!("host {number} ended: {ended:?}"),
                _ = dead => {}
            }
        });
    });
    (die, told)
}

async fn host(url: String, number: u32, tell: oneshot::Sender<()>) -> Result<()> {
    let client = Client::connect(url.as_str())
        .await?
        .namespace("example-fleet");
    let mut settings = client.config::<Settings>("settings.toml").watch().await?;
    let here = Instance::new(format!("10.0.1.{number}:8080")).meta("rack", format!("r{number}"));
    let service = client
        .service("web")
        .ttl(Duration::from_secs(2))
        .take_over();
    let _registration = service.register(format!("web-{number}"), here).await?;
    settings.next().await?;
    println!("web-{number} takes over: {:?}", settings.current());
    let _ = tell.send(());
    std::future::pending().await
}
