//! What the server does with requests and leases.

use crate::{
    protocol::{Mutant, Protocol, Told, Value},
    state::{Attempt, Entry, Phase, Rev, Session, State, Watch, Work},
};

/// What became of a request to make a key.
pub(crate) enum Made {
    /// The key is there, and this is the one before it.
    New { token: Rev, before: Option<Rev> },
    /// An earlier request had made it.
    Before { token: Rev },
    /// The lease is not known.
    NoLease,
}

impl Protocol {
    /// A beat, or a grant. A grant that comes again finds its lease and does not prolong it.
    pub(crate) fn serve_beat(&self, state: &mut State, c: usize) {
        let client = &mut state.clients[c];
        let lease = &mut state.server.leases[c][usize::from(client.lease)];
        let opening = client.session == Session::Opening;
        if lease.is_none() && !opening {
            // The answer has a time to live of zero. `Beater::answered`: the session has expired.
            self.lose_session(state, c);
            return;
        }
        *lease = match client.session {
            Session::Opening => lease.or(Some(self.ttl)),
            Session::Live { .. } => Some(self.ttl),
            // The revocation may come right behind it.
            Session::None | Session::Lost => Some(0),
        };
        if let Some(beat) = &mut client.beat {
            beat.answered = true;
        }
    }

    /// The transaction of `Queue::enter`, and what `Owner::create` makes of its answer. An answer that
    /// only makes the client ask further is as good as there: its delay is that of the next request.
    pub(crate) fn serve_create(&self, state: &mut State, c: usize, n: usize, told: Told) {
        let made = self.make_key(state, c, n);
        if let Made::NoLease = made {
            // `Session::revoked`
            if state.clients[c].is_live(state.clients[c].attempts[n].lease) {
                self.lose_session(state, c);
            }
            state.clients[c].attempts[n].phase = Phase::Over;
            return;
        }
        let attempt = &mut state.clients[c].attempts[n];
        let wanted = attempt.phase == Phase::Creating { wanted: true };
        match (told, made) {
            (Told::No, _) => {
                attempt.ambiguous = true;
                if !wanted {
                    self.end(attempt);
                }
            }
            (Told::Yes, Made::New { token, before }) if wanted => {
                attempt.phase = place(token, before);
            }
            (Told::Yes, Made::Before { token }) if wanted => {
                attempt.phase = Phase::Looking { token };
            }
            (Told::Yes, Made::New { token, .. } | Made::Before { token }) => {
                attempt.phase = Phase::Deleting { token };
            }
            (Told::Yes, Made::NoLease) => {}
        }
    }

    /// Makes the key on the condition that it is absent, as `Queue::enter` does.
    pub(crate) fn make_key(&self, state: &mut State, c: usize, n: usize) -> Made {
        let attempt = state.clients[c].attempts[n];
        if state.server.leases[c][usize::from(attempt.lease)].is_none() {
            return Made::NoLease;
        }
        let name = self.name(&attempt, c, n);
        if let Some(own) = state.server.queue.named(name)
            && !self.is(Mutant::BlindRetry)
        {
            return Made::Before { token: own.rev };
        }
        let token = state.next_rev();
        let (client, lease, number) = name;
        state.server.queue.push(Entry {
            client,
            lease,
            number,
            rev: token,
        });
        if let Phase::Lingering { told, .. } = &mut state.clients[c].attempts[n].phase {
            *told = true;
        }
        let before = state.server.queue.before(token);
        Made::New { token, before }
    }

    /// `Queue::look`: our own key, and the nearest one before it, at one revision.
    pub(crate) fn serve_look(&self, state: &mut State, c: usize, n: usize) {
        let queue = state.server.queue;
        let attempt = &mut state.clients[c].attempts[n];
        let Some(token) = attempt.phase.token() else {
            return;
        };
        if !queue.stands(token) && !self.is(Mutant::OwnKeyNotVerified) {
            self.end(attempt);
            return;
        }
        match (&mut attempt.phase, queue.before(token)) {
            (Phase::Waiting { before, asking, .. }, Some(nearest)) if nearest == *before => {
                *asking = false;
            }
            (Phase::Waiting { .. }, _) if self.is(Mutant::PredecessorGoneIsFirst) => {
                attempt.phase = Phase::Admitted { token };
            }
            (_, nearest) => attempt.phase = place(token, nearest),
        }
    }

