//! A client of a server that lies: all recipes, over gRPC.

use std::{sync::Arc, time::Duration};

use quorate::{
    Client, ConnectOptions,
    backend::etcd::{Etcd, EtcdOptions, Pipes, User},
};
use quorate_server::fuzzing::Subject;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use crate::{
    hostile::{
        clients::{PROGRAMS, call},
        lies::Lies,
        server,
    },
    paused,
};

/// How long what was left behind may take to clean up: the longest lease of a program, and its retries.
const CLEAN_UP: Duration = Duration::from_secs(4 * 3600);

/// Runs one input: a program, how it connects, and what the server makes of it.
pub(crate) fn feed(input: &[u8]) {
    let [program, how, lies @ ..] = input else {
        return;
    };
    fastrand::seed(input.len() as u64);
    let program = PROGRAMS[usize::from(*program) % PROGRAMS.len()];
    paused(async {
        let subject = Subject::start();
        seed(&subject).await;
        let tasks = Handle::current().metrics().num_alive_tasks();

        let mut options = EtcdOptions::default();
        if how & 1 != 0 {
            options.user = Some(User {
                name: "alice".into(),
                password: "secret".into(),
            });
        }
        if how & 2 != 0 {
            options.endpoints = vec!["http://a:1".into(), "http://b:1".into()];
        }
        if how & 8 != 0 {
            // Whoever wants no time-out may write this.
            options.attempt_timeout = Duration::MAX;
            options.connect_timeout = Duration::MAX;
            options.keepalive_timeout = Duration::MAX;
            options.keepalive_interval = Duration::MAX;
        }
        let namespace = if how & 4 != 0 { "names" } else { "" };
        let pipes = server::pipes(&subject, Lies::new(lies));
        let client = connect(pipes, options, namespace);
        program(&client).await;
        // An error tells that the session could not be ended.
        let _ = call("close", client.close()).await;
        drop(client);

        cleaned_up(tasks).await;
        subject.stop().await;
    });
}

fn connect(pipes: Pipes, options: EtcdOptions, namespace: &str) -> Client {
    let etcd = Etcd::through(pipes, options.clone()).expect("options that make sense");
    let options = ConnectOptions::from(options).namespace(namespace);
    Client::with_backend_and(Arc::new(etcd), options)
}

/// What there is before.
async fn seed(subject: &Subject) {
    let honest = server::pipes(subject, Lies::new(&[]));
    let client = connect(honest, EtcdOptions::default(), "");
    for step in 0..5 {
        let key = format!("seed/{step}");
        client.put(key, "old").await.expect("an honest server");
    }
    client
        .put("names/limits.json", "{}")
        .await
        .expect("an honest server");
    client.close().await.expect("an honest server");
    drop(client);
    // The server's tasks of the connection end as well.
    sleep(Duration::from_secs(60)).await;
}

/// Waits until no more tasks are left than there were.
async fn cleaned_up(before: usize) {
    let begun = Instant::now();
    loop {
        let left = Handle::current().metrics().num_alive_tasks();
        if left <= before {
            return;
        }
        assert!(
            begun.elapsed() < CLEAN_UP,
            "{} tasks are left",
            left - before
        );
        sleep(Duration::from_secs(10)).await;
    }
}
