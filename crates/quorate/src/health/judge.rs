//! Makes a report of what was found out.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    DEFAULT_QUOTA, Health, HealthCheck, HealthReport, MemberHealth, Problem, Reason,
    look::{Answer, Seen, same_url},
};
use crate::{
    Error, ErrorKind,
    backend::{Alarm, AlarmKind, Member, Status},
};

pub(super) fn judge(seen: Seen, check: &HealthCheck) -> HealthReport {
    let cluster = seen.read.as_ref().ok().copied().flatten();
    let cluster = cluster.map(|header| header.cluster_id);
    let mut members = Roll::of(seen.answers, cluster).call(seen.list.unwrap_or_default());
    label(&mut members);
    let mut reasons = Vec::new();
    if let Err(error) = &seen.read {
        reasons.push(Reason {
            problem: Problem::NoRead,
            member: None,
            detail: error.to_string(),
        });
    }
    reasons.extend(alarms(&members, &seen.alarms));
    for member in &members {
        complain_of(member, cluster, check, &mut reasons);
    }
    let is_fatal = |reason: &Reason| matches!(reason.problem, Problem::Corrupt | Problem::NoRead);
    let health = match reasons.is_empty() {
        true => Health::Up,
        false if reasons.iter().any(is_fatal) => Health::Down,
        false => Health::Degraded,
    };
    HealthReport {
        health,
        reasons,
        members,
    }
}

/// Finds each member's answer.
struct Roll {
    /// None once it is a member's.
    answers: Vec<Option<Answer>>,
    cluster: Option<u64>,
    leader: Option<u64>,
    /// The newest entry that any member of the cluster has committed.
    newest: u64,
}

impl Roll {
    fn of(answers: Vec<Answer>, cluster: Option<u64>) -> Self {
        let ours = || {
            let statuses = answers
                .iter()
                .filter_map(|answer| answer.status.as_ref().ok());
            statuses.filter(|status| is_of(cluster, status))
        };
        let leading = ours().filter(|status| status.leader != 0);
        let leader = leading.max_by_key(|status| status.raft_term);
        Self {
            leader: leader.map(|status| status.leader),
            newest: ours().map(|status| status.raft_index).max().unwrap_or(0),
            answers: answers.into_iter().map(Some).collect(),
            cluster,
        }
    }

    /// The listed members, then the endpoints that are none of theirs.
    fn call(mut self, list: Vec<Member>) -> Vec<MemberHealth> {
        let mut members: Vec<_> = list.iter().map(|member| self.listed(member)).collect();
        for answer in std::mem::take(&mut self.answers).into_iter().flatten() {
            if let Some(stranger) = self.unlisted(answer, &members) {
                members.push(stranger);
            }
        }
        members
    }

    fn listed(&mut self, member: &Member) -> MemberHealth {
        let is_at = |answer: &Answer| {
            let mut urls = member.client_urls.iter();
            urls.any(|url| same_url(url, &answer.url))
        };
        let cluster = self.cluster;
        let is_its_own = |answer: &Answer| {
            let status = answer.status.as_ref();
            status
                .is_ok_and(|status| is_of(cluster, status) && status.header.member_id == member.id)
        };
        let answer = self
            .take(is_its_own)
            .or_else(|| self.take(|answer| is_at(answer) && answer.status.is_err()));
        let mut health = match answer {
            Some(answer) => self.answered(answer),
            None => self.silent(member, is_at),
        };
        health.label.clone_from(&member.name);
        health.id = Some(member.id);
        health.is_leader = self.leader == Some(member.id);
        health.is_learner = member.is_learner;
        health
    }

    fn take(&mut self, is_it: impl Fn(&Answer) -> bool) -> Option<Answer> {
        let is_it = |answer: &&mut Option<Answer>| answer.as_ref().is_some_and(&is_it);
        self.answers.iter_mut().find(is_it)?.take()
    }

