use std::{collections::VecDeque, sync::Arc};

use super::{
    judge::judge,
    look::{Answer, Seen},
    *,
};
use crate::{
    ErrorKind,
    backend::recorder::{Recorder, status},
};

fn check() -> HealthCheck {
    Client::with_backend(Arc::new(Recorder::new())).health()
}

fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("m{id}"),
        peer_urls: Vec::new(),
        client_urls: vec![url(id)],
        is_learner: false,
    }
}

fn url(id: u64) -> String {
    format!("http://m{id}:2379")
}

/// What that member tells when it is well.
fn status_of(id: u64) -> Status {
    let mut status = status();
    status.header.member_id = id;
    status
}

fn answer(id: u64, status: Status) -> Answer {
    Answer {
        url: url(id),
        is_endpoint: true,
        applied: status.raft_applied_index,
        status: Ok(status),
    }
}

/// Three members that are well.
fn seen() -> Seen {
    Seen {
        read: Ok(Some(status().header)),
        list: Some([1, 2, 3].map(member).into()),
        answers: [1, 2, 3].map(|id| answer(id, status_of(id))).into(),
        alarms: Vec::new(),
    }
}

/// Judges three members of which the second tells something else.
fn judged(change: impl FnOnce(&mut Status)) -> HealthReport {
    let mut seen = seen();
    change(seen.answers[1].status.as_mut().expect("it answered"));
    judge(seen, &check())
}

fn reasons(report: &HealthReport) -> Vec<String> {
    report.reasons.iter().map(ToString::to_string).collect()
}

#[test]
fn a_cluster_whose_members_are_well_is_up() {
    let report = judge(seen(), &check());
    assert_eq!(reasons(&report), [""; 0]);
    assert_eq!(report.health, Health::Up);
    assert_eq!(report.leader().map(|leader| &*leader.label), Some("m2"));
}

#[test]
fn alarms_are_told_once_and_with_the_member_that_raised_them() {
    for (alarm, problem, health) in [
        ("NOSPACE", Problem::NoSpace, Health::Degraded),
        ("CORRUPT", Problem::Corrupt, Health::Down),
    ] {
        let mut seen = seen();
        for answer in &mut seen.answers {
            let status = answer.status.as_mut().expect("it answered");
            status.errors.push(format!("memberID:3 alarm:{alarm} "));
        }
        let report = judge(seen, &check());
        assert_eq!(report.health, health);
        let [reason] = &*report.reasons else {
            panic!("{report:?}");
        };
        assert_eq!(
            (reason.problem, reason.member.as_deref()),
            (problem, Some("m3"))
        );
        assert!(reason.to_string().contains(alarm), "{reason}");
    }
}

#[test]
fn what_a_member_reports_beside_alarms_is_told_as_it_is() {
    let report = judged(|status| status.errors = vec!["memberID:2 alarm:THIRST ".into()]);
    assert_eq!(
        reasons(&report),
        ["m2 reports an error: memberID:2 alarm:THIRST"]
    );
    let report = judged(|status| {
        status.leader = 0;
        status.errors = vec!["etcdserver: no leader".into()];
    });
    assert_eq!(reasons(&report), ["m2 sees no leader"]);
    assert_eq!(report.health, Health::Degraded);
}

#[test]
fn a_database_that_nears_its_quota_is_told() {
    let report = judged(|status| status.db_size = 2 << 30);
    assert!(report.has(Problem::NearQuota));
    assert!(
        report.reasons[0].detail.contains("by default"),
        "{report:?}"
    );
    let told = |quota, size| {
        let report = judged(|status| (status.db_size, status.db_size_quota) = (size, Some(quota)));
        report.has(Problem::NearQuota)
    };
    assert!(told(1000, 900) && !told(1000, 899));
    assert!(!told(u64::MAX, 3 << 30));
    // What the caller says counts more.
    let mut seen = seen();
    seen.answers[0]
        .status
        .as_mut()
        .expect("it answered")
        .db_size = 3 << 30;
    assert_eq!(judge(seen, &check().quota(0)).health, Health::Up);
}

#[test]
fn an_endpoint_of_another_cluster_is_told_and_its_troubles_are_not() {
    let report = judged(|status| {
        status.header.cluster_id += 1;
        status.raft_index = 1_000_000;
        status.leader = 0;
        status.errors = vec!["memberID:2 alarm:NOSPACE ".into()];
    });
    let problems: Vec<_> = report.reasons.iter().map(|reason| reason.problem).collect();
    // The listed member is not there.
    assert_eq!(problems, [Problem::Unreachable, Problem::OtherCluster]);
    assert!(report.reasons[0].detail.contains("answers there"));
}

