//! What the steps of time, callers and clients do.

use crate::{
    protocol::{Mutant, Protocol, Step, Told, Value},
    state::{Attempt, Beat, Client, Phase, Session, State, Watch, Work},
};

impl Protocol {
    pub(crate) fn take(&self, state: &mut State, step: Step) {
        match step {
            Step::Tick { slow } => self.tick(state, slow),

            Step::Open(c) => state.open(c),
            Step::Close(c) => self.lose_session(state, c),
            Step::Acquire(c) => self.acquire(state, c),
            Step::Cancel(c, n) => self.cancel(state, c, n),
            Step::Read(c, n) => self.read(state, c, n),
            Step::Write(c, n) => state.write(c, n),
            Step::Release(c, n) => state.delete_own(c, n),

            Step::SendBeat(c) => state.clients[c].beat = Some(Beat::default()),
            Step::GiveUpBeat(c) => state.clients[c].beat = None,
            Step::Confirm(c) => self.confirm(state, c),
            Step::RetryCreate(c, n) => {
                state.clients[c].attempts[n].stray_create = true;
                state.clients[c].attempts[n].ambiguous = true;
            }
            Step::GiveUpCreate(c, n) => {
                state.clients[c].attempts[n].stray_create = true;
                state.clients[c].attempts[n].ambiguous = true;
                self.end(&mut state.clients[c].attempts[n]);
            }
            Step::Ask(c, n) => {
                if let Phase::Waiting { watch, asking, .. } =
                    &mut state.clients[c].attempts[n].phase
                {
                    *watch = Watch::Quiet;
                    *asking = true;
                }
            }
            Step::Check(c, n) => self.check(state, c, n),
            Step::NoticeLoss(c, n) => {
                let attempt = &mut state.clients[c].attempts[n];
                // A request that is on its way is not called back.
                attempt.stray_create |= matches!(attempt.phase, Phase::Creating { .. });
                attempt.phase = Phase::Over;
            }
            Step::NoticeGone(c, n) => self.end(&mut state.clients[c].attempts[n]),
            Step::RetryDelete(c, n) => {
                if let Phase::Deleting { token } = state.clients[c].attempts[n].phase {
                    state.clients[c].attempts[n].stray_delete = token;
                }
            }
            Step::Sweep(c, n) => {
                state.clients[c].attempts[n].phase = Phase::Lingering {
                    told: false,
                    asked: true,
                };
            }

            Step::ServeBeat(c) => self.serve_beat(state, c),
            Step::ServeCreate(c, n, told) => self.serve_create(state, c, n, told),
            Step::ServeStrayCreate(c, n) => {
                state.clients[c].attempts[n].stray_create = false;
                self.make_key(state, c, n);
            }
            Step::ServeLook(c, n) => self.serve_look(state, c, n),
            Step::ServeOldLook(c, n) => self.serve_old_look(state, c, n),
            Step::ServeWatch(c, n) => self.serve_watch(state, c, n),
            Step::ServeDelete(c, n, told) => self.serve_delete(state, c, n, told),
            Step::ServeStrayDelete(c, n) => {
                let token = std::mem::take(&mut state.clients[c].attempts[n].stray_delete);
                self.delete_key(state, c, n, token);
            }
            Step::ServeSweep(c, n) => self.serve_sweep(state, c, n),
            Step::ServeWrite(c, n) => self.serve_write(state, c, n),
            Step::Expire(c, lease) => state.expire(c, lease),

            Step::DropCreate(c, n) => state.clients[c].attempts[n].stray_create = false,
            Step::DropDelete(c, n) => state.clients[c].attempts[n].stray_delete = 0,
            Step::DropWrite(c, n) => state.clients[c].attempts[n].work = Work::Over,
            Step::BreakWatch(c, n) => {
                if let Phase::Waiting { watch, .. } = &mut state.clients[c].attempts[n].phase {
                    *watch = Watch::Opening;
                }
            }
            Step::RemoveWaiter(rev) => state.remove_key(rev),
        }
    }

    /// `session.rs`, `deadline`: how long a lease may be relied on, from the sending of the beat. Here
    /// drift and margin are one tick together.
    pub(crate) fn reliable(&self) -> u8 {
        match self.is(Mutant::NoMargin) {
            true => self.ttl,
            false => self.ttl - 1,
        }
    }