    /// A member that answered, or failed to.
    fn answered(&self, answer: Answer) -> MemberHealth {
        let lag = self.newest.saturating_sub(answer.applied);
        let (status, error) = match answer.status {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        let ours = status.as_ref().filter(|status| is_of(self.cluster, status));
        let id = status.as_ref().map(|status| status.header.member_id);
        MemberHealth {
            label: String::new(),
            id,
            endpoint: Some(answer.url),
            is_leader: ours.is_some() && id == self.leader,
            is_learner: status.as_ref().is_some_and(|status| status.is_learner),
            lag: ours.map(|_| lag),
            status,
            error,
        }
    }

    /// A listed member that nobody could speak for.
    fn silent(&self, member: &Member, is_at: impl Fn(&Answer) -> bool) -> MemberHealth {
        let taken = self.answers.iter().flatten().find(|answer| is_at(answer));
        let taken = taken.and_then(|answer| Some((&answer.url, answer.status.as_ref().ok()?)));
        let unavailable = |message: String| Error::new(ErrorKind::Unavailable, message);
        let error = match taken {
            Some((url, status)) => Some(unavailable(format!(
                "{url}: member {:x} answers there",
                status.header.member_id
            ))),
            None if member.client_urls.is_empty() => {
                Some(unavailable("it has not started yet".to_owned()))
            }
            None => None,
        };
        MemberHealth {
            label: String::new(),
            id: None,
            endpoint: member.client_urls.first().cloned(),
            is_leader: false,
            is_learner: false,
            status: None,
            error,
            lag: None,
        }
    }

    /// An answer that belongs to no listed member. What answers at a listed URL but is not listed
    /// itself is told there.
    fn unlisted(&self, answer: Answer, members: &[MemberHealth]) -> Option<MemberHealth> {
        if !answer.is_endpoint {
            return None;
        }
        let stranger = self.answered(answer);
        let same = |member: &&MemberHealth| {
            let cluster = |member: &MemberHealth| Some(member.status.as_ref()?.header.cluster_id);
            member.id == stranger.id && cluster(member) == cluster(&stranger)
        };
        let is_double = stranger.id.is_some() && members.iter().any(|member| same(&member));
        (!is_double).then_some(stranger)
    }
}

/// Gives each member what it is called by.
fn label(members: &mut [MemberHealth]) {
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    for member in &*members {
        *names.entry(member.label.clone()).or_default() += 1;
    }
    for member in members {
        if member.label.is_empty() || names[&member.label] > 1 {
            let id = || format!("{:x}", member.id.unwrap_or_default());
            member.label = member.endpoint.clone().unwrap_or_else(id);
        }
    }
}

/// The alarms that any member knows of, and those of the list.
fn alarms(members: &[MemberHealth], list: &[Alarm]) -> Vec<Reason> {
    let told = members.iter().flat_map(errors).filter_map(alarm);
    let listed = list.iter().filter_map(|alarm| match alarm.kind {
        AlarmKind::Corrupt => Some((Problem::Corrupt, alarm.member_id)),
        AlarmKind::NoSpace => Some((Problem::NoSpace, alarm.member_id)),
        AlarmKind::Other(_) => None,
    });
    let raised: BTreeSet<_> = told.chain(listed).collect();
    let reason = |(problem, id): (Problem, u64)| {
        let member = members.iter().find(|member| member.id == Some(id));
        let label = member.map(|member| member.label.clone());
        Reason {
            problem,
            member: Some(label.unwrap_or_else(|| format!("{id:x}"))),
            detail: String::new(),
        }
    };
    raised.into_iter().map(reason).collect()
}

/// What a member reports as wrong, if it is of the cluster.
fn errors(member: &MemberHealth) -> impl Iterator<Item = &str> {
    let status = member.status.as_ref().filter(|_| member.lag.is_some());
    let errors = status.map(|status| status.errors.as_slice());
    errors.unwrap_or_default().iter().map(String::as_str)
}

/// Reads an alarm as etcd writes it, `memberID:7 alarm:NOSPACE`.
fn alarm(error: &str) -> Option<(Problem, u64)> {
    let word = |name: &str| error.split_whitespace().find_map(|w| w.strip_prefix(name));
    let problem = match word("alarm:")? {
        "CORRUPT" => Problem::Corrupt,
        "NOSPACE" => Problem::NoSpace,
        _ => return None,
    };
    Some((problem, word("memberID:")?.parse().ok()?))
}

/// Adds what is wrong with one member.
fn complain_of(
    member: &MemberHealth,
    cluster: Option<u64>,
    check: &HealthCheck,
    reasons: &mut Vec<Reason>,
) {
    let mut add = |problem, detail: String| {
        reasons.push(Reason {
            problem,
            member: Some(member.label.clone()),
            detail,
        });
    };
    let Some(status) = &member.status else {
        // With these options nobody can be asked there, which says nothing about the member.
        let is_asked = |error: &&Error| error.kind() != ErrorKind::InvalidArgument;
        if let Some(error) = member.error.as_ref().filter(is_asked)
            && !member.is_reachable()
        {
            add(Problem::Unreachable, error.to_string());
        }
        return;
    };
    if !is_of(cluster, status) {
        add(
            Problem::OtherCluster,
            format!("{:x}", status.header.cluster_id),
        );
        return;
    }
    if status.leader == 0 {
        add(Problem::NoLeader, String::new());
    }
    let lag = member.lag.unwrap_or_default();
    if lag > check.lag && !member.is_learner {
        add(Problem::Lagging, format!("{lag} entries are not applied"));
    }
    if let Some(detail) = near_quota(status, check.quota) {
        add(Problem::NearQuota, detail);
    }
    for error in errors(member) {
        let is_known = alarm(error).is_some() || status.leader == 0 && error.contains("no leader");
        if !is_known {
            add(Problem::Reported, error.trim().to_owned());
        }
    }
}

/// Tells how near the database is to its quota, if it is.
fn near_quota(status: &Status, quota: Option<u64>) -> Option<String> {
    let told = quota.or(status.db_size_quota);
    let quota = told.unwrap_or(DEFAULT_QUOTA);
    if status.db_size < quota - quota / 10 {
        return None;
    }
    let assumed = match told {
        Some(_) => "",
        None => " that etcd has by default",
    };
    Some(format!(
        "the database has {} of {quota} bytes{assumed}, with {} in use",
        status.db_size, status.db_size_in_use
    ))
}

/// Whether a status is of the cluster that serves, as far as that is known.
fn is_of(cluster: Option<u64>, status: &Status) -> bool {
    cluster.is_none_or(|id| id == status.header.cluster_id)
}
