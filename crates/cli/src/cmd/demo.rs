//! `demo`: shows on any store, and checks, what locks and elections promise.

use std::{pin::pin, process::ExitCode, sync::Arc, time::Duration};

use futures_util::{
    StreamExt, TryStreamExt,
    future::try_join_all,
    stream::{FuturesUnordered, Stream},
};
use quorate::{
    Client, ConnectOptions, Error, ErrorKind, KeyRange, Leadership, Result, Revision,
    backend::fault::{Fault, Faults, Partition},
};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    failure::{Failure, complain},
    hold::{signalled, unless_ended},
    output::Output,
    signals::Signals,
};

/// Plays it in a namespace of its own, and cleans up.
pub(crate) async fn run(client: &Client, out: &mut Output) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new().map_err(Failure::System)?;
    // No other lease of the store has the same number.
    let place = format!("quorate-demo/{}", client.session().await?.lease());
    let mut timeline = Timeline {
        started: Instant::now(),
        out,
    };
    let played = unless_ended(&mut signals, play(client, &place, &mut timeline)).await;
    if let Err(error) = client.delete(KeyRange::prefix(format!("{place}/"))).await {
        complain(&format!("keys may be left under {place}/: {error}"));
    }
    match played {
        Ok(Ok(())) => Ok(ExitCode::SUCCESS),
        Ok(Err(failure)) => Err(failure),
        Err(signal) => Ok(signalled(signal)),
    }
}

async fn play(client: &Client, place: &str, timeline: &mut Timeline<'_>) -> Result<(), Failure> {
    let participants = ["alice", "bob", "carol"].map(|name| Participant::join(client, place, name));
    let elected = async {
        let mut campaigns = campaigns(&participants);
        let first = elect(&participants, &mut campaigns, timeline).await?;
        let second = take_over(&participants, &first, &mut campaigns, timeline).await?;
        refuse(&first, &second, timeline).await?;
        let token = second.leadership.token();
        second.leadership.resign().await?;
        timeline.tell(format!(
            "{} resigns (token {token})",
            second.participant.name
        ))
    };
    elected.await?;
    count(client, place, timeline).await?;
    for participant in &participants {
        // Those that are not confirmed end by themselves.
        let _ = participant.client.close().await;
    }
    timeline.tell("every step was observed")
}

/// What happened when, as it is printed.
struct Timeline<'a> {
    started: Instant,
    out: &'a mut Output,
}

impl Timeline<'_> {
    fn tell(&mut self, what: impl Into<String>) -> Result<(), Failure> {
        self.tell_of(Instant::now(), what)
    }

    fn tell_of(&mut self, when: Instant, what: impl Into<String>) -> Result<(), Failure> {
        let (at, what) = ((when - self.started).as_secs_f64(), what.into());
        let clock = format!("{at:8.3} s");
        self.out.result(
            &[clock.as_bytes(), what.as_bytes()],
            || json!({ "at": (at * 1e6).round() / 1e6, "event": what }),
        )?;
        self.out.flush()
    }
}

/// A candidate, with a connection that can be cut.
struct Participant {
    name: &'static str,
    client: Client,
    faults: Faults,
}

impl Participant {
    fn join(client: &Client, place: &str, name: &'static str) -> Self {
        let fault = Fault::new(Arc::clone(client.backend()));
        let faults = fault.faults();
        let options = ConnectOptions::memory().session_ttl(TTL);
        let client = Client::with_backend_and(Arc::new(fault), options).namespace(place);
        Self {
            name,
            client,
            faults,
        }
    }

    /// Waits until this participant sees the leader with `token`.
    async fn sees(&self, token: Revision) -> Result<()> {
        let mut leaders = self.client.election(ELECTION).observe();
        while let Some(leader) = leaders.try_next().await? {
            if leader.is_some_and(|leader| leader.token == token) {
                return Ok(());
            }
        }
        Err(failed("an observation ended"))
    }
}

/// A leader, from when it knew that it leads.
struct Term<'a> {
    participant: &'a Participant,
    leadership: Leadership,
    since: Instant,
}

