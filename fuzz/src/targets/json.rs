//! JSON at the paths of the gateway: bodies that are nearly messages, and such that are not.

use std::{sync::LazyLock, time::Duration};

use crate::{POOL, message::message, paused};
use arbitrary::{Result, Unstructured};
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use prost_reflect::MethodDescriptor;
use quorate_server::fuzzing::{Routes, Subject, gateway_paths};
use tokio::time::timeout;
use tower::ServiceExt;

const MAX_CALLS: usize = 8;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_millis(1);

static PATHS: LazyLock<Vec<(String, MethodDescriptor)>> = LazyLock::new(|| {
    let find = |(path, name): (String, String)| {
        let (service, method) = name.rsplit_once('.').expect("a service and a method");
        let service = POOL.get_service_by_name(service).expect("a known service");
        let method = service.methods().find(|it| it.name() == method);
        (path, method.expect("a known method"))
    };
    gateway_paths().into_iter().map(find).collect()
});

/// Runs one input.
pub(crate) fn feed(input: &[u8]) {
    paused(async {
        let subject = Subject::start();
        // The input has ended.
        let _ = calls(&mut Unstructured::new(input), &subject.routes()).await;
        subject.stop().await;
    });
}

async fn calls(u: &mut Unstructured<'_>, routes: &Routes) -> Result<()> {
    for _ in 0..MAX_CALLS {
        if u.is_empty() {
            break;
        }
        let (path, method) = u.choose(&PATHS)?;
        let body = body(u, method)?;
        let request = Request::post(path)
            .body(Body::from(body))
            .expect("a fine request");
        let waits = ["Lock", "Campaign"].contains(&method.name());
        let Ok(answer) = timeout(PATIENCE, routes.clone().oneshot(request)).await else {
            let may_wait = waits || method.is_server_streaming();
            assert!(may_wait, "{path} hangs");
            continue;
        };
        let Ok(answer) = answer;
        let (parts, body) = answer.into_parts();
        if method.is_server_streaming() {
            continue;
        }
        let body = timeout(PATIENCE, body.collect())
            .await
            .expect("an answer that ends");
        let body = body.expect("a whole answer").to_bytes();
        let json = serde_json::from_slice::<serde_json::Value>(&body);
        let json = json.unwrap_or_else(|error| panic!("{path}: {error} in {body:?}"));
        if parts.status != StatusCode::OK {
            // Internal errors and lost data.
            let code = json["code"].as_i64();
            assert!(!matches!(code, None | Some(13 | 15)), "{path}: {json}");
        }
    }
    Ok(())
}

/// A message as JSON, now and then damaged; or anything.
fn body(u: &mut Unstructured<'_>, method: &MethodDescriptor) -> Result<Vec<u8>> {
    if u.ratio(1, 4)? {
        let length = u.int_in_range(0..=256)?;
        return Ok(u.bytes(length.min(u.len()))?.to_vec());
    }
    let message = message(u, &method.input())?;
    let mut text = serde_json::to_vec(&message).unwrap_or_default();
    for _ in 0..u.int_in_range(0..=3)? {
        let at = u.choose_index(text.len().max(1))?;
        let byte = u.arbitrary()?;
        match text.get_mut(at) {
            Some(place) if u.ratio(1, 2)? => *place = byte,
            _ => text.insert(at.min(text.len()), byte),
        }
    }
    Ok(text)
}
