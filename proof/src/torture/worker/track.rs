//! Tracks a service, and follows a leader.

use futures_util::StreamExt;
use quorate::{Instances, Tracker};

use super::{
    Desk,
    ephemeral::{LAYOUT, SERVICE},
};
use crate::history::What;

/// Does both until the process shall stop.
pub(super) async fn follow(desk: &Desk) {
    tokio::join!(service(desk), leader(desk));
}

async fn service(desk: &Desk) {
    let service = desk.client.service(SERVICE).layout(LAYOUT);
    let tracker = loop {
        match desk.unless_stopping(service.track()).await {
            None => return,
            Some(Ok(tracker)) => break tracker,
            Some(Err(error)) => desk.failed("track", &error).await,
        }
    };
    desk.unless_stopping(views(desk, tracker)).await;
}

async fn views(desk: &Desk, mut tracker: Tracker) {
    let staleness = tracker.clone();
    let mut view = tracker.snapshot();
    let mut stale = staleness.is_stale();
    loop {
        note(desk, &view, stale);
        let changed = tokio::select! {
            changed = staleness.stale_changed(stale) => changed.map(|now| stale = now),
            changed = tracker.changed() => changed.map(|now| view = now),
        };
        if let Err(error) = changed {
            return desk.unexpected(format!("tracker: {error}"));
        }
    }
}

fn note(desk: &Desk, view: &Instances, stale: bool) {
    let keys = view
        .iter()
        .map(|(id, instance)| (format!("{SERVICE}/{id}"), instance.address.clone()));
    desk.note(What::View {
        prefix: format!("{SERVICE}/"),
        revision: view.revision().0,
        keys: keys.collect(),
        stale,
    });
}

async fn leader(desk: &Desk) {
    let mut leaders = desk.client.election("lead").observe();
    while let Some(leader) = desk.unless_stopping(leaders.next()).await {
        match leader {
            Some(Ok(leader)) => desk.note(What::Leads {
                election: "lead".to_owned(),
                token: leader.as_ref().map(|leader| leader.token.0),
            }),
            Some(Err(error)) => return desk.unexpected(format!("leaders: {error}")),
            None => return desk.unexpected("the leaders ended by themselves"),
        }
    }
}
