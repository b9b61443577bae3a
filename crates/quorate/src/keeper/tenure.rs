//! The session by whose lease a keeper's keys live: had while it is needed, and replaced when it is
//! lost.

use futures_core::future::BoxFuture;

use super::task::Task;
use crate::{
    Error, LeaseId, Loss, Result, Session,
    session::{WeakSession, closed},
};

/// The session by whose lease the keys live.
pub(super) enum Tenure {
    Held(Session),
    /// Nothing is kept, but attempts to make keys may be on their way until it is over.
    Left(WeakSession, LeaseId),
    Opening(BoxFuture<'static, Result<Session>>),
    Vacant,
}

impl Tenure {
    pub(super) fn held(&self) -> Option<&Session> {
        match self {
            Self::Held(session) => Some(session),
            Self::Left(..) | Self::Opening(_) | Self::Vacant => None,
        }
    }

    /// The lease that lives.
    pub(super) fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::Held(session) => Some(session.lease()),
            Self::Left(_, lease) => Some(*lease),
            Self::Opening(_) | Self::Vacant => None,
        }
    }
}

impl Task {
    /// Has a session while any key needs one, and lets it go when none does.
    pub(super) fn tend_session(&mut self) {
        if self.core.strong_count() == 0 {
            // The client is gone, and all owners with it: the end of the session is the end of all.
            self.flight = None;
            self.tenure = Tenure::Vacant;
            for path in self.paths() {
                self.finish(&path, Err(closed()));
            }
            return;
        }
        if self.open == 0 {
            match std::mem::replace(&mut self.tenure, Tenure::Vacant) {
                Tenure::Held(session) => {
                    self.tenure = Tenure::Left(session.downgrade(), session.lease());
                }
                Tenure::Opening(_) => {}
                former => self.tenure = former,
            }
            return;
        }
        if let Tenure::Left(session, _) = &self.tenure {
            match session.upgrade() {
                Some(session) => {
                    self.tenure = Tenure::Held(session);
                    self.review_all();
                }
                // It went with the last key, which says nothing against the next.
                None => self.lost(Loss::Revoked),
            }
        }
        if !matches!(self.tenure, Tenure::Vacant) || self.paused_until.is_some() {
            return;
        }
        if !self.entries.values().any(|entry| entry.goal.is_some()) {
            return;
        }
        let Some(core) = self.core.upgrade() else {
            return;
        };
        let (sessions, ttl) = (core.sessions.clone(), self.keeper.ttl);
        self.tenure = Tenure::Opening(Box::pin(async move {
            match ttl {
                None => sessions.shared().await,
                Some(ttl) => sessions.create(ttl).await,
            }
        }));
    }

    pub(super) fn opened(&mut self, session: Result<Session>) {
        self.tenure = Tenure::Vacant;
        match session {
            Ok(session) => {
                self.tenure = Tenure::Held(session);
                self.review_all();
            }
            Err(error) => {
                let hopeless = !error.is_retryable();
                self.pause();
                for path in self.paths() {
                    let Some(entry) = self.entries.get(&path) else {
                        continue;
                    };
                    if hopeless && entry.goal.is_some() && !entry.is_made() {
                        self.refuse(&path, &error);
                    } else {
                        entry.slot.tell(|told| told.error = Some(error.clone()));
                    }
                }
            }
        }
    }

    /// The session is over. What it held comes back under another, unless its owner ended it.
    pub(super) fn lost(&mut self, loss: Loss) {
        let tenure = std::mem::replace(&mut self.tenure, Tenure::Vacant);
        let Some(lease) = tenure.lease() else {
            return;
        };
        tracing::debug!(%lease, %loss, "the session of ephemeral keys is over");
        for path in self.paths() {
            let Some(entry) = self.entries.get_mut(&path) else {
                continue;
            };
            // What may still come is over with the lease.
            if loss == Loss::Closed {
                entry.slot.lose(Loss::Closed);
                entry.goal = None;
                entry.session_is_over(lease);
                let outcome = Err(Error::lost(Loss::Closed, &entry.slot.name));
                self.finish(&path, outcome);
                continue;
            }
            entry.report_gap();
            entry.session_is_over(lease);
            self.review(&path);
        }
    }
}
