//! The store's whole history, as watches of every member tell it, each from the beginning.

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures_util::StreamExt;
use quorate::{KeyRange, Revision, WatchRequest};
use tokio::time::sleep;

use super::{cluster::connect, worker::observe::change};
use crate::history::{Change, Log, What};

/// What is known of the store's history. Every revision is a change of some key, so one that nobody told
/// of is missed.
pub(crate) struct Reference {
    log: Rc<RefCell<Log>>,
    /// The changes of each revision, from [`FIRST`] on.
    told: RefCell<Vec<Vec<Change>>>,
}

/// The first revision at which something changed: 1 is that of an empty store.
const FIRST: usize = 2;

impl Reference {
    pub(crate) fn new(log: Rc<RefCell<Log>>) -> Rc<Self> {
        Rc::new(Self {
            log,
            told: RefCell::default(),
        })
    }

    /// The revision up to which all is known.
    pub(crate) fn revision(&self) -> Revision {
        let known = FIRST + self.told.borrow().len() - 1;
        Revision(i64::try_from(known).expect("there are not that many"))
    }

    /// Follows all changes by way of one member, for ever.
    pub(crate) async fn follow(&self, endpoint: String) {
        let client = connect(&endpoint, Duration::from_secs(5)).await;
        let mut next = Revision(1);
        loop {
            let mut watch = client.watch(WatchRequest::new(KeyRange::all()).start(next));
            while let Some(Ok(batch)) = watch.next().await {
                for events in batch.events.chunk_by(|a, b| a.revision() == b.revision()) {
                    let revision = events[0].revision();
                    self.note(revision, events.iter().map(change).collect(), &endpoint);
                    next = revision.next();
                }
            }
            // What was compacted meanwhile is known from the others.
            next = next.max(self.revision().next());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Takes note of a revision, or compares it with what is known.
    fn note(&self, revision: Revision, changes: Vec<Change>, endpoint: &str) {
        let mut told = self.told.borrow_mut();
        let index = usize::try_from(revision.0)
            .unwrap_or(0)
            .saturating_sub(FIRST);
        let text = match told.get(index) {
            Some(known) if *known == changes => return,
            Some(known) => format!("{endpoint} tells {changes:?} of {revision}, not {known:?}"),
            None if index == told.len() => {
                told.push(changes.clone());
                let what = What::Changed {
                    revision: revision.0,
                    changes,
                };
                self.log.borrow_mut().note(what);
                return;
            }
            None => format!("{endpoint} tells of {revision}, but not of what was before"),
        };
        self.log.borrow_mut().note(What::Contradiction { text });
    }
}

/// Notes each new leader, asking one member.
pub(crate) async fn follow_leader(
    log: Rc<RefCell<Log>>,
    newest: Rc<RefCell<(u64, u64)>>,
    member: usize,
    endpoint: String,
) {
    let client = connect(&endpoint, Duration::from_secs(1)).await;
    loop {
        if let Ok(status) = client.status().await {
            let seen = (status.raft_term, status.leader);
            let mut newest = newest.borrow_mut();
            if status.leader != 0 && seen.0 >= newest.0 && seen != *newest {
                *newest = seen;
                let term = status.raft_term;
                log.borrow_mut().note(What::Leader { term, member });
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}
