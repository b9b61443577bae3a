//! Whether the server is well: for those who ask over and over, in etcd's words.

use std::sync::Arc;

use axum::{
    Router,
    extract::RawQuery,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};

use crate::{plain::get_only, store::shared::Shared};

/// What etcd looks at to tell whether it lives, and whether it can serve. Here all of it is well until
/// the disk fails, and then nothing is.
const LIVE: &[&str] = &["serializable_read"];
const READY: &[&str] = &[
    "data_corruption",
    "serializable_read",
    "linearizable_read",
    "non_learner",
];

pub(crate) fn routes(shared: &Arc<Shared>) -> Router {
    let asked = Arc::clone(shared);
    let health = async move |method: Method| health(&asked, &method);
    let mut router = Router::new().route("/health", any(health));
    for (path, checks) in [("/livez", LIVE), ("/readyz", READY)] {
        let asked = Arc::clone(shared);
        let all =
            async move |method: Method, query: RawQuery| report(&asked, &method, &query, checks);
        router = router.route(path, any(all));
        for check in checks {
            let asked = Arc::clone(shared);
            let one = std::slice::from_ref(check);
            // Of one check nothing can be excluded.
            let one = async move |method: Method, RawQuery(query): RawQuery| {
                let query = query.map(|query| query.replace("exclude", ""));
                report(&asked, &method, &RawQuery(query), one)
            };
            router = router.route(&format!("{path}/{check}"), any(one));
        }
    }
    router
}

fn health(shared: &Shared, method: &Method) -> Response {
    if let Some(refusal) = get_only(method) {
        return refusal;
    }
    let (status, is_well, reason) = match shared.check() {
        Ok(()) => (StatusCode::OK, "true", String::new()),
        Err(failure) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "false",
            failure.message().to_owned(),
        ),
    };
    let body = serde_json::json!({ "health": is_well, "reason": reason });
    (status, body.to_string()).into_response()
}

/// Tells of each check, if the query asks for that, and of all.
fn report(
    shared: &Shared,
    method: &Method,
    RawQuery(query): &RawQuery,
    checks: &[&str],
) -> Response {
    if let Some(refusal) = get_only(method) {
        return refusal;
    }
    let pairs = query.iter().flat_map(|query| query.split('&'));
    let (mut is_verbose, mut excluded) = (false, Vec::new());
    for (name, value) in pairs.map(|it| it.split_once('=').unwrap_or((it, ""))) {
        match name {
            "exclude" => excluded.push(value),
            "verbose" => is_verbose = true,
            _ => {}
        }
    }
    let mut told = checks.iter().filter(|check| !excluded.contains(*check));
    if let (Err(failure), true) = (shared.check(), told.clone().next().is_some()) {
        let reason = failure.message();
        let lines: String = told
            .map(|check| format!("[-]{check} failed: {reason}\n"))
            .collect();
        return (StatusCode::SERVICE_UNAVAILABLE, lines).into_response();
    }
    let lines = told
        .by_ref()
        .filter(|_| is_verbose)
        .map(|check| format!("[+]{check} ok\n"));
    let text: String = lines.chain(["ok\n".to_owned()]).collect();
    text.into_response()
}
