//! What clients do with sessions.

use std::{sync::Arc, time::Duration};

use quorate::{Client, Error, ErrorKind, Session, SessionState};
use tokio::time::{sleep, timeout};

use super::Sessions;
use crate::simulate::{cut::cut_after, glance::Begun, scheduler::MachineId, world::World};

/// Makes sessions, and lets go of them in all ways.
pub(super) struct Worker {
    pub(super) recipe: Arc<Sessions>,
    pub(super) world: Arc<World>,
    pub(super) client: MachineId,
    pub(super) random: fastrand::Rng,
    pub(super) kept: Vec<Arc<Session>>,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let client = self.world.members[self.client].client();
        while self.world.storms() {
            if self.random.u8(..3) == 0 {
                let late = self
                    .random
                    .u64(..self.world.schedule.ttl.as_millis() as u64 / 4);
                let faults = &self.world.members[self.client].faults;
                faults.delay_beats(1, Duration::from_millis(late));
            }
            match self.open(&client).await {
                Some(Ok(session)) => {
                    self.live(&session).await;
                    self.end(session).await;
                }
                Some(Err(error)) => self.expected(&error),
                None => self.world.count("cancelled"),
            }
            sleep(Duration::from_millis(self.random.u64(..300))).await;
            if self.random.u8(..4) == 0 {
                self.kept.clear();
            }
        }
    }

    /// Opens a session, until it loses patience: after a while, or between any two steps.
    async fn open(&mut self, client: &Client) -> Option<Result<Arc<Session>, Error>> {
        let is_shared = self.random.bool();
        let ttl = Duration::from_secs(self.random.u64(1..4));
        let open = async {
            match is_shared {
                true => client.session().await,
                false => client.session_with_ttl(ttl).await,
            }
        };
        let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..20));
        let begun = Begun::now(&self.world, self.client);
        let session = cut_after(steps, open).await;
        self.recipe
            .bounded(&self.world, self.client, begun, "to open a session");
        session.map(|session| {
            session.map(|session| {
                let (recipe, world) = (&self.recipe, &self.world);
                recipe.given(world, self.client, session, is_shared)
            })
        })
    }

    /// Follows a session for a while.
    async fn live(&mut self, session: &Session) {
        for _ in 0..self.random.u64(..6) {
            let patience = Duration::from_millis(self.random.u64(..2000));
            let known = session.state();
            match self.random.u8(..4) {
                0 => {
                    let change = session.state_changed(known);
                    let change = timeout(patience, change).await;
                    if matches!(known, SessionState::Lost(_)) && change.is_ok() {
                        let what = format_args!("{change:?} comes after {known:?}");
                        self.world.broken("I14", what);
                    }
                }
                1 => drop(timeout(patience, session.deadline_changed(session.deadline())).await),
                _ => sleep(patience).await,
            }
            if session.is_lost() != session.remaining().is_zero() {
                self.world
                    .broken("I14", format_args!("{session:?} is lost and remains"));
            }
            if session.remaining() > session.ttl() {
                self.world
                    .broken("I1", format_args!("{session:?} remains for too long"));
            }
        }
    }

    async fn end(&mut self, session: Arc<Session>) {
        match self.random.u8(..5) {
            0 => {
                let begun = Begun::now(&self.world, self.client);
                let closed = session.close().await;
                self.recipe
                    .bounded(&self.world, self.client, begun, "to close a session");
                let lives = self.world.leases().contains(&session.lease());
                if closed.is_ok() && lives {
                    self.world
                        .broken("I5", format_args!("{session:?} is closed, and lives"));
                }
                self.is_closed(&session);
            }
            1 => {
                drop(cut_after(Some(self.random.u32(1..6)), session.close()).await);
                self.is_closed(&session);
            }
            2 | 3 => drop(session),
            _ => self.kept.push(session),
        }
    }

    fn is_closed(&self, session: &Session) {
        if !session.is_lost() {
            self.world
                .broken("I14", format_args!("{session:?} was closed"));
        }
    }

    fn expected(&self, error: &Error) {
        let kinds = [ErrorKind::Timeout, ErrorKind::Unavailable];
        self.world.expect(error, &kinds);
    }
}
