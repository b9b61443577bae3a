//! Faults on demand between a client and its store, for tests of programs that use this library.
//!
//! [`Fault`] wraps any backend and passes everything through until its handle, [`Faults`], is told
//! otherwise. All waiting is on tokio's time, so that with the time paused a test of many minutes of
//! outage takes none, and the same test always sees the same faults.
//!
//! - [`Faults::partition`] cuts the client off, in one direction or both, until [`Faults::heal`].
//! - [`Faults::next`] and [`Faults::every`] give a [`Fate`] to calls: refused, lost on the way there or
//!   on the way back, delayed, delivered twice.
//! - [`Faults::hold_next`] keeps a request in flight, even when its caller is gone, until it is told to
//!   arrive: a *late write*.
//! - Watches and keepalive streams can be cut or silenced, single answers to beats dropped or delayed.
//! - [`Faults::count`] tells how many calls of a kind were made.
//!
//! Where a write has been sent and its answer is lost, the error [is
//! indefinite](crate::Error::is_indefinite), as it is from a cluster.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> quorate::Result<()> {
//! use std::sync::Arc;
//! use quorate::{Client, backend::{Memory, fault::{CallKind, Fate, Fault}}};
//!
//! let fault = Fault::new(Arc::new(Memory::new()));
//! let faults = fault.faults();
//! let client = Client::with_backend(Arc::new(fault));
//!
//! faults.next(CallKind::Txn, Fate::LoseReply);
//! let error = client.put("key", "value").await.unwrap_err();
//! assert!(error.is_indefinite());
//! assert!(client.get("key").await?.is_some()); // it was applied all the same
//! # Ok(())
//! # }
//! ```

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use quorate_engine::{
    Granted, Header, LeaseId, LeaseStatus, Range, RangeResult, Revision, Txn, TxnResult,
    WatchRequest,
};
use tokio::{sync::oneshot, time::sleep};

use self::{
    call::Call,
    shared::{Plan, Shared},
    stream::{FaultyBeats, FaultyStream},
};
pub use self::{
    call::{CallKind, Calls, Fate, Partition},
    control::Faults,
    held::Held,
};
use super::{Alarm, AuthRequest, AuthResponse, Backend, BeatStream, Member, Status, Watching};
use crate::{Error, Result};

mod call;
mod control;
mod held;
mod shared;
mod stream;

/// A backend that fails when it is told to. Idle it changes nothing.
#[derive(Debug)]
pub struct Fault {
    inner: Arc<dyn Backend>,
    shared: Arc<Shared>,
}

impl Fault {
    /// Puts faults between the caller and `inner`.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self {
            inner,
            shared: Arc::new(Shared::new()),
        }
    }

    /// The handle that says which faults there are.
    pub fn faults(&self) -> Faults {
        Faults::new(Arc::clone(&self.shared))
    }

    /// Takes one call to the store and its answer back, through whatever it is to meet on the way.
    async fn carry<T, F>(&self, call: Call, send: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(Arc<dyn Backend>) -> BoxFuture<'static, Result<T>> + Send + 'static,
    {
        let plan = self.shared.meet(&call);
        if let Some(kind) = plan.refused {
            return Err(Error::new(
                kind,
                format!("{}: refused by a fault", call.kind),
            ));
        }
        self.shared.pass_there(&call).await?;
        if plan.request_lost {
            return Err(call.lost("the request was lost"));
        }
        if plan.request_hangs {
            self.shared.healed().await;
            return Err(call.lost("the request was lost"));
        }
        let lost_reply = plan.reply_lost;
        let (reply_hangs, reply_delay) = (plan.reply_hangs, plan.reply_delay);
        let result = if plan.is_detached() {
            self.detach(plan, send)
                .await
                .unwrap_or_else(|_| Err(call.lost("the request never arrived")))
        } else {
            send(Arc::clone(&self.inner)).await
        };
        pause(reply_delay).await;
        if reply_hangs {
            self.shared.healed().await;
        }
        if lost_reply || reply_hangs {
            return Err(call.lost("the reply was lost"));
        }
        self.shared.pass_back(&call).await?;
        result
    }

    /// Sends a request on a task of its own, so that it arrives even if its caller is gone by then.
    #[allow(clippy::disallowed_methods)] // the adapter stands below the client and its runtime
    fn detach<T, F>(&self, plan: Plan, send: F) -> oneshot::Receiver<Result<T>>
    where
        T: Send + 'static,
        F: Fn(Arc<dyn Backend>) -> BoxFuture<'static, Result<T>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            pause(plan.request_delay).await;
            if let Some(hold) = &plan.hold
                && !hold.pass().await
            {
                return;
            }
            let result = send(Arc::clone(&inner)).await;
            if plan.doubled {
                // What the second delivery answers, nobody waits for.
                let _ = send(inner).await;
            }
            if let Some(hold) = &plan.hold {
                hold.applied();
            }
            // The caller may be gone.
            let _ = answer.send(result);
        });
        answered
    }
}