    /// A member that lags answers: the key before us still stands. The revision of its answer is below
    /// that of the watch, so `Queue::look` asks again: nothing changes.
    pub(crate) fn serve_old_look(&self, state: &mut State, c: usize, n: usize) {
        if let Phase::Waiting { asking, .. } = &mut state.clients[c].attempts[n].phase
            && self.is(Mutant::OlderAnswerBelieved)
        {
            *asking = false;
        }
    }

    /// The watch of `Queue::wait_for` begins, with what happens from now on; and says that it did.
    pub(crate) fn serve_watch(&self, state: &mut State, c: usize, n: usize) {
        if let Phase::Waiting { watch, .. } = &mut state.clients[c].attempts[n].phase {
            *watch = match self.is(Mutant::NoLookOnceWatched) {
                true => Watch::Quiet,
                false => Watch::Telling,
            };
        }
    }

    /// `Owner::delete`. Without an answer it is asked again.
    pub(crate) fn serve_delete(&self, state: &mut State, c: usize, n: usize, told: Told) {
        let Phase::Deleting { token } = state.clients[c].attempts[n].phase else {
            return;
        };
        self.delete_key(state, c, n, token);
        if told == Told::Yes {
            self.end(&mut state.clients[c].attempts[n]);
        }
    }

    /// Deletes the key on the condition that it has this create revision.
    pub(crate) fn delete_key(&self, state: &mut State, c: usize, n: usize, token: Rev) {
        if self.is(Mutant::DeleteByName) || self.is(Mutant::SharedNameDeleted) {
            state.remove_named(self.name(&state.clients[c].attempts[n], c, n));
        } else {
            state.remove_key(token);
        }
    }

    /// `linger` deletes the key by its name, which no other attempt has.
    pub(crate) fn serve_sweep(&self, state: &mut State, c: usize, n: usize) {
        state.remove_named(self.name(&state.clients[c].attempts[n], c, n));
        if let Phase::Lingering { asked, .. } = &mut state.clients[c].attempts[n].phase {
            *asked = false;
        }
    }

    /// The write of a holder, or of one who was. It was made of what was read before.
    pub(crate) fn serve_write(&self, state: &mut State, c: usize, n: usize) {
        let Work::Sent { token, stale } = state.clients[c].attempts[n].work else {
            return;
        };
        state.clients[c].attempts[n].work = Work::Over;
        let accepted = match self.value {
            Value::Fenced => state.server.queue.stands(token),
            Value::Sealed | Value::GatedWrites => token >= state.server.gate,
            Value::Untouched | Value::Bare => true,
        };
        if !accepted {
            return;
        }
        if let Value::Sealed | Value::GatedWrites = self.value {
            state.server.gate = token;
        }
        state.wrong.update_lost |= stale;
        state.wrong.former_wrote |= token < state.latest;
        for attempt in state
            .clients
            .iter_mut()
            .flat_map(|client| &mut client.attempts)
        {
            if let Work::Read { stale } | Work::Sent { stale, .. } = &mut attempt.work {
                *stale = true;
            }
        }
    }

    /// `Queue::new_key`
    fn name(&self, attempt: &Attempt, c: usize, n: usize) -> (u8, u8, u8) {
        let number = match self.mutant {
            Some(Mutant::SharedName | Mutant::SharedNameDeleted) => 0,
            _ => n,
        };
        (c as u8, attempt.lease, number as u8)
    }
}

impl State {
    pub(crate) fn expire(&mut self, c: usize, lease: usize) {
        self.server.leases[c][lease] = None;
        let queue = self.server.queue;
        for entry in queue.iter() {
            if usize::from(entry.client) == c && usize::from(entry.lease) == lease {
                self.remove_key(entry.rev);
            }
        }
    }

    /// Removes a key, and tells who watches it.
    pub(crate) fn remove_key(&mut self, rev: Rev) {
        if !self.server.queue.stands(rev) {
            return;
        }
        self.server.queue.remove(rev);
        for attempt in self
            .clients
            .iter_mut()
            .flat_map(|client| &mut client.attempts)
        {
            if let Phase::Waiting { before, watch, .. } = &mut attempt.phase
                && *before == rev
                && *watch == Watch::Quiet
            {
                *watch = Watch::Telling;
            }
        }
    }

    fn remove_named(&mut self, name: (u8, u8, u8)) {
        while let Some(rev) = self.server.queue.named(name).map(|entry| entry.rev) {
            self.remove_key(rev);
        }
    }
}

fn place(token: Rev, before: Option<Rev>) -> Phase {
    match before {
        None => Phase::Admitted { token },
        Some(before) => Phase::Waiting {
            token,
            before,
            watch: Watch::Opening,
            asking: false,
        },
    }
}
