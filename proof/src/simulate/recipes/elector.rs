//! Electors that never give up, tasks that run only while they lead, and those who follow the leaders.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{
    FutureExt, StreamExt,
    future::{Either, select},
};
use quorate::{
    Elector, ErrorKind, KeyRange, LeaderState, Op, Revision, Runtime, Term, Txn, backend::Backend,
};
use tokio::{
    sync::watch,
    task::unconstrained,
    time::{Instant, sleep},
};

use self::worker::Worker;
use super::Recipe;
use crate::simulate::{
    glance::Pauses,
    ledger::Ledger,
    scheduler::MachineId,
    world::{CALL, World, lock},
};

mod worker;

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
            ledger: Ledger::new(NAME),
            over: watch::Sender::new(false),
        }
    }
}

impl Recipe for Electors {
    fn start(self: Arc<Self>, world: &Arc<World>) {
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
        self.ledger.look(world);
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
        // Who is asked notices what nobody might have told: so one alone is not, and in every other
        // schedule none.
        if terms.len() > 1 && world.schedule.seed.is_multiple_of(2) {
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
            let sessions = super::sessions(&world).await;
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
            // Who is told late that it led may have lost its key meanwhile, if somebody deletes it.
            if token < last && world.schedule.assumed {
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
        for client in 0..world.members.len() {
            let seen = books.seen.get(&client);
            if seen != Some(&leader) {
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
