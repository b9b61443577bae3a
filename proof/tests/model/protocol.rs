//! The protocol with its bounds, as stateright wants it: which steps a state allows.

use stateright::{Model, Property};

use crate::{
    properties,
    state::{Beat, Phase, Rev, Session, State, Watch, Work},
};

/// What is checked, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    /// The time to live of a lease, in ticks.
    pub(crate) ttl: u8,
    /// How often time may pass.
    pub(crate) ticks: u8,
    /// How often each client may begin to acquire.
    pub(crate) acquires: u8,
    /// How many troubles may come: see [`Step::is_trouble`].
    pub(crate) troubles: u8,
    /// Whether the server may end leases before their time.
    pub(crate) early: bool,
    pub(crate) value: Value,
    /// What is done otherwise than the library does it.
    pub(crate) mutant: Option<Mutant>,
    /// Looks at this property alone.
    pub(crate) only: Option<&'static str>,
    /// Takes two states for one that differ in the clients' names alone.
    pub(crate) mirror: bool,
}

/// How the value is protected that a holder reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nobody touches it.
    Untouched,
    /// `fenced.rs`: in etcd, each access on the condition that the own key stands.
    Fenced,
    /// `gate.rs`: elsewhere, sealed with the token before it is read.
    Sealed,
    /// Elsewhere, and the token is looked at by writes alone.
    GatedWrites,
    /// By the lock alone.
    Bare,
}

/// One thing that is done otherwise than the library does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    DeadlineFromReceipt,
    NoMargin,
    LateAnswerRevives,
    OwnKeyNotVerified,
    OwnKeyNotWatched,
    DeadlineNotChecked,
    PredecessorGoneIsFirst,
    NoLookOnceWatched,
    OlderAnswerBelieved,
    OrphanOnCancel,
    LateCreateNotAwaited,
    BlindRetry,
    /// Whatever key has the name is deleted, whoever made it.
    DeleteByName,
    /// All acquisitions of a session have one name for their keys, one after the other.
    SharedName,
    /// Both.
    SharedNameDeleted,
}

/// One step. The first number is the client, the second its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Time passes; a client's clock may fall back by this tick.
    Tick {
        slow: [bool; 2],
    },

    // What callers do.
    Open(usize),
    Close(usize),
    Acquire(usize),
    Cancel(usize, usize),
    Read(usize, usize),
    Write(usize, usize),
    Release(usize, usize),

    // What the library does.
    SendBeat(usize),
    GiveUpBeat(usize),
    Confirm(usize),
    RetryCreate(usize, usize),
    GiveUpCreate(usize, usize),
    Ask(usize, usize),
    Check(usize, usize),
    NoticeLoss(usize, usize),
    NoticeGone(usize, usize),
    RetryDelete(usize, usize),
    Sweep(usize, usize),

    // What the server does when a request comes; `told`: its answer is not lost.
    ServeBeat(usize),
    ServeCreate(usize, usize, Told),
    ServeLook(usize, usize),
    ServeOldLook(usize, usize),
    ServeWatch(usize, usize),
    ServeDelete(usize, usize, Told),
    ServeSweep(usize, usize),
    ServeStrayCreate(usize, usize),
    ServeStrayDelete(usize, usize),
    ServeWrite(usize, usize),
    Expire(usize, usize),

    // What the network and others do.
    DropCreate(usize, usize),
    DropDelete(usize, usize),
    DropWrite(usize, usize),
    BreakWatch(usize, usize),
    RemoveWaiter(Rev),
}

/// Whether the answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Yes,
    No,
}

impl Step {
    /// Whether it is a step of an acquisition that comes by itself, sooner or later.
    fn is_progress(self) -> bool {
        matches!(
            self,
            Self::Ask(..)
                | Self::Check(..)
                | Self::NoticeLoss(..)
                | Self::NoticeGone(..)
                | Self::Sweep(..)
                | Self::ServeCreate(..)
                | Self::ServeLook(..)
                | Self::ServeWatch(..)
                | Self::ServeDelete(..)
                | Self::ServeSweep(..)
                | Self::ServeStrayCreate(..)
                | Self::ServeStrayDelete(..)
        )
    }

    /// Whether it is something that does not happen when all goes well.
    fn is_trouble(self, protocol: &Protocol, state: &State) -> bool {
        match self {
            Self::Close(_)
            | Self::Cancel(..)
            | Self::RetryCreate(..)
            | Self::GiveUpCreate(..)
            | Self::RetryDelete(..)
            | Self::ServeCreate(_, _, Told::No)
            | Self::ServeDelete(_, _, Told::No)
            | Self::BreakWatch(..)
            | Self::RemoveWaiter(_) => true,
            Self::Expire(c, lease) => {
                protocol.early && state.server.leases[c][lease].is_some_and(|left| left > 0)
            }
            _ => false,
        }
    }
}

impl Protocol {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether nothing comes by itself any more but beats, time and the ends of leases.
    pub(crate) fn is_at_rest(&self, state: &State) -> bool {
        let mut steps = Vec::new();
        self.actions(state, &mut steps);
        !steps.into_iter().any(Step::is_progress)
    }

