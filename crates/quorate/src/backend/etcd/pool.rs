//! The members: one connection each, one of them in use, the others in reserve.
//!
//! A client stays with the member that it has as long as that serves it. A member that fails is avoided
//! for a while that grows with each failure, and is asked again when it is over or when no other is left.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    classify::Failure,
    dial::{self, Dial},
    line::Line,
    local::Local,
    tasks::{Flight, Tasks},
};
use crate::{Error, ErrorKind, Result};

/// How long a member is avoided after its first failure, and at most.
const AVOIDED_FIRST: Duration = Duration::from_millis(200);
const AVOIDED_MOST: Duration = Duration::from_secs(10);

/// The members of one cluster.
#[derive(Debug)]
pub(super) struct Pool {
    members: Vec<Dial>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The member in use.
    pinned: usize,
    known: Vec<Known>,
}

/// What is known of one member.
#[derive(Debug, Default)]
struct Known {
    connection: Option<Connection>,
    pending: Option<Flight<Connection>>,
    /// How often it failed since it last answered.
    failures: u32,
    avoided_until: Option<Instant>,
}

/// A connection to one member. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) member: usize,
    pub(super) url: Arc<str>,
    pub(super) line: Line,
    /// Cancelled when the connection is given up; what is open on it may be dead, too.
    pub(super) given_up: CancellationToken,
}

