//! A stream of keepalives.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::{
    StreamExt as _, TryFutureExt as _,
    stream::{self, BoxStream},
};
use quorate_engine::LeaseId;
use quorate_wire::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::mpsc;
use tonic::{Response, Status};

use super::{
    auth::{Auth, Token},
    call::Attempt,
    classify::{Failure, Remedy},
    convert::{header_from_wire, ttl_from_wire},
    pool::{Connection, Pool},
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Beat, BeatStream},
};

/// How many beats may wait to be sent, which those of many leases do at once. A connection that lets more pile
/// up is stuck.
const WAITING_BEATS: usize = 1 << 16;

/// An open stream to one member. The stream opens with its first beat, since etcd does not answer before.
pub(super) struct Beats {
    outgoing: mpsc::Sender<LeaseKeepAliveRequest>,
    incoming: BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>,
    ended: bool,
    pool: Arc<Pool>,
    auth: Arc<Auth>,
    connection: Connection,
    token: Token,
}

impl Beats {
    pub(super) fn open(attempt: Attempt, pool: Arc<Pool>, auth: Arc<Auth>) -> Self {
        let (outgoing, mut beats) = mpsc::channel(WAITING_BEATS);
        let beats = stream::poll_fn(move |context| beats.poll_recv(context));
        let request = attempt.request(beats);
        let mut client = attempt.lease();
        let open = async move { client.lease_keep_alive(request).await };
        Self {
            outgoing,
            incoming: open
                .map_ok(Response::into_inner)
                .try_flatten_stream()
                .boxed(),
            ended: false,
            pool,
            auth,
            connection: attempt.connection,
            token: attempt.token,
        }
    }

    fn end(&mut self, mut failure: Failure) -> Error {
        self.ended = true;
        match failure.remedy {
            Remedy::Elsewhere => self.pool.failed(&self.connection),
            Remedy::None => (),
            Remedy::Token => {
                self.auth.reject(&self.token);
                if self.auth.has_user() {
                    // The next stream brings a new token.
                    failure.kind = ErrorKind::Unavailable;
                }
            }
        }
        failure.into_error(false).context(&self.connection.url)
    }
}

impl Stream for Beats {
    type Item = Result<Beat>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let beat = match std::task::ready!(self.incoming.poll_next_unpin(context)) {
            Some(Ok(answer)) => beat(answer),
            Some(Err(status)) => Err(Failure::of(&status)),
            None => Err(Failure::unreachable("the keepalive stream ended")),
        };
        Poll::Ready(Some(beat.map_err(|failure| self.end(failure))))
    }
}

impl BeatStream for Beats {
    fn send(&mut self, lease: LeaseId) -> Result<()> {
        let sent = self
            .outgoing
            .try_send(LeaseKeepAliveRequest { id: lease.0 });
        if self.ended || sent.is_err() {
            let message = format!(
                "{}: the keepalive stream takes no beats",
                self.connection.url
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    fn distrust(&mut self) {
        self.pool.failed(&self.connection);
    }
}

fn beat(answer: LeaseKeepAliveResponse) -> Result<Beat, Failure> {
    Ok(Beat {
        header: header_from_wire(answer.header)?,
        lease: LeaseId(answer.id),
        ttl: ttl_from_wire(answer.ttl),
    })
}
