//! Cluster health.

use std::{ffi::c_char, mem::MaybeUninit, sync::Arc, time::Duration};

use futures_util::stream;
use quorate::{Health, HealthCheck, HealthReport, MemberHealth, Problem};

use crate::{
    bytes::{optional_millis, unreserved},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{Failure, guarded, infallible, quorate_code, quorate_error},
    events::Events,
    handle::{self, Kind},
    output::{self, Arena, give, required},
    wait::Limit,
};

/// How well a cluster is: it serves, and nothing is wrong.
pub const QUORATE_UP: i32 = 0;
/// How well a cluster is: it serves reads, and something is wrong.
pub const QUORATE_DEGRADED: i32 = 1;
/// How well a cluster is: it does not serve, or what it serves cannot be trusted.
pub const QUORATE_DOWN: i32 = 2;

/// What is wrong: something else than the following.
pub const QUORATE_PROBLEM_OTHER: i32 = 0;
/// What is wrong: the members' data differ.
pub const QUORATE_PROBLEM_CORRUPT: i32 = 1;
/// What is wrong: the member is behind.
pub const QUORATE_PROBLEM_LAGGING: i32 = 2;
/// What is wrong: the member's database has grown to nine tenths of its quota.
pub const QUORATE_PROBLEM_NEAR_QUOTA: i32 = 3;
/// What is wrong: the member sees no leader.
pub const QUORATE_PROBLEM_NO_LEADER: i32 = 4;
/// What is wrong: no linearizable read succeeded.
pub const QUORATE_PROBLEM_NO_READ: i32 = 5;
/// What is wrong: a member's quota is exhausted, and every member refuses writes.
pub const QUORATE_PROBLEM_NO_SPACE: i32 = 6;
/// What is wrong: the endpoint belongs to another cluster.
pub const QUORATE_PROBLEM_OTHER_CLUSTER: i32 = 7;
/// What is wrong: the member reports something.
pub const QUORATE_PROBLEM_REPORTED: i32 = 8;
/// What is wrong: the member did not answer.
pub const QUORATE_PROBLEM_UNREACHABLE: i32 = 9;

/// How health is judged. Initialize it by {0}.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_health_options {
    /// How long a monitor pauses between looks; 0 for 5 s.
    pub interval_ms: i64,
    /// The quota of each member's database in bytes; 0 for what the members tell, or 2 GiB.
    pub quota: u64,
    /// How many entries a member may be behind; 0 for 1000.
    pub max_lag: u64,
    /// Asks nobody but the client's endpoints.
    pub only_endpoints: bool,
    /// Must be zero.
    pub reserved: [u64; 4],
}

/// One thing that is wrong.
#[repr(C)]
pub struct quorate_reason {
    /// QUORATE_PROBLEM_CORRUPT and so on.
    pub problem: i32,
    /// The label of the member; NULL if it is the whole cluster.
    pub member: *const c_char,
    /// A sentence for people.
    pub text: *const c_char,
}

/// How one member is.
#[repr(C)]
pub struct quorate_member {
    /// What reasons call it.
    pub label: *const c_char,
    /// Its id; 0 for an endpoint that never told whose it is.
    pub id: u64,
    /// Where it answered, or was asked in vain; NULL if that is not known.
    pub endpoint: *const c_char,
    /// Whether it leads the cluster.
    pub is_leader: bool,
    /// Whether it only learns, and does not vote.
    pub is_learner: bool,
    /// Whether it answered.
    pub is_reachable: bool,
    /// Its version; NULL if it did not tell.
    pub version: *const c_char,
    /// The size of its database in bytes; 0 if it did not tell.
    pub db_size: u64,
    /// How many entries it has yet to apply.
    pub lag: u64,
    /// Why it told nothing; NULL if it did.
    pub error: *const c_char,
}

/// How a cluster and its members are. Free it by quorate_health_report_free.
#[repr(C)]
pub struct quorate_health_report {
    /// QUORATE_UP, QUORATE_DEGRADED or QUORATE_DOWN.
    pub health: i32,
    /// What is wrong; NULL if the cluster is up.
    pub reasons: *const quorate_reason,
    /// How many.
    pub reasons_len: usize,
    /// The members.
    pub members: *const quorate_member,
    /// How many.
    pub members_len: usize,
}

/// Looks at the health of a cluster again and again, and tells when it changes.
pub struct quorate_health_monitor {
    events: Events<Arc<HealthReport>>,
}

impl Kind for quorate_health_monitor {
    const NAME: &'static str = "quorate_health_monitor";
}

/// Looks once. It ends within the client's own limit, whoever hangs; what fails is in the report.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_health_check(
    client: *const quorate_client,
    options: Option<&quorate_health_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    report: Option<&mut MaybeUninit<*mut quorate_health_report>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(report, "report")?;
        let used = handle::used(client)?;
        let check = check(&used, options)?;
        let look = async { Ok::<_, Failure>(check.check().await) };
        let report = Limit::new(timeout_ms, cancel)?.run(&used.freed, look)?;
        *out = give_report(&report);
        Ok(())
    })
}