/// The campaigns of all participants: their terms, as they begin.
fn campaigns(participants: &[Participant]) -> impl Stream<Item = Result<Term<'_>>> + Unpin {
    let campaigns: FuturesUnordered<_> = participants
        .iter()
        .map(|participant| {
            Box::pin(async move {
                let election = participant.client.election(ELECTION);
                let leadership = election.value(participant.name).campaign().await?;
                Ok(Term {
                    participant,
                    leadership,
                    since: Instant::now(),
                })
            })
        })
        .collect();
    campaigns
}

/// One leads, and all know.
async fn elect<'a>(
    participants: &[Participant],
    campaigns: &mut (impl Stream<Item = Result<Term<'a>>> + Unpin),
    timeline: &mut Timeline<'_>,
) -> Result<Term<'a>, Failure> {
    const STEP: &str = "three participants elect a leader";

    timeline.tell("alice, bob and carol campaign")?;
    let term = within(STEP, next(campaigns)).await?;
    let (name, token) = (term.participant.name, term.leadership.token());
    timeline.tell_of(term.since, format!("{name} leads (token {token})"))?;
    let all = participants.iter().map(|each| each.sees(token));
    within(STEP, try_join_all(all)).await?;
    timeline.tell(format!("all three know that {name} leads"))?;
    Ok(term)
}

/// The leader is cut off: it knows that it leads no more before the next one leads.
async fn take_over<'a>(
    participants: &[Participant],
    first: &Term<'_>,
    campaigns: &mut (impl Stream<Item = Result<Term<'a>>> + Unpin),
    timeline: &mut Timeline<'_>,
) -> Result<Term<'a>, Failure> {
    const STEP: &str = "another leads when the leader is cut off, and not before the leader knows";

    let former = first.participant.name;
    first.participant.faults.partition(Partition::Hang);
    timeline.tell(format!(
        "{former} is cut off from the store; its lease has {TTL:?} to live at most"
    ))?;
    let loss = async {
        let loss = first.leadership.lost().await;
        Ok((loss, Instant::now()))
    };
    let succession = async {
        let term = next(campaigns).await?;
        // Asked at the first moment at which somebody else leads.
        Ok((term, first.leadership.is_held()))
    };
    let both = async { tokio::try_join!(loss, succession) };
    let ((loss, lost_at), (second, overlaps)) = within(STEP, both).await?;
    if overlaps || lost_at > second.since {
        return Err(failed("two led at a time").context(STEP).into());
    }
    timeline.tell_of(
        lost_at,
        format!("{former} knows that it leads no more: {loss}"),
    )?;
    let (name, token) = (second.participant.name, second.leadership.token());
    timeline.tell_of(second.since, format!("{name} leads (token {token})"))?;
    if token <= first.leadership.token() {
        return Err(failed("its token is not higher").context(STEP).into());
    }
    let connected = participants.iter().filter(|each| each.name != former);
    within(STEP, try_join_all(connected.map(|each| each.sees(token)))).await?;
    timeline.tell(format!("both who are connected know that {name} leads"))?;
    Ok(second)
}

/// Once it is connected again the former leader writes, and is refused.
async fn refuse(
    first: &Term<'_>,
    second: &Term<'_>,
    timeline: &mut Timeline<'_>,
) -> Result<(), Failure> {
    const STEP: &str = "a write by the former leader is refused";

    let (former, name) = (first.participant.name, second.participant.name);
    let plan = second.leadership.fenced("plan");
    let revision = within(STEP, plan.set(name)).await?;
    timeline.tell(format!(
        "{name} writes under its fence (revision {revision})"
    ))?;
    first.participant.faults.heal();
    let former_plan = first.leadership.fenced("plan");
    let refused = within(STEP, async { Ok(former_plan.set(former).await) }).await?;
    match refused {
        Err(error) if error.kind() == ErrorKind::Lost => {}
        Err(error) => return Err(error.context(STEP).into()),
        Ok(_) => return Err(failed("it was accepted").context(STEP).into()),
    }
    let present = within(STEP, plan.get()).await?;
    if present.is_none_or(|present| present.mod_revision != revision) {
        return Err(failed("the value was overwritten").context(STEP).into());
    }
    timeline.tell(format!(
        "{former} is connected again and writes under its old fence (token {}): refused",
        first.leadership.token()
    ))
}