/// Sleeps, but does not even yield for no time at all: idle, the adapter must not change the order in
/// which tasks run.
async fn pause(delay: Duration) {
    if !delay.is_zero() {
        sleep(delay).await;
    }
}

/// One call of the backend as a function that can be sent any number of times.
macro_rules! send {
    ($method:ident $(, $argument:ident)*) => {
        move |backend| {
            $(let $argument = $argument.clone();)*
            Box::pin(async move { backend.$method($($argument),*).await })
        }
    };
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Fault {
    fn range(&self, request: Range) -> BoxFuture<'_, Result<RangeResult>> {
        Box::pin(self.carry(Call::range(&request), send!(range, request)))
    }

    fn txn(&self, request: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        Box::pin(self.carry(Call::txn(&request), send!(txn, request)))
    }

    fn compact(&self, revision: Revision, physical: bool) -> BoxFuture<'_, Result<Header>> {
        let call = Call::of(CallKind::Compact);
        Box::pin(self.carry(call, send!(compact, revision, physical)))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watching>> {
        Box::pin(async move {
            let call = Call::watch(&request);
            let Watching { created, stream } = self.carry(call, send!(watch, request)).await?;
            let stream = FaultyStream::new(Arc::clone(&self.shared), CallKind::Watch, stream);
            Ok(Watching {
                created,
                stream: Box::new(stream),
            })
        })
    }

    fn grant(&self, id: LeaseId, ttl: Duration) -> BoxFuture<'_, Result<Granted>> {
        Box::pin(self.carry(Call::of(CallKind::Grant), send!(grant, id, ttl)))
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<Header>> {
        Box::pin(self.carry(Call::of(CallKind::Revoke), send!(revoke, id)))
    }

    fn keep_alive(&self) -> BoxFuture<'_, Result<Box<dyn BeatStream>>> {
        Box::pin(async move {
            let call = Call::of(CallKind::KeepAlive);
            let stream = self.carry(call, send!(keep_alive)).await?;
            let shared = Arc::clone(&self.shared);
            let stream = FaultyStream::new(shared, CallKind::KeepAlive, stream);
            Ok(Box::new(FaultyBeats::new(stream)) as Box<dyn BeatStream>)
        })
    }

    fn lease_status(&self, id: LeaseId, keys: bool) -> BoxFuture<'_, Result<LeaseStatus>> {
        let call = Call::of(CallKind::LeaseStatus);
        Box::pin(self.carry(call, send!(lease_status, id, keys)))
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<LeaseId>>> {
        Box::pin(self.carry(Call::of(CallKind::Leases), send!(leases)))
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>>> {
        Box::pin(self.carry(Call::of(CallKind::Members), send!(members)))
    }

    fn endpoints(&self) -> Vec<String> {
        self.inner.endpoints()
    }

    fn status(&self, endpoint: Option<String>) -> BoxFuture<'_, Result<Status>> {
        Box::pin(self.carry(Call::of(CallKind::Status), send!(status, endpoint)))
    }

    fn alarms(&self) -> BoxFuture<'_, Result<Vec<Alarm>>> {
        Box::pin(self.carry(Call::of(CallKind::Alarms), send!(alarms)))
    }

    fn auth(&self, request: AuthRequest) -> BoxFuture<'_, Result<AuthResponse>> {
        Box::pin(self.carry(Call::of(CallKind::Auth), send!(auth, request)))
    }
}

#[cfg(test)]
mod tests;
