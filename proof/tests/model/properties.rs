//! What must always be true, and what must happen at some time lest that be true of nothing.

use stateright::Property;

use crate::{
    protocol::{Protocol, Value},
    state::{Attempt, Client, Phase, Session, State, Work, Wrong},
};

pub(crate) const EXCLUSION: &str = "I1: two never believe to hold at once";
pub(crate) const TOKENS: &str = "I2: tokens increase in the order of holders";
pub(crate) const FORMER: &str = "I2: no former holder writes after its successor acquired";
pub(crate) const KEYLESS: &str = "I4: who acquires has its key";
pub(crate) const VAIN: &str = "I4: at rest nobody waits in vain";
pub(crate) const ORPHAN: &str = "I5: at rest every key has an owner";
pub(crate) const FAIR: &str = "I6: nobody overtakes an older key";
pub(crate) const FINAL: &str = "I14: a lost session never lives again";
pub(crate) const ONE_ENTRY: &str = "I15: one acquisition has one key";
pub(crate) const UPDATES: &str = "I17: no update is lost";

/// The properties that the protocol promises under these assumptions, and the witnesses that they are not
/// empty promises.
pub(crate) fn all(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        always(VAIN, |protocol, state| {
            !waits_in_vain(state) || !protocol.is_at_rest(state)
        }),
        always(ORPHAN, |protocol, state| {
            !has_orphan(state) || !protocol.is_at_rest(state)
        }),
        always(FAIR, |_, state| !state.wrong.overtaken),
        always(FINAL, |_, state| !state.wrong.revived),
        always(ONE_ENTRY, |_, state| !has_two_entries(state)),
        always(EXCLUSION, |_, state| believers(state) < 2),
        always(TOKENS, |_, state| !state.wrong.token_back),
        always(KEYLESS, |_, state| !state.wrong.keyless),
        sometimes(
            "at rest a waiter waits behind a holder",
            |protocol, state| {
                let waits = |attempt: &Attempt| matches!(attempt.phase, Phase::Waiting { .. });
                let somebody_waits = attempts(state).any(|(_, attempt)| waits(attempt));
                somebody_waits && believers(state) == 1 && protocol.is_at_rest(state)
            },
        ),
        sometimes("a guard outlives its lease, unnoticed", |_, state| {
            attempts(state).any(|(client, attempt)| {
                matches!(attempt.phase, Phase::Holding { token } if !stands(state, token))
                    && !client.believes(attempt)
            })
        }),
        sometimes(
            "one holds with another session than its first",
            |_, state| {
                attempts(state)
                    .any(|(client, attempt)| attempt.lease == 1 && client.believes(attempt))
            },
        ),
    ];
    if protocol.ticks > 2 {
        all.extend(witnesses_of_time());
    }
    if protocol.troubles > 0 {
        all.extend(witnesses_of_trouble());
    }
    if protocol.value != Value::Untouched {
        all.extend(of_values(protocol.value));
    }
    if protocol.early && protocol.only.is_none() {
        // What nobody can promise then.
        all.retain(|property| ![EXCLUSION, TOKENS, KEYLESS].contains(&property.name));
        all.push(sometimes("two believe to hold at once", |_, state| {
            believers(state) == 2
        }));
    }
    all
}

fn witnesses_of_time() -> [Property<Protocol>; 2] {
    [
        sometimes(
            "an answer to a beat is credited by a clock that fell back",
            |_, state| {
                let late =
                    |client: &Client| client.beat.is_some_and(|beat| beat.answered && beat.slow);
                state
                    .clients
                    .iter()
                    .any(|client| client.is_live(client.lease) && late(client))
            },
        ),
        sometimes(
            "an answer to a beat comes for a lost session",
            |_, state| {
                let late = |client: &Client| client.beat.is_some_and(|beat| beat.answered);
                state
                    .clients
                    .iter()
                    .any(|client| client.session == Session::Lost && late(client))
            },
        ),
    ]
}

