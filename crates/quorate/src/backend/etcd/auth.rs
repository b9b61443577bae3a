//! Tokens: fetched once for all who need one, and fetched anew when etcd refuses the old.

use std::sync::{Arc, Mutex, MutexGuard};

use quorate_wire::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};

use super::{
    classify::{Failure, Remedy},
    line::Line,
    options::User,
    tasks::{Flight, Tasks},
};
use crate::ErrorKind;

/// Who the client is, and its present token.
#[derive(Debug)]
pub(super) struct Auth {
    user: Option<User>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the tokens, so that a late refusal of an old one does not discard a newer one.
    issued: u64,
    token: Option<Token>,
    pending: Option<Flight<Token>>,
}

/// What is sent along with each request.
#[derive(Clone, Debug, Default)]
pub(super) struct Token {
    number: u64,
    /// None without a user, or if the cluster asks for none.
    pub(super) value: Option<MetadataValue<Ascii>>,
}

impl Auth {
    pub(super) fn new(user: Option<User>) -> Arc<Self> {
        Arc::new(Self {
            user,
            state: Mutex::default(),
        })
    }

    /// Whether there is a user to authenticate as.
    pub(super) fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// The present token, fetched over `line` if there is none.
    pub(super) async fn token(
        self: &Arc<Self>,
        line: &Line,
        tasks: &Tasks,
        deadline: Instant,
    ) -> Result<Token, Failure> {
        let Some(user) = &self.user else {
            return Ok(Token::default());
        };
        let pending = {
            let mut state = self.state();
            if let Some(token) = &state.token {
                return Ok(token.clone());
            }
            let fetch = || Arc::clone(self).fetch(user.clone(), line.clone(), deadline);
            tasks.join(&mut state.pending, fetch)
        };
        pending.await
    }

    /// The present token, or none.
    pub(super) fn present(&self) -> Token {
        self.state().token.clone().unwrap_or_default()
    }

    /// Forgets a token that etcd refused, unless it has been replaced already.
    pub(super) fn reject(&self, token: &Token) {
        let mut state = self.state();
        if state
            .token
            .as_ref()
            .is_some_and(|present| present.number == token.number)
        {
            state.token = None;
        }
    }

    /// Whether `token` is the one in use.
    pub(super) fn is_present(&self, token: &Token) -> bool {
        self.state()
            .token
            .as_ref()
            .is_some_and(|present| present.number == token.number)
    }

    async fn fetch(
        self: Arc<Self>,
        user: User,
        line: Line,
        deadline: Instant,
    ) -> Result<Token, Failure> {
        let fetched = authenticate(user, line, deadline).await;
        let mut state = self.state();
        state.pending = None;
        let value = fetched?;
        state.issued += 1;
        let token = Token {
            number: state.issued,
            value,
        };
        state.token = Some(token.clone());
        Ok(token)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while the lock is held")
    }
}

async fn authenticate(
    user: User,
    line: Line,
    deadline: Instant,
) -> Result<Option<MetadataValue<Ascii>>, Failure> {
    let mut client = AuthClient::new(line);
    let request = AuthenticateRequest {
        name: user.name,
        password: user.password,
    };
    let begun = Instant::now();
    let answer = tokio::time::timeout_at(deadline, client.authenticate(request)).await;
    match answer {
        Ok(Ok(answer)) => match MetadataValue::try_from(answer.into_inner().token) {
            Ok(mut value) => {
                value.set_sensitive(true);
                Ok(Some(value))
            }
            Err(_) => Err(Failure::garbled("a token that cannot be sent")),
        },
        Ok(Err(status)) if status.message() == "etcdserver: authentication is not enabled" => {
            Ok(None)
        }
        Ok(Err(status)) => {
            let failure = Failure::of(&status);
            match failure.remedy {
                // Another token cannot help to get one.
                Remedy::Token => Err(Failure::new(
                    ErrorKind::Unauthenticated,
                    failure.message,
                    Remedy::None,
                )),
                Remedy::Elsewhere | Remedy::None => Err(failure.before_sending()),
            }
        }
        Err(_) => Err(Failure::unanswered(begun.elapsed()).before_sending()),
    }
}
