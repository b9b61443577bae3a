//! Sequences of requests to all services of one server.

use std::time::Duration;

use crate::{METHODS, call::call, message::message, paused};
use arbitrary::{Result, Unstructured};
use quorate_server::fuzzing::Subject;

const MAX_CALLS: usize = 32;

/// What a client sends in one stream, at most.
const MAX_MESSAGES: usize = 4;

/// Runs one input.
pub(crate) fn feed(input: &[u8]) {
    paused(async {
        let subject = Subject::start();
        // The input has ended.
        let _ = requests(&mut Unstructured::new(input), &subject).await;
        subject.stop().await;
    });
}

async fn requests(u: &mut Unstructured<'_>, subject: &Subject) -> Result<()> {
    let routes = subject.routes();
    let mut token = None;
    for _ in 0..MAX_CALLS {
        if u.is_empty() {
            break;
        }
        if u.ratio(1, 16)? {
            tokio::time::sleep(Duration::from_secs(u.int_in_range(0..=100)?)).await;
        }
        let method = u.choose(&METHODS)?;
        let count = if method.is_client_streaming() {
            u.int_in_range(0..=MAX_MESSAGES)?
        } else {
            1
        };
        let messages = (0..count).map(|_| message(u, &method.input()));
        let messages: Vec<_> = messages.collect::<Result<_>>()?;
        let bears = if u.ratio(3, 4)? {
            token.as_deref()
        } else {
            None
        };
        let answer = call(&routes, method, &messages, bears).await;
        if method.name() == "Authenticate"
            && let Some(answer) = answer
        {
            let found = answer.get_field_by_name("token");
            token = found.and_then(|token| Some(token.as_str()?.to_owned()));
        }
    }
    Ok(())
}