    fn client_steps(&self, state: &State, c: usize, steps: &mut Vec<Step>) {
        let client = &state.clients[c];
        match (client.session, client.beat) {
            (Session::None | Session::Lost, _)
                if client.acquires > 0 && state.free_lease(c).is_some() =>
            {
                steps.push(Step::Open(c));
            }
            // One that is sent before any time has passed would prolong nothing.
            (Session::Live { left, slow }, None)
                if state.ticks > 0 && (left < self.reliable() || slow) =>
            {
                steps.push(Step::SendBeat(c));
            }
            (Session::Live { .. }, Some(beat)) if beat.age > 0 => steps.push(Step::GiveUpBeat(c)),
            _ => {}
        }
        match client.beat {
            Some(Beat {
                answered: false, ..
            }) => steps.push(Step::ServeBeat(c)),
            Some(Beat { answered: true, .. }) => steps.push(Step::Confirm(c)),
            None => {}
        }
        if let Session::Live { .. } = client.session {
            steps.push(Step::Close(c));
            let mut phases = client.attempts.iter().map(|attempt| attempt.phase);
            let busy = match self.mutant {
                Some(Mutant::SharedName | Mutant::SharedNameDeleted) => {
                    phases.any(|phase| !matches!(phase, Phase::Unused | Phase::Over))
                }
                _ => phases.any(Phase::is_wanted),
            };
            if client.acquires > 0 && !busy && state.free_attempt(c).is_some() {
                steps.push(Step::Acquire(c));
            }
        }
        for lease in 0..2 {
            if let Some(left) = state.server.leases[c][lease]
                && (left == 0 || self.early)
            {
                steps.push(Step::Expire(c, lease));
            }
        }
    }

    fn attempt_steps(&self, state: &State, c: usize, n: usize, steps: &mut Vec<Step>) {
        let client = &state.clients[c];
        let attempt = &client.attempts[n];
        match attempt.phase {
            Phase::Unused | Phase::Over => {}
            Phase::Creating { wanted } => {
                steps.push(Step::ServeCreate(c, n, Told::Yes));
                steps.push(Step::ServeCreate(c, n, Told::No));
                match wanted {
                    true => steps.extend([Step::RetryCreate(c, n), Step::Cancel(c, n)]),
                    false => steps.push(Step::GiveUpCreate(c, n)),
                }
            }
            Phase::Looking { .. } => {
                steps.extend([Step::ServeLook(c, n), Step::Cancel(c, n)]);
            }
            Phase::Waiting { watch, asking, .. } => {
                steps.push(Step::Cancel(c, n));
                match watch {
                    Watch::Opening => steps.push(Step::ServeWatch(c, n)),
                    Watch::Telling if !asking => steps.push(Step::Ask(c, n)),
                    Watch::Telling | Watch::Quiet => {}
                }
                if watch != Watch::Opening {
                    steps.push(Step::BreakWatch(c, n));
                }
                if asking {
                    steps.extend([Step::ServeLook(c, n), Step::ServeOldLook(c, n)]);
                }
            }
            Phase::Admitted { .. } => {
                steps.extend([Step::Check(c, n), Step::Cancel(c, n)]);
            }
            Phase::Holding { .. } => steps.push(Step::Release(c, n)),
            Phase::Deleting { .. } => {
                steps.push(Step::ServeDelete(c, n, Told::Yes));
                steps.push(Step::ServeDelete(c, n, Told::No));
                steps.push(Step::RetryDelete(c, n));
            }
            Phase::Lingering { told, asked } => {
                if told && !asked {
                    steps.push(Step::Sweep(c, n));
                }
                if asked {
                    steps.push(Step::ServeSweep(c, n));
                }
            }
        }
        match (attempt.phase, attempt.work) {
            (Phase::Holding { .. }, Work::None) if self.value != Value::Untouched => {
                steps.push(Step::Read(c, n));
            }
            (Phase::Holding { .. }, Work::Read { .. }) => steps.push(Step::Write(c, n)),
            (_, Work::Sent { .. }) => {
                steps.extend([Step::ServeWrite(c, n), Step::DropWrite(c, n)]);
            }
            _ => {}
        }
        if attempt.stray_create {
            steps.extend([Step::ServeStrayCreate(c, n), Step::DropCreate(c, n)]);
        }
        if attempt.stray_delete != 0 {
            steps.extend([Step::ServeStrayDelete(c, n), Step::DropDelete(c, n)]);
        }
        let idle = matches!(attempt.phase, Phase::Unused | Phase::Over);
        if !idle && !client.is_live(attempt.lease) {
            steps.push(Step::NoticeLoss(c, n));
        }
        if let Some(token) = attempt.phase.token()
            && !state.server.queue.stands(token)
            && !self.is(Mutant::OwnKeyNotWatched)
        {
            steps.push(Step::NoticeGone(c, n));
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    /// Both clients have just been granted their sessions.
    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            ticks: self.ticks,
            troubles: self.troubles,
            ..State::default()
        };
        for c in 0..2 {
            let left = self.reliable();
            state.clients[c].session = Session::Live { left, slow: false };
            state.clients[c].acquires = self.acquires;
            state.server.leases[c][0] = Some(self.ttl);
        }
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.ticks > 0 {
            for slow in [[false, false], [true, false], [false, true], [true, true]] {
                if (0..2).all(|c| !slow[c] || state.clients[c].may_fall_back()) {
                    steps.push(Step::Tick { slow });
                }
            }
        }
        for c in 0..2 {
            self.client_steps(state, c, steps);
            for n in 0..2 {
                self.attempt_steps(state, c, n, steps);
            }
        }
        for waiter in state.server.queue.iter().skip(1) {
            steps.push(Step::RemoveWaiter(waiter.rev));
        }
        if state.troubles == 0 {
            steps.retain(|step| !step.is_trouble(self, state));
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut after = *before;
        if step.is_trouble(self, before) {
            after.troubles -= 1;
        }
        self.take(&mut after, step);
        after.wrong = properties::judge(before, &after);
        after.settle();
        if self.mirror {
            after = after.min(after.mirrored());
        }
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = properties::all(self);
        if let Some(only) = self.only {
            all.retain(|property| property.name == only);
            assert!(!all.is_empty(), "there is no property {only:?}");
        }
        all
    }
}