impl Pool {
    /// Checks the endpoints; nothing is connected yet.
    pub(super) fn new(
        endpoints: &[String],
        dial: impl Fn(&str) -> Result<Dial>,
    ) -> Result<Arc<Self>> {
        let mut members: Vec<Dial> = Vec::new();
        for url in endpoints {
            let dial = dial(url)?;
            if members.iter().all(|member| member.url != dial.url) {
                members.push(dial);
            }
        }
        if members.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "no endpoint is given",
            ));
        }
        let state = State {
            // Clients with one list spread over the members.
            pinned: fastrand::usize(..members.len()),
            known: members.iter().map(|_| Known::default()).collect(),
        };
        Ok(Arc::new(Self {
            members,
            state: Mutex::new(state),
        }))
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Where each member is reached.
    pub(super) fn urls(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.url.clone())
            .collect()
    }

    /// Where one member is reached.
    pub(super) fn url(&self, member: usize) -> &str {
        &self.members[member].url
    }

    /// The member of that URL, however it is written.
    pub(super) fn find(&self, url: &str) -> Option<usize> {
        let url = match Local::of(url) {
            Some(local) => local.ok()?.url(),
            None => dial::normalized(url).ok()?,
        };
        self.members.iter().position(|member| member.url == url)
    }

    /// The member to ask, without those that were tried: the pinned one, the next that is not avoided,
    /// or the one that is avoided least longer. None if all were tried.
    pub(super) fn pick(&self, tried: &[usize]) -> Option<usize> {
        let state = self.state();
        let now = Instant::now();
        let count = self.members.len();
        (0..count)
            .map(|step| (state.pinned + step) % count)
            .filter(|member| !tried.contains(member))
            // Of equals the first is taken.
            .min_by_key(|&member| {
                state.known[member]
                    .avoided_until
                    .filter(|&until| until > now)
            })
    }

    /// The connection to a member, made if there is none. A failure to make it is noted here.
    pub(super) async fn connect(
        self: &Arc<Self>,
        member: usize,
        tasks: &Tasks,
    ) -> Result<Connection, Failure> {
        let pending = {
            let mut state = self.state();
            let known = &mut state.known[member];
            // As after a restart of its member, which says nothing against the next.
            known.connection.take_if(|present| present.line.has_ended());
            if let Some(connection) = &known.connection {
                return Ok(connection.clone());
            }
            tasks.join(&mut known.pending, || Arc::clone(self).dial(member))
        };
        pending.await
    }

    /// Notes that a member answered: it is the one in use unless that one is well.
    pub(super) fn succeeded(&self, connection: &Connection) {
        let mut state = self.state();
        let known = &mut state.known[connection.member];
        known.failures = 0;
        known.avoided_until = None;
        if state.known[state.pinned].failures > 0 {
            state.pinned = connection.member;
        }
    }

    /// Notes that a member failed on a connection: the connection is given up and the member avoided,
    /// unless the connection has been replaced already.
    pub(super) fn failed(&self, connection: &Connection) {
        let mut state = self.state();
        if connection.given_up.is_cancelled() {
            return;
        }
        connection.given_up.cancel();
        connection.line.give_up();
        let known = &mut state.known[connection.member];
        known
            .connection
            .take_if(|present| present.line.is(&connection.line));
        known.avoid();
    }

    /// Notes that a connection takes no more calls, as when its member restarts or a proxy replaces it, which
    /// says nothing against the next. What is open on it goes on.
    pub(super) fn gone(&self, connection: &Connection) {
        let mut state = self.state();
        let known = &mut state.known[connection.member];
        known
            .connection
            .take_if(|present| present.line.is(&connection.line));
    }

    async fn dial(self: Arc<Self>, member: usize) -> Result<Connection, Failure> {
        let dial = &self.members[member];
        let dialed = dial.connect().await;
        let mut state = self.state();
        let known = &mut state.known[member];
        known.pending = None;
        match dialed {
            Ok(line) => {
                let connection = Connection {
                    member,
                    url: dial.url.as_str().into(),
                    line,
                    given_up: CancellationToken::new(),
                };
                known.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(failure) => {
                known.avoid();
                Err(failure)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while the lock is held")
    }
}

impl Known {
    fn avoid(&mut self) {
        let longest = AVOIDED_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(AVOIDED_MOST);
        self.failures = self.failures.saturating_add(1);
        self.avoided_until = Some(Instant::now() + longest.mul_f64(0.5 + fastrand::f64() / 2.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::etcd::{EtcdOptions, tcp::CutOff};

    fn pool(endpoints: &[&str]) -> Result<Arc<Pool>> {
        let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        Pool::new(&endpoints, |url| Dial::new(url, &EtcdOptions::default()))
    }

    #[test]
    fn one_endpoint_is_listed_once_however_it_is_written() {
        let pool = pool(&["http://h", "http://h:2379/", "http://[::1]:1"]).expect("valid");
        assert_eq!(pool.urls(), ["http://h:2379", "http://[::1]:1"]);
        assert_eq!(pool.find("http://h"), Some(0));
        assert_eq!(pool.find("http://other"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_local_server_is_found_by_its_name() {
        let pool = pool(&["local:found"]).expect("valid");
        assert_eq!(pool.find("local:found"), Some(0));
        assert_eq!(pool.find(&pool.urls()[0]), Some(0));
        assert_eq!(pool.find("local:other"), None);
        assert_eq!(pool.find("local:no name"), None);
    }

    #[test]
    fn a_list_without_endpoints_is_refused() {
        let error = pool(&[]).map(drop).expect_err("nothing to connect to");
        assert_eq!(error.to_string(), "no endpoint is given");
    }

    /// A connection at whose other end nobody says anything.
    async fn connection(pool: &Pool, member: usize) -> Connection {
        let dial = &pool.members[member];
        let (io, other) = tokio::io::duplex(1 << 16);
        std::mem::forget(other); // it stays open
        Connection {
            member,
            url: pool.url(member).into(),
            line: dial
                .speak(io, CutOff::default())
                .await
                .expect("it says nothing"),
            given_up: CancellationToken::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_member_is_avoided_for_a_while_and_asked_when_no_other_is_left() {
        let pool = pool(&["http://a:1", "http://b:1", "http://c:1"]).expect("valid");
        let connection = async |member| {
            let connection = connection(&pool, member).await;
            pool.state().known[member].connection = Some(connection.clone());
            connection
        };
        let first = pool.pick(&[]).expect("there are members");
        let failing = connection(first).await;
        pool.failed(&failing);
        let second = pool.pick(&[]).expect("there are members");
        assert_ne!(first, second);
        pool.succeeded(&connection(second).await);
        let third = pool.pick(&[second]).expect("a third is left");
        assert!(third != first && third != second);
        assert_eq!(pool.pick(&[second, third]), Some(first));
        assert_eq!(pool.pick(&[first, second, third]), None);
        // What is well stays in use when the failed one may be asked again.
        tokio::time::advance(AVOIDED_MOST).await;
        assert_eq!(pool.pick(&[]), Some(second));
        // An old connection's failure says nothing about a new one.
        let fresh = connection(first).await;
        pool.failed(&failing);
        assert!(pool.state().known[first].connection.is_some());
        pool.failed(&fresh);
        assert!(pool.state().known[first].connection.is_none());
    }
}