    fn tick(&self, state: &mut State, slow: [bool; 2]) {
        state.ticks -= 1;
        for left in state.server.leases.iter_mut().flatten().flatten() {
            *left = left.saturating_sub(1);
        }
        for c in 0..2 {
            let Client { session, beat, .. } = &mut state.clients[c];
            if *session == Session::Lost {
                continue;
            }
            if slow[c] {
                if let Session::Live { slow, .. } = session {
                    *slow = true;
                }
                if let Some(beat) = beat {
                    beat.slow = true;
                }
                continue;
            }
            let mut age = 0;
            if let Some(beat) = beat {
                beat.age = (beat.age + 1).min(self.ttl);
                age = beat.age;
            }
            // `Inner::look`: who looks reads the clock first, so the loss counts from the moment itself.
            let over = match session {
                Session::Live { left, .. } => {
                    *left -= 1;
                    *left == 0
                }
                Session::Opening => age >= self.reliable(),
                Session::None | Session::Lost => false,
            };
            if over {
                self.lose_session(state, c);
            }
        }
    }

    /// `session.rs`: `Inner::lose` and `Inner::look`. The lease is revoked from then on, if that
    /// arrives; so it may end at any time.
    pub(crate) fn lose_session(&self, state: &mut State, c: usize) {
        let client = &mut state.clients[c];
        client.session = Session::Lost;
        if let Some(beat) = &mut client.beat
            && !self.is(Mutant::LateAnswerRevives)
        {
            // Whatever answer comes, it is late: it does not matter how late.
            (beat.age, beat.slow) = (0, false);
        }
        if let Some(left) = &mut state.server.leases[c][usize::from(client.lease)] {
            *left = 0;
        }
    }

    /// `pulse.rs`, `Beater::answered`, and `session.rs`, `Inner::confirm`; for a grant `Maker::session`.
    fn confirm(&self, state: &mut State, c: usize) {
        let client = &mut state.clients[c];
        let Some(Beat { age, slow, .. }) = client.beat.take() else {
            return;
        };
        if client.session == Session::Lost && !self.is(Mutant::LateAnswerRevives) {
            return;
        }
        let elapsed = match self.is(Mutant::DeadlineFromReceipt) {
            true => 0,
            false => age,
        };
        let left = self.reliable().saturating_sub(elapsed);
        if left == 0 {
            // Too late to prolong anything.
            return;
        }
        client.session = Session::Live { left, slow };
    }

    /// `Queue::enter`, with a key that nobody has had: `Queue::new_key`.
    fn acquire(&self, state: &mut State, c: usize) {
        let Some(n) = state.free_attempt(c) else {
            return;
        };
        let client = &mut state.clients[c];
        client.acquires -= 1;
        client.attempts[n] = Attempt {
            phase: Phase::Creating { wanted: true },
            lease: client.lease,
            ..Attempt::default()
        };
    }

    /// The caller drops the future. The task that owns the key goes on: `Owner::create` still awaits its
    /// answer, `Owner::keep` sees that the wish is gone.
    fn cancel(&self, state: &mut State, c: usize, n: usize) {
        let attempt = &mut state.clients[c].attempts[n];
        if self.is(Mutant::OrphanOnCancel) {
            attempt.stray_create |= matches!(attempt.phase, Phase::Creating { .. });
            attempt.phase = Phase::Over;
            return;
        }
        match attempt.phase.token() {
            Some(token) => attempt.phase = Phase::Deleting { token },
            None => attempt.phase = Phase::Creating { wanted: false },
        }
    }

    /// `Claim::check`, when the answer came that says that we are first.
    fn check(&self, state: &mut State, c: usize, n: usize) {
        let client = &mut state.clients[c];
        let live = client.is_live(client.attempts[n].lease);
        let attempt = &mut client.attempts[n];
        let Phase::Admitted { token } = attempt.phase else {
            return;
        };
        if live || self.is(Mutant::DeadlineNotChecked) {
            attempt.phase = Phase::Holding { token };
            state.latest = state.latest.max(token);
        } else {
            attempt.phase = Phase::Over;
        }
    }

    /// `Owner::run` after the claim has ended: nothing more, unless a request to make the key may still
    /// be on its way.
    pub(crate) fn end(&self, attempt: &mut Attempt) {
        attempt.phase = match attempt.ambiguous && !self.is(Mutant::LateCreateNotAwaited) {
            // The watch for its coming begins, and tells that it did.
            true => Phase::Lingering {
                told: true,
                asked: false,
            },
            false => Phase::Over,
        };
    }

