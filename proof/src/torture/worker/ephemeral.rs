//! Keeps ephemeral keys, and registers instances.

use std::future::Future;

use futures_util::future::join_all;
use quorate::{EphemeralState, EphemeralStates, Instance, Layout, Result};

use super::{Desk, millis};
use crate::history::What;

/// How many keys, or instances, one process keeps.
const KEYS: usize = 3;

/// Keeps ephemeral keys: makes them, gives them values, gives them up.
pub(super) async fn keys(desk: &Desk) {
    join_all((0..KEYS).map(|number| key(desk, number))).await;
}

async fn key(desk: &Desk, number: usize) {
    let name = format!("eph/{}-{number}", desk.process);
    while !desk.is_stopping() {
        match desk
            .unless_stopping(desk.timed("create", 2, desk.client.ephemeral(&name).create("0")))
            .await
        {
            None => return,
            Some(Ok(key)) => {
                let values = async {
                    for value in 1..fastrand::u32(5..40) {
                        desk.rest(millis(100), millis(800)).await;
                        let _ = desk.timed("set", 1, key.set(value.to_string())).await;
                        if desk.is_stopping() {
                            return;
                        }
                    }
                };
                note_while(desk, &name, key.states(), values).await;
                give_up(desk, &name, key.release()).await;
            }
            Some(Err(error)) => desk.failed("create", &error).await,
        }
    }
}

/// Registers instances: changes them, and withdraws them.
pub(super) async fn instances(desk: &Desk) {
    join_all((0..KEYS).map(|number| instance(desk, number))).await;
}

/// The service that is tracked. Its values are the addresses alone, so that they can be compared.
pub(super) const SERVICE: &str = "svc";
pub(super) const LAYOUT: Layout = Layout::Raw;

async fn instance(desk: &Desk, number: usize) {
    let service = desk.client.service(SERVICE).layout(LAYOUT);
    let id = format!("{}-{number}", desk.process);
    let name = format!("{SERVICE}/{id}");
    let address = |serial: u32| Instance::new(format!("{id}:{serial}"));
    while !desk.is_stopping() {
        match desk
            .unless_stopping(desk.timed("register", 2, service.register(&id, address(0))))
            .await
        {
            None => return,
            Some(Ok(mut registration)) => {
                let states = registration.states();
                let changes = async {
                    for serial in 1..fastrand::u32(3..20) {
                        desk.rest(millis(200), millis(1500)).await;
                        let set = registration.set(address(serial));
                        let _ = desk.timed("set of an instance", 1, set).await;
                        if desk.is_stopping() {
                            return;
                        }
                    }
                };
                note_while(desk, &name, states, changes).await;
                give_up(desk, &name, registration.release()).await;
            }
            Some(Err(error)) => desk.failed("register", &error).await,
        }
    }
}

/// Notes how a key stands while something is done to it.
async fn note_while(
    desk: &Desk,
    key: &str,
    mut states: EphemeralStates,
    work: impl Future<Output = ()>,
) {
    let note = |state: EphemeralState| {
        desk.note(What::Kept {
            key: key.to_owned(),
            state: match state {
                EphemeralState::Present { .. } => "present".to_owned(),
                EphemeralState::Recreating => "recreating".to_owned(),
                other => format!("{other:?}"),
            },
        });
    };
    note(states.current());
    let follow = async {
        loop {
            note(states.changed().await);
        }
    };
    tokio::select! {
        () = work => {}
        () = follow => {}
    }
}

async fn give_up(desk: &Desk, key: &str, release: impl Future<Output = Result<()>>) {
    desk.note(What::GivenUp {
        key: key.to_owned(),
    });
    if let Err(error) = desk.timed("release of a key", 1, release).await {
        desk.failed("release", &error).await;
    }
    desk.rest(millis(10), millis(500)).await;
}