#[test]
fn a_member_behind_a_url_of_another_name_is_known_by_its_id() {
    let mut seen = seen();
    seen.answers[2].url = "http://balancer".into();
    seen.answers.push(Answer {
        url: url(3),
        is_endpoint: false,
        status: Err(Error::new(ErrorKind::Unavailable, "no way")),
        applied: 0,
    });
    let report = judge(seen, &check());
    assert_eq!((report.health, report.members.len()), (Health::Up, 3));
    // An endpoint that fails is told even if the member is reached elsewhere.
    let mut seen = self::seen();
    seen.answers.push(Answer {
        url: "http://balancer".into(),
        is_endpoint: true,
        status: Err(Error::new(ErrorKind::Unavailable, "no way")),
        applied: 0,
    });
    let report = judge(seen, &check());
    assert_eq!(reasons(&report), ["http://balancer is unreachable: no way"]);
}

#[test]
fn members_of_one_name_are_told_apart() {
    let mut seen = seen();
    for member in seen.list.iter_mut().flatten() {
        member.name = "default".into();
    }
    seen.answers[1].status = Err(Error::new(ErrorKind::Timeout, "silence"));
    let report = judge(seen, &check());
    assert_eq!(reasons(&report), ["http://m2:2379 is unreachable: silence"]);
    assert!(report.members[1].is_leader, "the others say so");
}

#[test]
fn a_member_that_cannot_be_asked_from_here_is_no_trouble() {
    let mut seen = seen();
    seen.answers[2].status = Err(Error::new(ErrorKind::InvalidArgument, "needs TLS"));
    let report = judge(seen, &check());
    assert_eq!(report.health, Health::Up);
    assert!(!report.members[2].is_reachable());
    // Nor is one that was not asked.
    let mut seen = self::seen();
    seen.answers.pop();
    assert_eq!(judge(seen, &check()).health, Health::Up);
}

#[test]
fn sizes_and_words_are_no_change_and_a_leader_is() {
    let before = judge(seen(), &check()).outline();
    let grown = judged(|status| (status.db_size, status.raft_term) = (77, 4));
    assert_eq!(grown.outline(), before);
    let elected = judged(|status| (status.leader, status.raft_term) = (3, 4));
    assert_ne!(elected.outline(), before);
    let failed = |why: &str| {
        let mut seen = seen();
        seen.answers[0].status = Err(Error::new(ErrorKind::Unavailable, why));
        judge(seen, &check()).outline()
    };
    assert_eq!(failed("refused"), failed("reset"));
    assert_ne!(failed("refused"), before);
}

/// A cluster of two of which the second tells these, one at each question.
fn lagging(applied: [u64; 2], is_learner: bool) -> HealthCheck {
    let recorder = Recorder::new();
    let mut recorded = recorder.lock();
    recorded.members = [1, 2].map(member).into();
    recorded.members[1].is_learner = is_learner;
    let newest = Status {
        raft_index: 9000,
        raft_applied_index: 9000,
        ..status_of(1)
    };
    for url in ["recorder".to_owned(), url(1)] {
        let told = VecDeque::from([newest.clone()]);
        recorded.statuses.insert(url, told);
    }
    let told = applied.map(|applied| Status {
        raft_index: applied,
        raft_applied_index: applied,
        is_learner,
        ..status_of(2)
    });
    recorded.statuses.insert(url(2), told.into());
    drop(recorded);
    Client::with_backend(Arc::new(recorder)).health()
}

#[tokio::test(start_paused = true)]
async fn who_lags_is_asked_twice() {
    // It only answered earlier than the other.
    let report = lagging([100, 9000], false).check().await;
    assert!(!report.has(Problem::Lagging), "{report:?}");
    let report = lagging([100, 7999], false).check().await;
    assert!(report.has(Problem::Lagging), "{report:?}");
    assert!(reasons(&report).contains(&"m2 lags: 1001 entries are not applied".into()));
    let report = lagging([100, 8000], false).check().await;
    assert!(!report.has(Problem::Lagging), "{report:?}");
    let report = lagging([100, 100], true).check().await;
    assert!(!report.has(Problem::Lagging), "{report:?}");
}
