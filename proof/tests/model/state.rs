//! What the clients, the network and the server are at one moment. All times are relative, and revisions
//! are ranks, so that moments which differ in nothing that matters are one state.

/// A revision of the store; of a key its create revision, and so the token of who holds by it. Zero is none.
pub(crate) type Rev = u8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    pub(crate) clients: [Client; 2],
    pub(crate) server: Server,
    /// The token of the latest who acquired.
    pub(crate) latest: Rev,
    /// How often time may still pass.
    pub(crate) ticks: u8,
    /// How much may still go wrong.
    pub(crate) troubles: u8,
    /// What has gone wrong that is not seen in a state, only in a step.
    pub(crate) wrong: Wrong,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Wrong {
    /// Somebody acquired with a token that is not above that of the former holder.
    pub(crate) token_back: bool,
    /// Somebody acquired while an older key stood.
    pub(crate) overtaken: bool,
    /// Somebody acquired whose own key did not stand.
    pub(crate) keyless: bool,
    /// A session that was lost lived again.
    pub(crate) revived: bool,
    /// A write was accepted that did not build on the write before it.
    pub(crate) update_lost: bool,
    /// A write was accepted from who held before the latest holder.
    pub(crate) former_wrote: bool,
}

/// A client of the library: one session at a time, and two acquisitions, of which one at most is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Client {
    pub(crate) session: Session,
    /// Which of the two leases the session has.
    pub(crate) lease: u8,
    /// The beat, or the grant, that is not answered yet as far as the client knows.
    pub(crate) beat: Option<Beat>,
    pub(crate) attempts: [Attempt; 2],
    /// How often it may still begin to acquire.
    pub(crate) acquires: u8,
}

/// `session.rs`: `Session`, with the time to its deadline by the client's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Session {
    #[default]
    None,
    Opening,
    Live {
        left: u8,
        /// Whether the clock has fallen back by a tick since the beat was sent that counts.
        slow: bool,
    },
    Lost,
}

/// `pulse.rs`: `Heart::unanswered`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Beat {
    /// How long ago it was sent, by the client's own clock.
    pub(crate) age: u8,
    /// Whether that clock has fallen back by a tick since.
    pub(crate) slow: bool,
    /// Whether the server answered, and the answer is on its way.
    pub(crate) answered: bool,
}

/// One call of `Lock::acquire` or `Election::campaign`, from its first request until nothing of it is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Attempt {
    pub(crate) phase: Phase,
    /// The lease that its key hangs on.
    pub(crate) lease: u8,
    /// `owner.rs`: `Owner::ambiguous`.
    pub(crate) ambiguous: bool,
    /// A request to make its key is on its way whose answer nobody awaits.
    pub(crate) stray_create: bool,
    /// A request to delete the key of this token is on its way whose answer nobody awaits.
    pub(crate) stray_delete: Rev,
    pub(crate) work: Work,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    #[default]
    Unused,
    /// `Owner::create`: the request is on its way. Not `wanted`: the caller went away.
    Creating { wanted: bool },
    /// `Queue::look`, for the first time: the answer that made the key told no place.
    Looking { token: Rev },
    /// `Queue::wait_for`.
    Waiting {
        token: Rev,
        before: Rev,
        watch: Watch,
        /// Whether `Queue::look` has asked and waits for the answer.
        asking: bool,
    },
    /// The answer that nobody is before us is on its way; `Claim::check` is still to come.
    Admitted { token: Rev },
    /// The caller has its guard.
    Holding { token: Rev },
    /// `Owner::delete`.
    Deleting { token: Rev },
    /// `owner.rs`: `linger`. `told`: of a new watch or of the key's coming. `asked`: to delete it.
    Lingering { told: bool, asked: bool },
    /// Nothing is done any more, but something may be on its way.
    Over,
}

/// A watch of the key before us, beginning at the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Watch {
    Opening,
    /// Open, and nothing is on its way.
    Quiet,
    /// Open, and something is on its way: that it was opened, or that the key was deleted.
    Telling,
}

/// What the holder does with the value that the lock protects: reads it, and writes what follows from that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Work {
    #[default]
    None,
    /// It was read; `stale` if somebody else wrote since.
    Read {
        stale: bool,
    },
    /// The write is on its way.
    Sent {
        token: Rev,
        stale: bool,
    },
    Over,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Server {
    /// Of each client two leases, with the time they have left by the server's clock.
    pub(crate) leases: [[Option<u8>; 2]; 2],
    pub(crate) queue: Queue,
    /// `gate.rs`: `TokenGate::highest`, of a resource outside.
    pub(crate) gate: Rev,
}