    /// `Fenced::get`, or a resource elsewhere. The way there and back takes its time, but that is as
    /// if the caller were slow before and after.
    fn read(&self, state: &mut State, c: usize, n: usize) {
        let attempt = &mut state.clients[c].attempts[n];
        let Some(token) = attempt.phase.token() else {
            return;
        };
        let server = &mut state.server;
        let allowed = match self.value {
            Value::Fenced => server.queue.stands(token),
            Value::Sealed => {
                let allowed = token >= server.gate;
                server.gate = server.gate.max(token);
                allowed
            }
            Value::Untouched | Value::GatedWrites | Value::Bare => true,
        };
        attempt.work = match allowed {
            true => Work::Read { stale: false },
            false => Work::Over,
        };
    }
}

impl State {
    /// `sessions.rs`, `Maker::grant`: the grant is the first beat.
    fn open(&mut self, c: usize) {
        let Some(lease) = self.free_lease(c) else {
            return;
        };
        let client = &mut self.clients[c];
        client.lease = lease as u8;
        client.session = Session::Opening;
        client.beat = Some(Beat::default());
    }

    /// `Fenced::set`: no look at the clock comes before it, so it is as if the client were paused
    /// between the look and the sending.
    fn write(&mut self, c: usize, n: usize) {
        let attempt = &mut self.clients[c].attempts[n];
        if let (Phase::Holding { token }, Work::Read { stale }) = (attempt.phase, attempt.work) {
            attempt.work = Work::Sent { token, stale };
        }
    }

    /// `Claim::release`, or the guard is dropped: the hold ends at once.
    fn delete_own(&mut self, c: usize, n: usize) {
        let attempt = &mut self.clients[c].attempts[n];
        if let Phase::Holding { token } = attempt.phase {
            attempt.phase = Phase::Deleting { token };
        }
    }

    /// A lease of which nothing is left.
    pub(crate) fn free_lease(&self, c: usize) -> Option<usize> {
        (0..2).find(|&lease| {
            let attempts = &self.clients[c].attempts;
            self.server.leases[c][lease].is_none()
                && attempts.iter().all(|attempt| {
                    attempt.phase == Phase::Unused || usize::from(attempt.lease) != lease
                })
        })
    }

    pub(crate) fn free_attempt(&self, c: usize) -> Option<usize> {
        let attempts = &self.clients[c].attempts;
        attempts
            .iter()
            .position(|attempt| attempt.phase == Phase::Unused)
    }

    /// Forgets what makes no difference any more.
    pub(crate) fn settle(&mut self) {
        for attempt in self
            .clients
            .iter_mut()
            .flat_map(|client| &mut client.attempts)
        {
            if !matches!(attempt.phase, Phase::Holding { .. })
                && !matches!(attempt.work, Work::Sent { .. })
            {
                attempt.work = Work::None;
            }
            let something_on_its_way =
                attempt.stray_create || attempt.stray_delete != 0 || attempt.work != Work::None;
            if attempt.phase == Phase::Over && !something_on_its_way {
                *attempt = Attempt::default();
            }
        }
        if self.ticks == 0 {
            self.stop_clocks();
        }
        for c in 0..2 {
            let has_key = self
                .server
                .queue
                .iter()
                .any(|entry| usize::from(entry.client) == c);
            let client = &mut self.clients[c];
            // Who has nothing to do any more cannot disturb others, nor be disturbed.
            if client.acquires == 0 && client.attempts == <[Attempt; 2]>::default() && !has_key {
                *client = Client::default();
                self.server.leases[c] = [None; 2];
            }
        }
        self.rank_revs();
    }

    /// When no time will pass any more it does not matter how much is left of it.
    fn stop_clocks(&mut self) {
        for left in self.server.leases.iter_mut().flatten().flatten() {
            *left = (*left).min(1);
        }
        for Client { session, beat, .. } in &mut self.clients {
            match (session, beat) {
                (Session::Live { left, slow }, beat) => {
                    (*left, *slow, *beat) = (1, false, None);
                }
                (Session::Opening, Some(beat)) => (beat.age, beat.slow) = (0, false),
                _ => {}
            }
        }
    }
}

impl Client {
    /// Whether its clock may fall back by a tick: once for each time that a lease can be relied on.
    pub(crate) fn may_fall_back(&self) -> bool {
        let slow_beat = self.beat.is_some_and(|beat| beat.slow);
        match self.session {
            Session::Live { slow, .. } => !slow && !slow_beat,
            Session::Opening => !slow_beat,
            Session::None | Session::Lost => false,
        }
    }
}

impl Step {
    /// For the reader of a counter-example.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::ServeCreate(c, n, Told::No) => {
                format!("ServeCreate({c}, {n}), and the answer is lost")
            }
            Self::ServeDelete(c, n, Told::No) => {
                format!("ServeDelete({c}, {n}), and the answer is lost")
            }
            step => format!("{step:?}"),
        }
    }
}
