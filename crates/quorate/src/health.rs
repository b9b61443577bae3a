//! Cluster health: who answers, who leads, and what is wrong.
//!
//! A look asks every member for its status, the cluster for its members, and reads a key linearizably,
//! all at the same time. Nothing of it writes: etcd puts even a question for the list of alarms into
//! its raft log, so alarms are taken from what the members report, and the list is asked for only if
//! they refuse to.

use std::{fmt, sync::Mutex, time::Duration};

use crate::{
    Client, Error,
    backend::{Member, Status},
    link::{Link, lock},
};

mod judge;
mod look;
mod monitor;

pub use self::monitor::HealthMonitor;

/// The quota that etcd has unless it is told otherwise.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// How many entries a member may be behind unless it is told otherwise: a fifth of where etcd itself
/// refuses requests.
const DEFAULT_LAG: u64 = 1000;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// A pause between looks that keeps even a store in memory from being asked without end.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// How well a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It serves, and nothing is wrong.
    Up,
    /// It serves reads, and something is wrong: a failure more may be one too many, or writes are
    /// refused.
    Degraded,
    /// It does not serve, or what it serves cannot be trusted.
    Down,
}

/// What is wrong with a cluster or a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// The alarm CORRUPT: the members' data differ. What is read may be wrong, and etcd refuses
    /// transactions. The cluster is down.
    Corrupt,
    /// The member has not applied what the cluster had agreed on before the member was asked.
    Lagging,
    /// The member's database has grown to nine tenths of its quota.
    NearQuota,
    /// The member sees no leader, so it serves nothing linearizable.
    NoLeader,
    /// No linearizable read succeeded: there is no quorum, or no way to it. The cluster is down.
    NoRead,
    /// The alarm NOSPACE: a member's quota is exhausted, and every member refuses writes until space
    /// was made and the alarm disarmed. What is held stays held; nothing new can be acquired.
    NoSpace,
    /// The endpoint belongs to another cluster than the one that serves.
    OtherCluster,
    /// The member reports something else.
    Reported,
    /// The member did not answer.
    Unreachable,
}

/// One thing that is wrong. Its `Display` is a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// What is wrong.
    pub problem: Problem,
    /// With whom: the [label](MemberHealth::label) of the member; `None` if it is the whole cluster.
    pub member: Option<String>,
    /// What is known beside that, for people; may be empty.
    pub detail: String,
}

/// How one member is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemberHealth {
    /// What reasons call it: its name if no other member has that, else where it is reached, else its
    /// id.
    pub label: String,
    /// Its id; `None` for an endpoint that never told whose it is.
    pub id: Option<u64>,
    /// Where it answered, or was asked in vain; `None` if it is not known where to ask.
    pub endpoint: Option<String>,
    /// Whether it leads the cluster, as the others see it if it does not answer.
    pub is_leader: bool,
    /// Whether it only learns, and does not vote. That is no problem.
    pub is_learner: bool,
    /// What it says of itself, if it answered: version, sizes, raft indexes.
    pub status: Option<Status>,
    /// Why there is no status. Without either it was not asked.
    pub error: Option<Error>,
    /// How many entries it has yet to apply, if it answered.
    pub lag: Option<u64>,
}

/// How a cluster and its members are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HealthReport {
    /// The judgement.
    pub health: Health,
    /// What is wrong; empty if and only if the cluster is up.
    pub reasons: Vec<Reason>,
    /// The members in the order of the cluster's list, then endpoints that belong to none of them.
    pub members: Vec<MemberHealth>,
}

/// Looks at a cluster's health, once or for as long as a [`HealthMonitor`] lives.
///
/// The members of the cluster are asked where the client's endpoints lead, and at their own client URLs
/// otherwise. While the list of members cannot be read, those that this check, or one made from it, saw
/// last are asked.
#[derive(Debug)]
pub struct HealthCheck {
    link: Link,
    interval: Duration,
    quota: Option<u64>,
    lag: u64,
    only_endpoints: bool,
    /// The last list of members that was read.
    known: Mutex<Option<Vec<Member>>>,
}

impl Client {
    /// Looks at the health of the cluster: nothing is asked before [`HealthCheck::check`] or
    /// [`HealthCheck::monitor`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::{Client, Health};
    ///
    /// let client = Client::connect("mem:").await?;
    /// let report = client.health().check().await;
    /// assert_eq!(report.health, Health::Up);
    /// for reason in &report.reasons {
    ///     println!("{reason}"); // such as: m2 is unreachable: http://10.0.0.2:2379: ...
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn health(&self) -> HealthCheck {
        HealthCheck {
            link: self.link().clone(),
            interval: DEFAULT_INTERVAL,
            quota: None,
            lag: DEFAULT_LAG,
            only_endpoints: false,
            known: Mutex::default(),
        }
    }
}

