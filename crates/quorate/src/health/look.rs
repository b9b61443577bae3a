//! Asks everybody at the same time, until the deadline.

use std::pin::Pin;

use futures_core::future::BoxFuture;
use futures_util::{StreamExt, future::Either, stream::FuturesUnordered};

use super::HealthCheck;
use crate::{
    Error, ErrorKind, Header, Range, Result,
    backend::{Alarm, Backend, Member, Status},
    link::lock,
};

/// The key that is read; whether it exists does not matter.
const PROBE: &str = "health";

/// What was found out.
#[derive(Debug)]
pub(super) struct Seen {
    /// What the linearizable read told: whose answer it is, if it has a header.
    pub(super) read: Result<Option<Header>>,
    /// The list of members, this one or the last one.
    pub(super) list: Option<Vec<Member>>,
    /// The members' answers, those of the client's endpoints first.
    pub(super) answers: Vec<Answer>,
    /// The list of alarms, where no member tells its status.
    pub(super) alarms: Vec<Alarm>,
}

/// What one URL answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) url: String,
    /// Whether it is an endpoint that the client was given.
    pub(super) is_endpoint: bool,
    pub(super) status: Result<Status>,
    /// The newest entry that it has applied. If it seemed to lag it was asked once more.
    pub(super) applied: u64,
}

pub(super) async fn look(check: &HealthCheck) -> Seen {
    let runtime = check.link.runtime();
    let deadline = runtime.sleep_until(runtime.now() + check.link.settings().call_timeout);
    let mut look = Look::begin(check, deadline);
    look.collect().await;
    look.ask_again();
    look.ask_alarms();
    look.collect().await;
    look.seen()
}

/// What one of the calls under way told.
enum Told {
    Alarms(Result<Vec<Alarm>>),
    Applied(usize, Result<Status>),
    Members(Result<Vec<Member>>),
    Read(Result<Option<Header>>),
    Status(usize, Result<Status>),
}

struct Look<'a> {
    check: &'a HealthCheck,
    deadline: BoxFuture<'static, ()>,
    calls: FuturesUnordered<BoxFuture<'a, Told>>,
    is_over: bool,
    read: Option<Result<Option<Header>>>,
    list: Option<Vec<Member>>,
    asked: Vec<Asked>,
    alarms: Vec<Alarm>,
}

struct Asked {
    url: String,
    is_endpoint: bool,
    status: Option<Result<Status>>,
    applied: u64,
}

impl<'a> Look<'a> {
    /// Asks the endpoints, the last known members and the cluster.
    fn begin(check: &'a HealthCheck, deadline: BoxFuture<'static, ()>) -> Self {
        let backend: &dyn Backend = &*check.link.backend;
        let calls: FuturesUnordered<BoxFuture<'a, Told>> = FuturesUnordered::new();
        calls.push(Box::pin(async { Told::Read(read(backend).await) }));
        calls.push(Box::pin(async { Told::Members(backend.members().await) }));
        let mut look = Self {
            check,
            deadline,
            calls,
            is_over: false,
            read: None,
            list: check.known(),
            asked: Vec::new(),
            alarms: Vec::new(),
        };
        for url in backend.endpoints() {
            look.ask(url, true);
        }
        look.ask_members();
        look
    }

    /// Asks the members that are listed, where nobody was asked yet.
    fn ask_members(&mut self) {
        if self.check.only_endpoints {
            return;
        }
        let listed = self.list.iter().flatten();
        let urls: Vec<_> = listed
            .flat_map(|member| member.client_urls.clone())
            .collect();
        for url in urls {
            self.ask(url, false);
        }
    }

    fn ask(&mut self, url: String, is_endpoint: bool) {
        if self.asked.iter().any(|asked| same_url(&asked.url, &url)) {
            return;
        }
        let index = self.asked.len();
        let status = self.check.link.backend.status(Some(url.clone()));
        self.calls
            .push(Box::pin(async move { Told::Status(index, status.await) }));
        self.asked.push(Asked {
            url,
            is_endpoint,
            status: None,
            applied: 0,
        });
    }