/// The keys under the name, in the order of their create revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Queue([Option<Entry>; 6]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entry {
    pub(crate) client: u8,
    pub(crate) lease: u8,
    pub(crate) number: u8,
    pub(crate) rev: Rev,
}

impl Phase {
    /// The token, while the claim stands as far as its owner knows.
    pub(crate) fn token(self) -> Option<Rev> {
        match self {
            Self::Looking { token }
            | Self::Waiting { token, .. }
            | Self::Admitted { token }
            | Self::Holding { token } => Some(token),
            _ => None,
        }
    }

    /// Whether the caller still wants the lock, or has it.
    pub(crate) fn is_wanted(self) -> bool {
        self.token().is_some() || self == Self::Creating { wanted: true }
    }
}

impl Client {
    /// Whether the clock is before the deadline of the session on this lease.
    pub(crate) fn is_live(&self, lease: u8) -> bool {
        self.lease == lease && matches!(self.session, Session::Live { .. })
    }

    /// What `LockGuard::is_held` answers.
    pub(crate) fn believes(&self, attempt: &Attempt) -> bool {
        matches!(attempt.phase, Phase::Holding { .. }) && self.is_live(attempt.lease)
    }
}

impl Queue {
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.0.iter().flatten()
    }

    pub(crate) fn stands(&self, rev: Rev) -> bool {
        self.iter().any(|entry| entry.rev == rev)
    }

    /// The key of this name.
    pub(crate) fn named(&self, (client, lease, number): (u8, u8, u8)) -> Option<&Entry> {
        self.iter()
            .find(|entry| entry.name() == (client, lease, number))
    }

    /// The nearest key before this one.
    pub(crate) fn before(&self, rev: Rev) -> Option<Rev> {
        let older = self.iter().rev().find(|entry| entry.rev < rev);
        older.map(|entry| entry.rev)
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let free = self.0.iter_mut().find(|place| place.is_none());
        *free.expect("there are more places than keys can be") = Some(entry);
    }

    pub(crate) fn remove(&mut self, rev: Rev) {
        let mut kept = Self::default();
        self.iter()
            .filter(|entry| entry.rev != rev)
            .for_each(|entry| kept.push(*entry));
        *self = kept;
    }
}

impl Entry {
    /// `NAME/<lease>-<n>`
    pub(crate) fn name(&self) -> (u8, u8, u8) {
        (self.client, self.lease, self.number)
    }
}

impl State {
    /// Every revision of the state.
    fn revs(&mut self, mut each: impl FnMut(&mut Rev)) {
        for entry in self.server.queue.0.iter_mut().flatten() {
            each(&mut entry.rev);
        }
        for attempt in self
            .clients
            .iter_mut()
            .flat_map(|client| &mut client.attempts)
        {
            match &mut attempt.phase {
                Phase::Waiting { token, before, .. } => {
                    each(token);
                    each(before);
                }
                Phase::Looking { token }
                | Phase::Admitted { token }
                | Phase::Holding { token }
                | Phase::Deleting { token } => each(token),
                Phase::Unused | Phase::Creating { .. } | Phase::Lingering { .. } | Phase::Over => {}
            }
            if let Work::Sent { token, .. } = &mut attempt.work {
                each(token);
            }
            each(&mut attempt.stray_delete);
        }
        each(&mut self.server.gate);
        each(&mut self.latest);
    }

    /// A revision above all that there are.
    pub(crate) fn next_rev(mut self) -> Rev {
        let mut highest = 0;
        self.revs(|rev| highest = highest.max(*rev));
        highest + 1
    }

    /// Gives revisions the lowest numbers that keep their order: nothing but their order matters.
    pub(crate) fn rank_revs(&mut self) {
        let mut present: u32 = 0;
        self.revs(|rev| present |= 1 << *rev);
        present &= !1;
        self.revs(|rev| {
            if *rev != 0 {
                *rev = (present & ((2 << *rev) - 1)).count_ones() as Rev;
            }
        });
    }

    /// The same with the clients' names exchanged. The protocol treats both alike.
    pub(crate) fn mirrored(mut self) -> Self {
        self.clients.swap(0, 1);
        self.server.leases.swap(0, 1);
        for entry in self.server.queue.0.iter_mut().flatten() {
            entry.client = 1 - entry.client;
        }
        self
    }
}