/// Looks again and again, until the monitor is freed. It keeps neither the client nor its session.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_health_monitor_open(
    client: *const quorate_client,
    options: Option<&quorate_health_options>,
    monitor: Option<&mut MaybeUninit<*mut quorate_health_monitor>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(monitor, "monitor")?;
        let used = handle::used(client)?;
        let check = check(&used, options)?;
        let reports = stream::unfold(Some(check.monitor()), |monitor| async {
            let mut monitor = monitor?;
            match monitor.changed().await {
                Ok(report) => Some((Ok(report), Some(monitor))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let events = Events::new(reports)?;
        *out = handle::open(quorate_health_monitor { events });
        Ok(())
    })
}

/// Waits until the health, its reasons, the members or their leader are others than was told last; at
/// first tells the first report.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_health_monitor_next(
    monitor: *mut quorate_health_monitor,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    report: Option<&mut MaybeUninit<*mut quorate_health_report>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(report, "report")?;
        let used = handle::used(monitor)?;
        let report = Limit::new(timeout_ms, cancel)?.run(&used.freed, used.events.next())?;
        *out = give_report(&report);
        Ok(())
    })
}

/// A descriptor that is readable while quorate_health_monitor_next would not wait.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_health_monitor_fd(
    monitor: *const quorate_health_monitor,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        *out = handle::used(monitor)?.events.fd()?;
        Ok(())
    })
}

/// Frees a monitor; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_health_monitor_free(monitor: *mut quorate_health_monitor) {
    infallible((), || {
        handle::free(monitor);
        Ok(())
    });
}

/// Frees a report; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_health_report_free(report: *mut quorate_health_report) {
    infallible((), || {
        output::take_back(report);
        Ok(())
    });
}

fn check(
    client: &quorate_client,
    options: Option<&quorate_health_options>,
) -> Result<HealthCheck, Failure> {
    let mut check = client.client.health();
    let Some(options) = options else {
        return Ok(check);
    };
    unreserved(&options.reserved)?;
    let interval: Option<Duration> = optional_millis(options.interval_ms, "interval")?;
    if let Some(interval) = interval {
        check = check.every(interval);
    }
    if options.quota != 0 {
        check = check.quota(options.quota);
    }
    if options.max_lag != 0 {
        check = check.max_lag(options.max_lag);
    }
    if options.only_endpoints {
        check = check.only_endpoints();
    }
    Ok(check)
}

fn give_report(report: &HealthReport) -> *mut quorate_health_report {
    give(|arena| {
        let (reasons, reasons_len) =
            arena.collect(&report.reasons, |reason, arena| quorate_reason {
                problem: problem(reason.problem),
                member: arena.optional_text(reason.member.as_deref()),
                text: arena.text(&reason.to_string()),
            });
        let (members, members_len) = arena.collect(&report.members, lay_member);
        quorate_health_report {
            health: match report.health {
                Health::Up => QUORATE_UP,
                Health::Degraded => QUORATE_DEGRADED,
                Health::Down => QUORATE_DOWN,
            },
            reasons,
            reasons_len,
            members,
            members_len,
        }
    })
}

fn lay_member(member: &MemberHealth, arena: &mut Arena) -> quorate_member {
    let status = member.status.as_ref();
    let error = member.error.as_ref().map(ToString::to_string);
    quorate_member {
        label: arena.text(&member.label),
        id: member.id.unwrap_or(0),
        endpoint: arena.optional_text(member.endpoint.as_deref()),
        is_leader: member.is_leader,
        is_learner: member.is_learner,
        is_reachable: member.is_reachable(),
        version: arena.optional_text(status.map(|status| &*status.version)),
        db_size: status.map_or(0, |status| status.db_size),
        lag: member.lag.unwrap_or(0),
        error: arena.optional_text(error.as_deref()),
    }
}

fn problem(problem: Problem) -> i32 {
    match problem {
        Problem::Corrupt => QUORATE_PROBLEM_CORRUPT,
        Problem::Lagging => QUORATE_PROBLEM_LAGGING,
        Problem::NearQuota => QUORATE_PROBLEM_NEAR_QUOTA,
        Problem::NoLeader => QUORATE_PROBLEM_NO_LEADER,
        Problem::NoRead => QUORATE_PROBLEM_NO_READ,
        Problem::NoSpace => QUORATE_PROBLEM_NO_SPACE,
        Problem::OtherCluster => QUORATE_PROBLEM_OTHER_CLUSTER,
        Problem::Reported => QUORATE_PROBLEM_REPORTED,
        Problem::Unreachable => QUORATE_PROBLEM_UNREACHABLE,
        _ => QUORATE_PROBLEM_OTHER,
    }
}
