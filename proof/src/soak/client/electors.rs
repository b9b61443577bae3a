//! Electors, which come and go, and who follows the leader.

use std::{cell::RefCell, collections::BTreeMap};

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use quorate::{Elector, LeaderState, Result, Revision};

use super::{Agreed, Floor, probed};
use crate::torture::worker::millis;

const NAME: &str = "lead";
const ELECTORS: usize = 3;
const FOLLOWERS: usize = 3;

#[derive(Default)]
pub(super) struct Electors {
    all: RefCell<BTreeMap<usize, Elector>>,
    /// The token of the leader whom each follower was told of last.
    told: RefCell<BTreeMap<usize, Option<Revision>>>,
}

pub(super) fn work<'a>(floor: &'a Floor<'_>, all: &mut FuturesUnordered<LocalBoxFuture<'a, ()>>) {
    for slot in 0..ELECTORS {
        let step = async move || replace(floor, slot).await;
        all.push(floor.churn("electors", millis(1000), step).boxed_local());
    }
    for slot in 0..FOLLOWERS {
        let once = async move || follow(floor, slot).await;
        all.push(floor.follow("leaders", millis(4000), once).boxed_local());
    }
}

/// Exactly one leads, and everybody knows who.
pub(super) async fn agree(floor: &Floor<'_>) -> [(&'static str, Agreed); 2] {
    let election = floor.probe.election(NAME);
    let found = async {
        let leader = probed(election.leader()).await?.ok_or("nobody leads")?;
        Ok((leader.token, probed(election.candidates()).await?.len()))
    };
    match found.await {
        Ok((token, candidates)) => [
            ("electors", one_leads(floor, token, candidates)),
            ("leaders", all_know(floor, token)),
        ],
        Err(why) => [("electors", Err(why)), ("leaders", Ok(()))],
    }
}

fn one_leads(floor: &Floor<'_>, token: Revision, candidates: usize) -> Agreed {
    let electors = floor.electors.all.borrow();
    let mut leading = 0;
    for (slot, elector) in electors.iter() {
        match elector.state() {
            LeaderState::Leading { token: own, .. } if own == token => leading += 1,
            LeaderState::Following { leader } if leader.token == token => {}
            state => return Err(format!("elector {slot} says {state:?}, {token} leads")),
        }
    }
    if leading == 1 && electors.len() == ELECTORS && candidates == ELECTORS {
        return Ok(());
    }
    Err(format!(
        "{leading} of {} lead, {candidates} are candidates",
        electors.len()
    ))
}

fn all_know(floor: &Floor<'_>, token: Revision) -> Agreed {
    let told = floor.electors.told.borrow();
    match { told.iter() }.find(|(_, told)| **told != Some(token)) {
        None if told.len() == FOLLOWERS => Ok(()),
        None => Err(format!("only {} were told", told.len())),
        Some((slot, told)) => Err(format!(
            "follower {slot} was told of {told:?}, {token} leads"
        )),
    }
}

async fn replace(floor: &Floor<'_>, slot: usize) -> Result<()> {
    let former = floor.electors.all.borrow_mut().remove(&slot);
    let stopped = match former {
        Some(elector) if fastrand::bool() => elector.stop().await,
        former => {
            drop(former);
            Ok(())
        }
    };
    let election = floor.client.election(NAME).value(format!("elector {slot}"));
    floor
        .electors
        .all
        .borrow_mut()
        .insert(slot, election.elector());
    stopped
}

async fn follow(floor: &Floor<'_>, slot: usize) -> Result<()> {
    let mut leaders = floor.client.election(NAME).observe();
    floor.electors.told.borrow_mut().remove(&slot);
    while let Some(leader) = leaders.next().await {
        let token = leader?.map(|leader| leader.token);
        floor.electors.told.borrow_mut().insert(slot, token);
    }
    Ok(())
}
