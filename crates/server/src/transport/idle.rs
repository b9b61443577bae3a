//! When nobody needs a server.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::store::shared::Shared;

/// How long the end of the last lease may go unnoticed, if it ends before its time.
const GLANCE: Duration = Duration::from_secs(1);

/// How many connections there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(watch::Sender<usize>);

impl Open {
    /// Counts one until what is returned is dropped.
    pub(crate) fn count(&self) -> Counted {
        self.0.send_modify(|open| *open += 1);
        Counted(self.clone())
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct Counted(Open);

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(Open(open)) = self;
        open.send_modify(|open| *open -= 1);
    }
}

/// Waits until there was no connection and no lease for so long.
pub(crate) async fn idle(open: &Open, shared: &Arc<Shared>, after: Duration) {
    let mut open = open.0.subscribe();
    loop {
        // The sender is borrowed, so it is there.
        let _ = open.wait_for(|&open| open == 0).await;
        open.mark_unchanged();
        tokio::select! {
            () = unleased(shared) => {}
            _ = open.changed() => continue,
        }
        let end = Instant::now().checked_add(after);
        let disturbed = match end {
            Some(end) => timeout_at(end, open.changed()).await.is_ok(),
            None => open.changed().await.is_ok(),
        };
        let (has_leases, _) = shared.look(|state, _| state.store.next_expiry().is_some());
        if !disturbed && !has_leases {
            return;
        }
    }
}

async fn unleased(shared: &Arc<Shared>) {
    let left = || {
        let (left, _) = shared.look(|state, now| {
            let next = state.store.next_expiry();
            next.map(|next| next.saturating_sub(now))
        });
        left
    };
    while let Some(left) = left() {
        sleep(left.min(GLANCE)).await;
    }
}