fn witnesses_of_trouble() -> [Property<Protocol>; 3] {
    [
        sometimes("a waiter loses its key", |_, state| {
            attempts(state).any(|(client, attempt)| {
                matches!(attempt.phase, Phase::Waiting { token, .. } if !stands(state, token))
                    && client.is_live(attempt.lease)
            })
        }),
        sometimes(
            "an acquisition is cancelled, and its key stands",
            |_, state| {
                attempts(state).any(|(_, attempt)| {
                matches!(attempt.phase, Phase::Deleting { token } if stands(state, token))
            })
            },
        ),
        sometimes(
            "a key is made by a request that nobody awaits",
            |_, state| {
                attempts(state).any(|(_, attempt)| {
                    matches!(attempt.phase, Phase::Lingering { told: true, .. })
                        && !attempt.stray_create
                }) && has_orphan(state)
            },
        ),
    ]
}

fn of_values(value: Value) -> Vec<Property<Protocol>> {
    let mut of_values = vec![
        always(UPDATES, |_, state| !state.wrong.update_lost),
        sometimes(
            "a former holder's write comes after the next one's",
            |_, state| {
                attempts(state)
                    .any(|(_, attempt)| matches!(attempt.work, Work::Sent { stale: true, .. }))
            },
        ),
        sometimes(
            "a former holder's write comes between the next one's reading and writing",
            |_, state| {
                let fresh = |work| matches!(work, Work::Sent { stale: false, token } if !stands(state, token));
                attempts(state).any(|(_, attempt)| fresh(attempt.work))
                    && attempts(state)
                        .any(|(_, attempt)| attempt.work == Work::Read { stale: false })
            },
        ),
    ];
    if value != Value::Sealed && value != Value::GatedWrites {
        // A gate elsewhere learns of the successor only when that one comes.
        of_values.push(always(FORMER, |_, state| !state.wrong.former_wrote));
    }
    of_values
}

/// What went wrong in a step; what went wrong before stays so.
pub(crate) fn judge(before: &State, after: &State) -> Wrong {
    let mut wrong = after.wrong;
    for (then, now) in before.clients.iter().zip(&after.clients) {
        wrong.revived |=
            then.session == Session::Lost && matches!(now.session, Session::Live { .. });
        for (then, now) in then.attempts.iter().zip(&now.attempts) {
            let Phase::Holding { token } = now.phase else {
                continue;
            };
            if then.phase == now.phase {
                continue;
            }
            wrong.token_back |= token <= before.latest;
            wrong.overtaken |= after.server.queue.before(token).is_some();
            wrong.keyless |= !stands(after, token);
        }
    }
    wrong
}

fn attempts(state: &State) -> impl Iterator<Item = (&Client, &Attempt)> {
    state
        .clients
        .iter()
        .flat_map(|client| client.attempts.iter().map(move |attempt| (client, attempt)))
}

fn stands(state: &State, token: u8) -> bool {
    state.server.queue.stands(token)
}

fn believers(state: &State) -> usize {
    attempts(state)
        .filter(|(client, attempt)| client.believes(attempt))
        .count()
}

/// Whether somebody waits whose own key is gone, or the key that it waits for.
fn waits_in_vain(state: &State) -> bool {
    attempts(state).any(|(_, attempt)| match attempt.phase {
        Phase::Waiting { token, before, .. } => !stands(state, token) || !stands(state, before),
        _ => false,
    })
}

/// Whether a key stands that nobody waits or holds by, though its session lives.
fn has_orphan(state: &State) -> bool {
    state.server.queue.iter().any(|entry| {
        let client = &state.clients[usize::from(entry.client)];
        let owned = |attempt: &Attempt| attempt.phase.token() == Some(entry.rev);
        client.is_live(entry.lease) && !client.attempts.iter().any(owned)
    })
}

fn has_two_entries(state: &State) -> bool {
    let queue = &state.server.queue;
    queue.iter().any(|entry| {
        queue
            .named(entry.name())
            .is_some_and(|first| first.rev != entry.rev)
    })
}

fn always(name: &'static str, condition: fn(&Protocol, &State) -> bool) -> Property<Protocol> {
    Property::always(name, condition)
}

fn sometimes(name: &'static str, condition: fn(&Protocol, &State) -> bool) -> Property<Protocol> {
    Property::sometimes(name, condition)
}
