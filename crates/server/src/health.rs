//! Whether the server is well: for those who ask over and over, in etcd's words.

use axum::{
    Router,
    extract::RawQuery,
    http::Method,
    response::{IntoResponse, Response},
    routing::any,
};

use crate::plain::get_only;

/// What etcd looks at to tell whether it lives, and whether it can serve. Here all of it is well as
/// long as there is anybody to ask.
const LIVE: &[&str] = &["serializable_read"];
const READY: &[&str] = &[
    "data_corruption",
    "serializable_read",
    "linearizable_read",
    "non_learner",
];

pub(crate) fn routes() -> Router {
    let mut router = Router::new().route("/health", any(health));
    for (path, checks) in [("/livez", LIVE), ("/readyz", READY)] {
        let all = async move |method: Method, query: RawQuery| report(&method, &query, checks);
        router = router.route(path, any(all));
        for check in checks {
            let one = std::slice::from_ref(check);
            // Of one check nothing can be excluded.
            let one = async move |method: Method, RawQuery(query): RawQuery| {
                let query = query.map(|query| query.replace("exclude", ""));
                report(&method, &RawQuery(query), one)
            };
            router = router.route(&format!("{path}/{check}"), any(one));
        }
    }
    router
}

async fn health(method: Method) -> Response {
    get_only(&method).unwrap_or_else(|| r#"{"health":"true","reason":""}"#.into_response())
}

/// Tells of each check, if the query asks for that, and of all.
fn report(method: &Method, RawQuery(query): &RawQuery, checks: &[&str]) -> Response {
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
    let told = checks
        .iter()
        .filter(|check| is_verbose && !excluded.contains(*check));
    let lines = told.map(|check| format!("[+]{check} ok\n"));
    let text: String = lines.chain(["ok\n".to_owned()]).collect();
    text.into_response()
}
