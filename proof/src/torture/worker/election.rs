//! Leads, and believes in it.

use std::cell::Cell;

use quorate::{Key, Session, Term};

use super::{
    Desk, between,
    hold::{Belief, Counter},
    millis,
};
use crate::history::{What, now};

const NAME: &str = "lead";

/// Campaigns, leads for a while and resigns, again and again.
pub(super) async fn candidate(desk: &Desk) {
    let election = desk
        .client
        .election(NAME)
        .value(&desk.process)
        .ttl(desk.ttl);
    while !desk.is_stopping() {
        let asked = now();
        let mut leadership = match desk.unless_stopping(election.campaign()).await {
            None => return,
            Some(Ok(leadership)) => leadership,
            Some(Err(error)) => {
                desk.failed("campaign", &error).await;
                continue;
            }
        };
        let token = leadership.token().0;
        desk.note(What::Acquired {
            hold: NAME.to_owned(),
            token,
            asked,
        });
        let belief = Belief {
            desk,
            hold: NAME,
            token,
            session: Some(leadership.session().clone()),
        };
        // It is a write like any: under a fault it may fail.
        let proclaim = leadership.proclaim(format!("{} leads", desk.process));
        let _ = desk.timed("proclaim", 1, proclaim).await;
        let counter = Counter::new(desk, NAME, token, |key| leadership.fenced(key));
        let time = between(millis(100), desk.ttl * 2);
        belief.work(&counter, time, || leadership.is_held()).await;
        match leadership.loss() {
            None => belief.end("resigned".to_owned()),
            Some(loss) => belief.lost(format!("{loss:?}"), leadership.lost()).await,
        }
        if let Err(error) = desk.timed("resign", 1, leadership.resign()).await {
            desk.failed("resign", &error).await;
        }
        desk.rest(millis(1), millis(100)).await;
    }
}

/// Leads whenever it can, for a while each time.
pub(super) async fn elector(desk: &Desk) {
    let election = desk.client.election(NAME).value(&desk.process);
    while !desk.is_stopping() {
        let asked = Cell::new(now());
        let asked = &asked;
        let terms = election.run(|term| async move {
            lead(desk, &term, asked.get()).await;
            // A term that was lost is followed by another campaign; else the run is over.
            if !term.is_held() {
                asked.set(now());
                term.stopping().await;
            }
        });
        match desk.unless_stopping(terms).await {
            None => return,
            Some(Ok(())) => desk.rest(millis(1), millis(100)).await,
            Some(Err(error)) => desk.failed("elector", &error).await,
        }
    }
}

async fn lead(desk: &Desk, term: &Term, asked: u64) {
    let token = term.token().0;
    desk.note(What::Acquired {
        hold: NAME.to_owned(),
        token,
        asked,
    });
    let belief = Belief {
        desk,
        hold: NAME,
        token,
        session: session_of(desk, term.key()).await,
    };
    let counter = Counter::new(desk, NAME, token, |key| term.fenced(key));
    let time = between(millis(100), desk.ttl * 2);
    belief.work(&counter, time, || term.is_held()).await;
    if term.is_held() {
        belief.end("ended".to_owned());
    } else {
        belief.lost("lost".to_owned(), term.stopping()).await;
    }
}

/// The session that a term lives by: the shared one, unless that was lost meanwhile.
async fn session_of(desk: &Desk, key: &Key) -> Option<Session> {
    let session = desk.client.session().await.ok()?;
    let lease = format!("/{}-", session.lease());
    key.as_str()?.contains(&lease).then_some(session)
}
