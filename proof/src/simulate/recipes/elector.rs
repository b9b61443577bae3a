//! Electors that never give up, tasks that run only while they lead, and those who follow the leaders.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, resume_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{
    FutureExt, StreamExt,
    future::{Either, select},
};
use quorate::{
    Client, Elector, ErrorKind, KeyRange, LeaderState, Op, Revision, Runtime, Session, Term, Txn,
    backend::Backend,
};
use tokio::{
    sync::watch,
    task::unconstrained,
    time::{Instant, sleep, timeout},
};

use super::Recipe;
use crate::simulate::{
    cut::{cut_after, noting},
    glance::{Begun, Pauses},
    ledger::Ledger,
    scheduler::MachineId,
    world::{CALL, World, lock},
};

const NAME: &str = "name";

/// The recipe, and what is known of its leaders.
pub(crate) struct Electors {
    books: Mutex<Books>,
    ledger: Ledger,
    /// Whether nobody is to observe any more.
    over: watch::Sender<bool>,
}

#[derive(Default)]
struct Books {
    /// The terms that nobody was told are over, by their tokens.
    terms: BTreeMap<Revision, Belief>,
    /// The newest term of all, and of each elector.
    last: Revision,
    newest: BTreeMap<u64, Revision>,
    /// The electors whose task runs.
    busy: BTreeMap<u64, Revision>,
    /// Whose term has to be over by the end of the instant, since that one leads.
    to_be_told: Vec<(Instant, Revision, Revision)>,
    /// Who leads as each client was told.
    seen: BTreeMap<MachineId, Option<Revision>>,
    /// The electors that outlive the storm.
    kept: Vec<Candidate>,
    next: u64,
    pauses: Pauses,
}

/// A term that its elector believes in.
struct Belief {
    client: MachineId,
    term: Term,
}

/// An elector in the background.
#[derive(Clone)]
struct Candidate {
    client: MachineId,
    elector: Arc<Elector>,
}

impl Default for Electors {
    fn default() -> Self {
        Self {
            books: Mutex::default(),
            ledger: Ledger::new("ledger"),
            over: watch::Sender::new(false),
        }
    }
}

impl Recipe for Electors {
    fn start(self: Arc<Self>, world: &Arc<World>) {
        Ledger::follow(world, &self, |this| &this.ledger);
        for client in 0..world.members.len() {
            let machine = &world.members[client].machine;
            machine.spawn(Box::pin(
                Arc::clone(&self).observe(Arc::clone(world), client),
            ));
            for worker in 0..world.schedule.workers {
                let worker = Worker {
                    recipe: Arc::clone(&self),
                    world: Arc::clone(world),
                    client,
                    random: world.random(client, worker),
                };
                world.work(client, worker.run());
            }
        }
    }

    /// No two lead, by their own clocks.
    fn look(&self, world: &World) {
        let mut books = lock(&self.books);
        books.pauses.look(world);
        if !world.schedule.assumed {
            return;
        }
        let now = Instant::now();
        let Books {
            terms, to_be_told, ..
        } = &mut *books;
        for (_, token, successor) in to_be_told.extract_if(.., |(at, ..)| *at < now) {
            if let Some(belief) = terms.get(&token)
                && !world.is_stopped(belief.client)
            {
                world.broken(
                    "I3",
                    format_args!("{successor} leads before {token} is told"),
                );
            }
        }
        // Who is asked may notice what it would not have, so one alone is not.
        if terms.len() > 1 {
            let held = terms.iter().filter(|(_, belief)| belief.term.is_held());
            let held: Vec<_> = held.map(|(token, _)| token.0).collect();
            if held.len() > 1 {
                world.broken("I1", format_args!("{held:?} lead at once"));
            }
        }
    }

    fn settle(self: Arc<Self>, world: Arc<World>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            lock(&self.books).to_be_told.clear();
            let sessions = alive(&world).await;
            self.all_agree(&world, "all is well").await;
            for _ in 0..2 {
                // Outside of the assumptions, if only for an instant.
                lock(&self.books).terms.clear();
                self.depose(&world);
                self.all_agree(&world, "the leader was deposed").await;
            }
            lock(&self.books).terms.clear();
            self.all_stop(&world).await;
            drop(sessions);
            self.over.send_replace(true);
            world.nothing_left().await;
        })
    }
}

/// The shared sessions of the clients, so that what goes does not go with them.
async fn alive(world: &World) -> Vec<Session> {
    let mut sessions = Vec::new();
    for member in &world.members {
        for _ in 0..10 {
            if let Ok(session) = member.client().session().await {
                sessions.push(session);
                break;
            }
        }
    }
    sessions
}