impl HealthCheck {
    /// How long a monitor pauses between looks: 5 s if nothing else is said, and no less than 10 ms.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval.max(SHORTEST_INTERVAL);
        self
    }

    /// The quota of each member's database in bytes, as etcd's `--quota-backend-bytes` has it; 0 if
    /// there is none. Without this it is what the members tell, which they do since etcd 3.6, or else
    /// etcd's default of 2 GiB.
    #[must_use]
    pub fn quota(mut self, bytes: u64) -> Self {
        self.quota = Some(if bytes == 0 { u64::MAX } else { bytes });
        self
    }

    /// How many entries a member may be behind: 1,000 if nothing else is said. etcd refuses requests
    /// from 5,000 on. Learners may be behind as far as they like.
    #[must_use]
    pub fn max_lag(mut self, entries: u64) -> Self {
        self.lag = entries;
        self
    }

    /// Asks nobody but the client's endpoints: for members whose own URLs lead nowhere from here, as
    /// behind a load balancer. Other members are shown as not asked.
    #[must_use]
    pub fn only_endpoints(mut self) -> Self {
        self.only_endpoints = true;
        self
    }

    /// Looks once. It ends within the client's timeout, whoever hangs; failures are in the report.
    ///
    /// A user may lack the permission to read: to be told so takes a quorum as well, and counts as
    /// success.
    ///
    /// # Cancel safety
    ///
    /// It changes nothing, and can be dropped at any time.
    pub async fn check(&self) -> HealthReport {
        let seen = look::look(self).await;
        judge::judge(seen, self)
    }

    fn known(&self) -> Option<Vec<Member>> {
        lock(&self.known).clone()
    }
}

impl HealthReport {
    /// Whether anything has this problem.
    pub fn has(&self, problem: Problem) -> bool {
        self.reasons.iter().any(|reason| reason.problem == problem)
    }

    /// The member that leads.
    pub fn leader(&self) -> Option<&MemberHealth> {
        self.members.iter().find(|member| member.is_leader)
    }

    /// What counts as a change when it differs. Sizes, indexes and the words of errors do not.
    fn outline(&self) -> Outline {
        let member = |member: &MemberHealth| Outlined {
            id: member.id,
            // Members with an id may be reached here or there.
            endpoint: member.endpoint.clone().filter(|_| member.id.is_none()),
            is_leader: member.is_leader,
            is_learner: member.is_learner,
        };
        let reason = |reason: &Reason| (reason.problem, reason.member.clone());
        let mut outline = Outline {
            health: self.health,
            reasons: self.reasons.iter().map(reason).collect(),
            members: self.members.iter().map(member).collect(),
        };
        // Their order means nothing.
        outline.reasons.sort();
        outline.members.sort();
        outline
    }
}

impl MemberHealth {
    /// Whether it answered, be it that it refuses to tell this user of itself: some versions of etcd
    /// tell their status to root alone (3.6, and 3.5 from 3.5.28 on, each until a later fix).
    pub fn is_reachable(&self) -> bool {
        self.status.is_some() || self.error.as_ref().is_some_and(look::is_refusal)
    }
}

/// `up`, `degraded` or `down`.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        })
    }
}

/// One word, with `_` in it.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "corrupt",
            Self::Lagging => "lagging",
            Self::NearQuota => "near_quota",
            Self::NoLeader => "no_leader",
            Self::NoRead => "no_read",
            Self::NoSpace => "no_space",
            Self::OtherCluster => "other_cluster",
            Self::Reported => "reported",
            Self::Unreachable => "unreachable",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let member = self.member.as_deref().unwrap_or("the cluster");
        f.write_str(member)?;
        f.write_str(match self.problem {
            Problem::Corrupt => " raised CORRUPT: the members' data differ",
            Problem::Lagging => " lags",
            Problem::NearQuota => " is near its quota",
            Problem::NoLeader => " sees no leader",
            Problem::NoRead => " serves no linearizable read",
            Problem::NoSpace => " raised NOSPACE: its quota is exhausted, and writes are refused",
            Problem::OtherCluster => " belongs to another cluster",
            Problem::Reported => " reports an error",
            Problem::Unreachable => " is unreachable",
        })?;
        match self.detail.as_str() {
            "" => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}

/// What two reports have in common that tell the same.
#[derive(Debug, PartialEq, Eq)]
struct Outline {
    health: Health,
    reasons: Vec<(Problem, Option<String>)>,
    members: Vec<Outlined>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outlined {
    id: Option<u64>,
    endpoint: Option<String>,
    is_leader: bool,
    is_learner: bool,
}

#[cfg(test)]
mod tests;
