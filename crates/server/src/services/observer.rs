//! What is told of an election as it goes on.

use std::{collections::VecDeque, sync::Arc};

use quorate_engine::{Error, Event, Header, Key, KeyRange, KeyValue, Revision};
use quorate_wire::v3electionpb::LeaderResponse;
use tonic::Status;

use crate::{
    access::{Need, caller::Caller},
    convert::{header_to_wire, kv_to_wire},
    services::queue::{oldest, unknown},
    store::{
        shared::{Shared, State},
        wait::Waiter,
    },
};

/// Tells every leader and every value of it, the present one first. It looks for the next one when
/// it is asked, so that nothing piles up.
pub(crate) struct Observer {
    shared: Arc<Shared>,
    queue: KeyRange,
    waiter: Waiter,
    phase: Phase,
    /// What was taken and is not yet looked at.
    events: VecDeque<(Header, Event)>,
}

enum Phase {
    /// Nobody knows who leads.
    Seeks,
    /// Nobody leads, and the waiter is at all keys: the first that is put leads.
    Awaits,
    /// This key leads, and was told as it was before a revision.
    Joins(Key, Revision),
    /// The waiter is at the leader's key.
    Follows,
}

impl Observer {
    /// Fails if the caller may not read what there will be to tell.
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        caller: &Caller,
        queue: KeyRange,
    ) -> Result<Self, Status> {
        let permit = shared.answer(caller, Need::Read(&queue), |_, _| Ok(()));
        permit.await.map_err(unknown)?;
        Ok(Self {
            shared: Arc::clone(shared),
            queue,
            waiter: Waiter::new(shared),
            phase: Phase::Seeks,
            events: VecDeque::new(),
        })
    }

    /// The next leader, or the next value of the one there is.
    pub(crate) async fn next(&mut self) -> Result<LeaderResponse, Status> {
        let shared = Arc::clone(&self.shared);
        loop {
            while let Some((header, event)) = self.events.pop_front() {
                if let Some(leader) = self.hear(header, event) {
                    return Ok(leader);
                }
            }
            if matches!(self.phase, Phase::Awaits | Phase::Follows) {
                self.waiter.ready().await;
            }
            // A watch, too, goes on when the token that it began with ends.
            let nobody = Caller::default();
            let look = shared.answer(&nobody, Need::Nothing, |state, _| self.look(state));
            if let Some(leader) = look.await.map_err(unknown)?.into_inner() {
                return Ok(leader);
            }
        }
    }

    /// Seeks the leader, or takes what the waiter has come upon.
    fn look(&mut self, state: &mut State) -> Result<Option<LeaderResponse>, Error> {
        match &self.phase {
            Phase::Seeks => {}
            Phase::Joins(key, start) => {
                let (key, start) = (KeyRange::key(key.clone()), *start);
                return self.follow(state, &key, start).map(|()| None);
            }
            Phase::Awaits | Phase::Follows => match self.waiter.take(state) {
                Some(Ok(batch)) => {
                    let events = batch.events.into_iter();
                    self.events
                        .extend(events.map(|event| (batch.header, event)));
                    return Ok(None);
                }
                None => return Ok(None),
                Some(Err(_compacted)) => {}
            },
        }
        self.waiter.clear(state);
        let found = state.store.range(&oldest(&self.queue))?;
        let header = found.header;
        let next = header.revision.next();
        let Some(kv) = found.kvs.into_iter().next() else {
            self.phase = Phase::Awaits;
            self.waiter.watch(state, &self.queue, next)?;
            return Ok(None);
        };
        let key = KeyRange::key(kv.key.clone());
        self.follow(state, &key, next)?;
        Ok(Some(response(header, kv)))
    }

    fn follow(&mut self, state: &mut State, key: &KeyRange, start: Revision) -> Result<(), Error> {
        self.waiter.clear(state);
        self.phase = Phase::Follows;
        self.waiter.watch(state, key, start)
    }

    /// Makes of a change what it says of the leader.
    fn hear(&mut self, header: Header, event: Event) -> Option<LeaderResponse> {
        match (&self.phase, event) {
            (Phase::Follows, Event::Put { kv, .. }) => Some(response(header, kv)),
            (Phase::Follows, Event::Delete { .. }) => {
                self.phase = Phase::Seeks;
                self.events.clear();
                None
            }
            (Phase::Awaits, Event::Put { kv, .. }) => {
                let revision = kv.mod_revision;
                self.phase = Phase::Joins(kv.key.clone(), revision.next());
                self.events.clear();
                Some(response(Header { revision, ..header }, kv))
            }
            _ => None,
        }
    }
}

fn response(header: Header, kv: KeyValue) -> LeaderResponse {
    LeaderResponse {
        header: Some(header_to_wire(header)),
        kv: Some(kv_to_wire(kv)),
    }
}