/// Many add to one counter under a lock, and no update is lost.
async fn count(client: &Client, place: &str, timeline: &mut Timeline<'_>) -> Result<(), Failure> {
    const STEP: &str = "a counter under a lock loses no update";

    timeline.tell(format!(
        "{CONTENDERS} contenders add to a counter under a lock, {ADDITIONS} times each"
    ))?;
    let contenders: Vec<_> = (0..CONTENDERS)
        .map(|_| Client::with_backend(Arc::clone(client.backend())).namespace(place))
        .collect();
    let began = Instant::now();
    let additions = within(STEP, try_join_all(contenders.iter().map(add))).await?;
    let took = began.elapsed();
    for (number, additions) in (1..).zip(&additions) {
        let (mut counts, mut tokens) = (Vec::new(), Vec::new());
        for addition in additions {
            counts.push(addition.count.to_string());
            tokens.push(addition.token.to_string());
        }
        timeline.tell(format!(
            "contender {number} made it {} (tokens {})",
            counts.join(", "),
            tokens.join(", ")
        ))?;
    }
    let mut all: Vec<_> = additions.into_iter().flatten().collect();
    all.sort_by_key(|addition| addition.written);
    if !all.is_sorted_by(|a, b| a.token < b.token) {
        let message = "tokens do not rise in the order of the writes";
        return Err(failed(message).context(STEP).into());
    }
    let counts = all.iter().map(|addition| addition.count);
    if !counts.eq(1..=CONTENDERS * ADDITIONS) {
        return Err(failed("an update is lost").context(STEP).into());
    }
    let client = client.namespace(place);
    let counter = within(STEP, client.get("counter")).await?;
    let total = counter.as_ref().and_then(|kv| kv.value.as_str());
    let expected = (CONTENDERS * ADDITIONS).to_string();
    if total != Some(&expected) {
        return Err(failed("the counter is wrong").context(STEP).into());
    }
    for contender in &contenders {
        let _ = contender.close().await;
    }
    timeline.tell(format!(
        "the counter is {expected} after {:.3} s: no update is lost, and tokens rose with every holder",
        took.as_secs_f64()
    ))
}

/// One hold of the counter's lock.
struct Addition {
    token: Revision,
    count: u32,
    /// The revision of the write.
    written: Revision,
}

async fn add(client: &Client) -> Result<Vec<Addition>> {
    let mut additions = Vec::new();
    for _ in 0..ADDITIONS {
        let guard = client.lock("counter-lock").acquire().await?;
        let counter = guard.fenced("counter");
        let before = counter.get().await?;
        let before = before.map_or(Some(0), |kv| kv.value.as_str()?.parse().ok());
        let count = before.ok_or_else(|| failed("the counter is no number"))? + 1;
        additions.push(Addition {
            token: guard.token(),
            count,
            written: counter.set(count.to_string()).await?,
        });
        guard.release().await?;
    }
    Ok(additions)
}

async fn next<'a>(
    campaigns: &mut (impl Stream<Item = Result<Term<'a>>> + Unpin),
) -> Result<Term<'a>> {
    match campaigns.next().await {
        Some(term) => term,
        None => Err(failed("nobody campaigns")),
    }
}

/// What `work` comes to, if it comes in time; its failure tells the step.
async fn within<T>(step: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let work = pin!(work);
    match timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Timeout, "it did not come to pass")),
    }
    .map_err(|error| error.context(step))
}

/// What must not happen.
fn failed(message: &str) -> Error {
    Error::new(ErrorKind::Internal, message)
}

const ELECTION: &str = "leader";

/// The shortest that etcd grants as long as its election timeout is not changed.
const TTL: Duration = Duration::from_secs(2);

const CONTENDERS: u32 = 8;

const ADDITIONS: u32 = 5;

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(30);