impl Electors {
    /// Somebody begins to lead.
    fn begins(self: &Arc<Self>, world: &Arc<World>, client: MachineId, elector: u64, term: &Term) {
        let token = term.token();
        let mut books = lock(&self.books);
        world.count("terms");
        world.trace.say(format_args!("{client} leads by {token}"));
        let newest = books.newest.insert(elector, token).unwrap_or_default();
        if token <= newest {
            world.broken(
                "I2",
                format_args!("an elector leads by {token} after {newest}"),
            );
        }
        if !term.is_held() {
            return;
        }
        if world.schedule.assumed {
            let last = books.last;
            if token <= last {
                world.broken("I2", format_args!("{token} leads after {last}"));
            }
            let now = Instant::now();
            let former: Vec<_> = books.terms.keys().copied().collect();
            let former = former.into_iter().map(|former| (now, former, token));
            books.to_be_told.extend(former);
        }
        books.last = books.last.max(token);
        let term = term.clone();
        let belief = Belief {
            client,
            term: term.clone(),
        };
        books.terms.insert(token, belief);
        drop(books);
        let this = Arc::clone(self);
        let machine = &world.members[client].machine;
        machine.spawn(Box::pin(async move {
            term.stopping().await;
            lock(&this.books).terms.remove(&token);
        }));
    }

    /// Follows who leads, as a client sees it: never back.
    async fn observe(self: Arc<Self>, world: Arc<World>, client: MachineId) {
        let mut over = self.over.subscribe();
        let mut leaders = {
            let client = world.members[client].client();
            client.election(NAME).observe()
        };
        let mut last = Revision::ZERO;
        let mut vacant = false;
        loop {
            let over = pin!(over.changed());
            let leader = match select(over, leaders.next()).await {
                Either::Left(_) => return,
                Either::Right((Some(Ok(leader)), _)) => leader,
                Either::Right((ended, _)) => {
                    world.broken("I7", format_args!("the leaders end with {ended:?}"));
                    return;
                }
            };
            world.count("seen");
            let token = leader.map(|leader| leader.token);
            lock(&self.books).seen.insert(client, token);
            if let Some(token) = token {
                if token < last || token == last && vacant {
                    world.broken("I7", format_args!("{token} is seen to lead after {last}"));
                }
                last = token;
            }
            vacant = token.is_none();
        }
    }

    /// Follows the states of an elector to their end.
    async fn follow(
        self: Arc<Self>,
        world: Arc<World>,
        client: MachineId,
        number: u64,
        elector: Weak<Elector>,
    ) {
        let Some(mut states) = elector.upgrade().map(|elector| elector.states()) else {
            return;
        };
        let mut last = Revision::ZERO;
        loop {
            let token = match states.changed().await {
                Ok(LeaderState::Leading { token, at_risk }) => {
                    if at_risk {
                        world.count("at risk");
                    }
                    let term = elector.upgrade().and_then(|elector| elector.term());
                    if let Some(term) = term
                        && term.token() == token
                        && lock(&self.books).newest.get(&number) != Some(&token)
                    {
                        self.begins(&world, client, number, &term);
                    }
                    token
                }
                Ok(LeaderState::Following { leader }) => leader.token,
                Ok(LeaderState::NoLeader) => continue,
                Err(error) => {
                    if error.kind() != ErrorKind::Closed {
                        world.broken("I13", format_args!("the elector gave up: {error}"));
                    }
                    return;
                }
            };
            if token < last {
                world.broken(
                    "I7",
                    format_args!("an elector sees {token} lead after {last}"),
                );
            }
            last = token;
        }
    }

