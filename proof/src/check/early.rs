//! Leases that the server ended before their time.

use super::{Case, exclusion::Hold, store::Incarnation};
use crate::history::Stamp;

/// How far back the faults lie that are told of, and that may have deposed a leader unawares.
pub(super) const BEFORE: Stamp = 10_000_000_000;

/// Whether a hold's key was gone since the server, if it is known for that, ended the lease as a leader
/// does that was deposed unawares: all keys of the lease at once, none by its owner's doing, soon after such a leader's fault.
pub(super) fn is_by_server(
    case: &Case<'_>,
    hold: &Hold<'_>,
    contender: Option<&Incarnation<'_>>,
) -> bool {
    let Some((created, deleted)) = contender.and_then(|own| Some((own.created, own.deleted?)))
    else {
        return false;
    };
    let changes = case.store.revision(deleted.revision);
    let changes = changes.map_or(&[][..], |revision| &revision.changes);
    let is_own = |key: &str| {
        let mut versions = case.store.versions(key).iter();
        versions.any(|version| version.revision == created.revision)
    };
    let Some(own) = changes.iter().find(|change| is_own(&change.key)) else {
        return false;
    };
    let mut same = case
        .store
        .under("")
        .filter(|(key, _)| key.contains('/') && lease(key) == lease(&own.key));
    let is_whole = same.all(|(key, _)| case.store.value_at(key, deleted.revision).is_none());
    let before = deleted.at.saturating_sub(BEFORE);
    let is_known = case.history.run.revokes_early;
    // Whoever believes for longer than the lease would have lived is wrong whatever the server does.
    let lives = hold.beat.map(|beat| beat + case.history.run.ttl);
    let is_known = is_known && hold.believed <= lives;
    is_known && is_whole && !hold.is_given_up() && case.faults.deposes(before, deleted.at)
}

/// The lease in the name of a contender's key, which ends with `LEASE-NUMBER`.
fn lease(key: &str) -> &str {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.split('-').next().unwrap_or(name)
}

/// When a contender's key was known to be gone.
pub(super) fn gone(contender: Option<&Incarnation<'_>>) -> Stamp {
    let deleted = contender.and_then(|contender| contender.deleted);
    deleted.map_or(Stamp::MAX, |deleted| deleted.at)
}

/// By how much the server ended a hold's lease too early, if the hold's key was gone at a moment:
/// before the time to live had passed since a beat that it confirmed was sent.
pub(super) fn ended_early(case: &Case<'_>, hold: &Hold<'_>, gone: Stamp) -> Option<Stamp> {
    let early = (hold.beat? + case.history.run.ttl).checked_sub(gone)?;
    (early > 0).then_some(early)
}