    /// Takes answers until all have come or the time is over.
    async fn collect(&mut self) {
        while !self.is_over {
            let next =
                futures_util::future::select(self.calls.next(), Pin::new(&mut self.deadline));
            match next.await {
                Either::Left((Some(told), _)) => self.take(told),
                Either::Left((None, _)) => return,
                Either::Right(((), _)) => self.is_over = true,
            }
        }
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Alarms(alarms) => self.alarms = alarms.unwrap_or_default(),
            Told::Applied(index, Ok(status)) => {
                let asked = &mut self.asked[index];
                asked.applied = asked.applied.max(status.raft_applied_index);
            }
            // Then what it said first has to do.
            Told::Applied(_, Err(_)) => {}
            Told::Members(Ok(list)) => {
                *lock(&self.check.known) = Some(list.clone());
                self.list = Some(list);
                self.ask_members();
            }
            // The last list has to do; what is wrong the read tells, too.
            Told::Members(Err(_)) => {}
            Told::Read(read) => self.read = Some(read),
            Told::Status(index, status) => {
                let asked = &mut self.asked[index];
                asked.applied = status
                    .as_ref()
                    .map_or(0, |status| status.raft_applied_index);
                asked.status = Some(status);
            }
        }
    }

    /// Asks those that seem to lag once more. The answers were given at different moments, and under
    /// writes the earlier one looks old; who has not applied by the second answer what others had
    /// committed by the first does lag.
    fn ask_again(&mut self) {
        let statuses = |asked: &Asked| asked.status.as_ref()?.as_ref().ok().cloned();
        let newest = self.asked.iter().filter_map(statuses);
        let newest = newest.map(|status| status.raft_index).max();
        let newest = newest.unwrap_or_default();
        for (index, asked) in self.asked.iter().enumerate() {
            if statuses(asked).is_some() && newest - asked.applied.min(newest) > self.check.lag {
                let status = self.check.link.backend.status(Some(asked.url.clone()));
                self.calls
                    .push(Box::pin(async move { Told::Applied(index, status.await) }));
            }
        }
    }

    /// Asks for the list of alarms if the members answer, and none tells its status to this user.
    fn ask_alarms(&mut self) {
        let told = || self.asked.iter().filter_map(|asked| asked.status.as_ref());
        let is_refused = |told: &Result<Status>| told.as_ref().is_err_and(is_refusal);
        if told().any(is_refused) && told().all(Result::is_err) {
            let backend = &self.check.link.backend;
            self.calls
                .push(Box::pin(async { Told::Alarms(backend.alarms().await) }));
        }
    }

    fn seen(self) -> Seen {
        let timeout = self.check.link.settings().call_timeout;
        let silent = || Error::new(ErrorKind::Timeout, format!("no answer in {timeout:?}"));
        let answers = self.asked.into_iter().map(|asked| Answer {
            status: (asked.status).unwrap_or_else(|| Err(silent().context(&asked.url))),
            url: asked.url,
            is_endpoint: asked.is_endpoint,
            applied: asked.applied,
        });
        Seen {
            answers: answers.collect(),
            alarms: self.alarms,
            list: self.list,
            read: self.read.unwrap_or_else(|| Err(silent())),
        }
    }
}

/// Reads linearizably, past the link: an answer of another cluster is for the callers whose data it
/// concerns to be told of.
async fn read(backend: &dyn Backend) -> Result<Option<Header>> {
    match backend.range(Range::new(PROBE).keys_only()).await {
        Ok(answer) => Ok(Some(answer.header)),
        // etcd looks at the permissions after the quorum has confirmed the read.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a member refused to answer this user.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::Unauthenticated
    )
}

/// Whether two URLs are the same but for a `/` at the end.
pub(super) fn same_url(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}