    /// Within a while everybody knows who leads.
    async fn all_agree(&self, world: &World, when: &str) {
        let deadline = Instant::now() + 3 * CALL + 4 * world.schedule.ttl;
        while let Some(wrong) = self.disagrees(world) {
            if Instant::now() > deadline {
                world.broken("I8", format_args!("{when}, and {wrong}"));
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn disagrees(&self, world: &World) -> Option<String> {
        let queue = world.keys(KeyRange::prefix(format!("{NAME}/")));
        let leader = queue.iter().map(|kv| kv.create_revision).min();
        let books = lock(&self.books);
        for (client, seen) in &books.seen {
            if *seen != leader {
                return Some(format!("{leader:?} leads, client {client} sees {seen:?}"));
            }
        }
        let mut leads = 0;
        for Candidate { client, elector } in &books.kept {
            let token = match elector.state() {
                LeaderState::Leading {
                    token,
                    at_risk: false,
                } => {
                    leads += 1;
                    Some(token)
                }
                LeaderState::Following { leader } => Some(leader.token),
                _ => None,
            };
            if token.is_none() || token != leader {
                let state = elector.state();
                return Some(format!(
                    "{leader:?} leads, for client {client} it is {state:?}"
                ));
            }
        }
        if queue.len() != books.kept.len() || leads != books.kept.len().min(1) {
            let (all, kept) = (queue.len(), books.kept.len());
            return Some(format!("{leads} of {kept} electors lead, {all} keys stand"));
        }
        None
    }

    /// Deletes the leader's key by hand.
    fn depose(&self, world: &World) {
        let queue = world.keys(KeyRange::prefix(format!("{NAME}/")));
        if let Some(leader) = queue.iter().min_by_key(|kv| kv.create_revision) {
            let delete = Txn::new().then(Op::delete(&leader.key));
            // The store answers at once.
            drop(unconstrained(world.store.txn(delete)).now_or_never());
        }
    }

    /// Who stops, or is dropped, leaves nothing behind, though its session lives on.
    async fn all_stop(&self, world: &World) {
        let kept = std::mem::take(&mut lock(&self.books).kept);
        for (nth, candidate) in kept.into_iter().enumerate() {
            if let Some(elector) = Arc::into_inner(candidate.elector)
                && nth % 2 == 0
                && let Err(error) = elector.stop().await
            {
                world.broken("I13", format_args!("the elector gave up: {error}"));
            }
        }
        let deadline = Instant::now() + CALL;
        loop {
            let left = world.keys(KeyRange::prefix(NAME)).len();
            if left == 0 {
                return;
            }
            if Instant::now() > deadline {
                world.broken("I5", format_args!("{left} entries are left in the queue"));
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Campaigns again and again, in each way.
struct Worker {
    recipe: Arc<Electors>,
    world: Arc<World>,
    client: MachineId,
    random: fastrand::Rng,
}

impl Worker {
    async fn run(mut self) {
        let client = self.world.members[self.client].client();
        let mut latest = None;
        while self.world.storms() {
            let mut election = client.election(NAME).value("v");
            if self.random.u8(..4) == 0 {
                election = election.ttl(self.world.schedule.ttl);
            }
            match self.random.u8(..3) {
                0 => {
                    drop(latest.take());
                    let candidate = self.stand(&election);
                    self.live(&candidate).await;
                    if self.world.storms() {
                        self.end(candidate).await;
                    } else {
                        latest = Some(candidate);
                    }
                }
                _ => self.lead(&client, &election).await,
            }
            sleep(Duration::from_millis(self.random.u64(..500))).await;
        }
        lock(&self.recipe.books).kept.extend(latest);
    }

    fn number(&self) -> u64 {
        let mut books = lock(&self.recipe.books);
        books.next += 1;
        books.next
    }

    /// Runs a task while leading, until it loses patience: after a while, or between any two steps.
    async fn lead(&mut self, client: &Client, election: &quorate::Election) {
        let number = self.number();
        let cancelled = Arc::new(AtomicBool::new(false));
        let tasks = {
            let (recipe, world) = (Arc::clone(&self.recipe), Arc::clone(&self.world));
            let (client, cancelled) = (client.clone(), Arc::clone(&cancelled));
            let (place, mut random) = (self.client, self.random.fork());
            move |term: Term| {
                let task = Task {
                    recipe: Arc::clone(&recipe),
                    world: Arc::clone(&world),
                    client: place,
                    elector: number,
                    term,
                    random: random.fork(),
                    cancelled: Arc::clone(&cancelled),
                };
                task.run(client.clone())
            }
        };
        let run = AssertUnwindSafe(election.run(tasks)).catch_unwind();
        let run = noting(run, move || cancelled.store(true, Ordering::Relaxed));
        let steps = (self.random.u8(..4) == 0).then(|| self.random.u32(1..60));
        let patience = Duration::from_millis(self.random.u64(1..15_000));
        match timeout(patience, cut_after(steps, run)).await {
            Err(_) | Ok(None) => self.world.count("cancelled"),
            Ok(Some(Err(_))) => self.world.count("panicked"),
            Ok(Some(Ok(Ok(token)))) => {
                self.world.count("ended");
                let newest = lock(&self.recipe.books).newest.get(&number).copied();
                if newest != Some(token) {
                    let what = format_args!("the task of {newest:?} ended, and {token} is told");
                    self.world.broken("I2", what);
                }
            }
            Ok(Some(Ok(Err(error)))) => {
                self.world
                    .broken("I13", format_args!("an error that nobody expects: {error}"));
            }
        }
        let busy = lock(&self.recipe.books).busy.remove(&number);
        if let Some(token) = busy {
            self.world.broken(
                "I1",
                format_args!("the task of {token} runs on after its elector"),
            );
        }
    }

    /// Stands as a candidate in the background.
    fn stand(&self, election: &quorate::Election) -> Candidate {
        let number = self.number();
        let elector = Arc::new(election.elector());
        let (recipe, world) = (Arc::clone(&self.recipe), Arc::clone(&self.world));
        let follow = recipe.follow(world, self.client, number, Arc::downgrade(&elector));
        let machine = &self.world.members[self.client].machine;
        machine.spawn(Box::pin(follow));
        let client = self.client;
        Candidate { client, elector }
    }

    async fn live(&mut self, candidate: &Candidate) {
        let elector = &candidate.elector;
        for _ in 0..self.random.u64(..12) {
            sleep(Duration::from_millis(self.random.u64(..1000))).await;
            if let Some(term) = elector.term() {
                let state = elector.state();
                if !matches!(state, LeaderState::Leading { token, .. } if token == term.token()) {
                    let what = format_args!("{term:?} is led in {state:?}");
                    self.world.broken("I8", what);
                }
                if self.random.bool() {
                    let client = self.world.members[self.client].client();
                    let ledger = &self.recipe.ledger;
                    let random = &mut self.random;
                    let write = ledger.write(&client, random, term.token(), term.fence());
                    if !write.await.count(&self.world) {
                        return;
                    }
                }
            }
            if !self.world.storms() {
                return;
            }
        }
    }

    async fn end(&mut self, candidate: Candidate) {
        let Some(elector) = Arc::into_inner(candidate.elector) else {
            return;
        };
        match self.random.u8(..3) {
            0 => drop(elector),
            1 => drop(cut_after(Some(self.random.u32(1..8)), elector.stop()).await),
            _ => {
                let begun = Begun::now(&self.world, self.client);
                if let Err(error) = elector.stop().await {
                    self.world
                        .broken("I13", format_args!("the elector gave up: {error}"));
                }
                let books = lock(&self.recipe.books);
                let what = "to stop an elector";
                books
                    .pauses
                    .bounded(&self.world, self.client, begun, CALL, what);
            }
        }
    }
}

/// What runs while an elector leads.
struct Task {
    recipe: Arc<Electors>,
    world: Arc<World>,
    client: MachineId,
    elector: u64,
    term: Term,
    random: fastrand::Rng,
    /// Whether its elector was dropped, and it with that.
    cancelled: Arc<AtomicBool>,
}

/// A task that has begun. It has to be run to its end, unless its elector goes.
struct Stage<'a> {
    task: &'a Task,
    is_done: bool,
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let Task {
            recipe,
            world,
            elector,
            term,
            cancelled,
            ..
        } = self.task;
        lock(&recipe.books).busy.remove(elector);
        if !self.is_done && !cancelled.load(Ordering::Relaxed) && !world.is_over() {
            let token = term.token();
            world.broken("I1", format_args!("the task of {token} is not awaited"));
        }
    }
}

impl Task {
    async fn run(self, client: Client) -> Revision {
        let token = self.term.token();
        if !self.term.is_held() {
            let what = format_args!("the task of {token} begins when its term is over");
            self.world.broken("I4", what);
        }
        let busy = lock(&self.recipe.books).busy.insert(self.elector, token);
        if let Some(busy) = busy {
            let what = format_args!("the task of {token} begins beside that of {busy}");
            self.world.broken("I1", what);
        }
        self.recipe
            .begins(&self.world, self.client, self.elector, &self.term);
        let mut random = self.random.clone();
        let mut stage = Stage {
            task: &self,
            is_done: false,
        };
        let (ends, panics) = (random.u8(..4) == 0, random.u8(..12) == 0);
        let mut steps = random.u64(..30);
        loop {
            let pause = sleep(Duration::from_millis(random.u64(..300)));
            let stopping = pin!(self.term.stopping());
            if let Either::Left(_) = select(stopping, pin!(pause)).await {
                break;
            }
            let write = self
                .recipe
                .ledger
                .write(&client, &mut random, token, self.term.fence());
            if !write.await.count(&self.world) {
                self.term.stopping().await;
                break;
            }
            steps = steps.saturating_sub(1);
            if steps == 0 && panics {
                stage.is_done = true;
                resume_unwind(Box::new("on purpose"));
            }
            if steps == 0 && ends {
                stage.is_done = true;
                return token;
            }
        }
        // Some take their time, and some too much of it.
        self.world.count("asked to stop");
        let slack = match random.u8(..12) {
            0 => 12_000,
            1..7 => 2000,
            _ => 1,
        };
        if slack > 1 {
            self.world.count("dawdled");
        }
        sleep(Duration::from_millis(random.u64(..slack))).await;
        stage.is_done = true;
        token
    }
}
