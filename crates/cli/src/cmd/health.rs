//! `health`: whether the cluster is well, and what is wrong.

use std::process::ExitCode;

use quorate::{Client, ErrorKind, Health, HealthReport, MemberHealth, Reason};
use serde_json::{Value as Json, json};

use crate::{
    args,
    failure::{Failure, NO},
    output::Output,
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    args: &args::Health,
) -> Result<ExitCode, Failure> {
    let mut check = client.health();
    if let Some(quota) = args.quota {
        check = check.quota(quota);
    }
    if args.endpoints_only {
        check = check.only_endpoints();
    }
    if !args.watch {
        let report = check.check().await;
        for member in &report.members {
            print_member(out, member)?;
        }
        print(out, &report)?;
        return Ok(match report.health {
            Health::Up => ExitCode::SUCCESS,
            Health::Degraded => ExitCode::from(NO),
            Health::Down => ExitCode::from(ErrorKind::Unavailable.code()),
        });
    }
    if let Some(interval) = args.interval {
        check = check.every(interval);
    }
    let mut monitor = check.monitor();
    loop {
        print(out, &*monitor.changed().await?)?;
        out.flush()?;
    }
}

/// The line of the cluster: how it is, who leads, who belongs to it, and why it is not well.
fn print(out: &mut Output, report: &HealthReport) -> Result<(), Failure> {
    let health = report.health.to_string();
    let leader = report.leader().map(|leader| leader.label.as_str());
    let member = |member: &MemberHealth| match member.is_learner {
        true => format!("({})", member.label),
        false => member.label.clone(),
    };
    let members: Vec<_> = report.members.iter().map(member).collect();
    let reasons: Vec<_> = report.reasons.iter().map(one_line).collect();
    let fields = [
        "cluster",
        &health,
        leader.unwrap_or_default(),
        &members.join(","),
        &reasons.join("; "),
    ];
    out.result(&fields.map(str::as_bytes), || {
        let labels = |learners: bool| {
            let members = report.members.iter();
            let members = members.filter(|member| member.is_learner == learners);
            members.map(|member| &member.label).collect::<Vec<_>>()
        };
        let reason = |reason: &Reason| {
            json!({
                "problem": reason.problem.to_string(),
                "member": reason.member,
                "message": reason.to_string(),
            })
        };
        json!({
            "health": health,
            "leader": leader,
            "voters": labels(false),
            "learners": labels(true),
            "reasons": report.reasons.iter().map(reason).collect::<Vec<_>>(),
        })
    })
}

fn print_member(out: &mut Output, member: &MemberHealth) -> Result<(), Failure> {
    let status = member.status.as_ref();
    let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
    let state = state(member);
    let fields = [
        member.label.as_str(),
        member.endpoint.as_deref().unwrap_or_default(),
        state,
        status.map_or("", |status| status.version.as_str()),
        &number(status.map(|status| status.db_size)),
        &number(member.lag),
    ];
    out.result(&fields.map(str::as_bytes), || {
        json!({
            "member": member.label,
            "id": member.id.map(|id| format!("{id:x}")),
            "endpoint": member.endpoint,
            "state": state,
            "error": member.error.as_ref().map(ToString::to_string),
            "is_leader": member.is_leader,
            "is_learner": member.is_learner,
            "version": status.map(|status| status.version.as_str()),
            "db_size": status.map(|status| status.db_size),
            "db_size_in_use": status.map(|status| status.db_size_in_use),
            "db_size_quota": status.and_then(|status| status.db_size_quota),
            "raft_term": status.map(|status| status.raft_term),
            "raft_index": status.map(|status| status.raft_index),
            "raft_applied_index": status.map(|status| status.raft_applied_index),
            "lag": member.lag,
            "errors": status.map_or(Json::Null, |status| json!(status.errors)),
        })
    })
}

fn state(member: &MemberHealth) -> &'static str {
    match (&member.status, &member.error) {
        (Some(_), _) if member.is_leader => "leader",
        (Some(_), _) if member.is_learner => "learner",
        (Some(_), _) => "follower",
        (None, Some(_)) if member.is_reachable() => "refused",
        (None, Some(_)) => "unreachable",
        (None, None) => "not asked",
    }
}

/// A reason without line breaks and tabs, which a server's words may have.
fn one_line(reason: &Reason) -> String {
    reason
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
