//! Blocking calls: until they end, a time-out, a cancellation, or the end of their handle.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::future::{Either, FutureExt, OptionFuture, select};
use tokio_util::sync::CancellationToken;

use crate::{
    cancel::quorate_cancel,
    error::{Failure, QUORATE_CANCELLED, QUORATE_CLOSED, QUORATE_TIMEOUT},
    handle::{self, Used},
    process::Process,
};

/// Until when a call may block.
pub(crate) struct Limit {
    timeout: Option<Duration>,
    cancel: Option<Used<quorate_cancel>>,
    /// Whether it may have had an effect though it was cut off.
    writes: bool,
    /// Whether it begins even if it was cancelled before.
    ends: bool,
}

impl Limit {
    /// What is cut off has no effect.
    pub(crate) fn new(timeout_ms: i64, cancel: *const quorate_cancel) -> Result<Self, Failure> {
        Ok(Self {
            timeout: u64::try_from(timeout_ms).ok().map(Duration::from_millis),
            cancel: if cancel.is_null() {
                None
            } else {
                Some(handle::used(cancel)?)
            },
            writes: false,
            ends: false,
        })
    }

    /// What is cut off may have been written.
    pub(crate) fn of_write(
        timeout_ms: i64,
        cancel: *const quorate_cancel,
    ) -> Result<Self, Failure> {
        Ok(Self {
            writes: true,
            ..Self::new(timeout_ms, cancel)?
        })
    }

    /// What ends something does so even if it is cut off: in the background.
    pub(crate) fn of_end(timeout_ms: i64, cancel: *const quorate_cancel) -> Result<Self, Failure> {
        Ok(Self {
            ends: true,
            ..Self::of_write(timeout_ms, cancel)?
        })
    }

    /// Runs a call to its end or the limit. What was cut off is dropped before this returns.
    pub(crate) fn run<T, E: Into<Failure>>(
        &self,
        freed: &CancellationToken,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let runtime = Process::current().runtime()?;
        runtime.block_on(async {
            let over = async {
                let cancelled = OptionFuture::from(self.cancel.as_ref().map(|c| c.triggered()));
                let timeout = OptionFuture::from(self.timeout.map(tokio::time::sleep));
                tokio::select! {
                    biased;
                    Some(()) = cancelled => (QUORATE_CANCELLED, "the call was cancelled"),
                    () = freed.cancelled() => (QUORATE_CLOSED, "the handle was freed meanwhile"),
                    Some(()) = timeout => (QUORATE_TIMEOUT, "nothing came within the time-out"),
                }
            };
            let mut over = pin!(over);
            // What was cancelled before does not begin, unless to begin is what counts; a time-out of
            // zero lets it try.
            let begun = tokio::select! {
                biased;
                over = &mut over => Some(over),
                () = std::future::ready(()) => None,
            };
            if let Some((code, message)) = begun
                && code != QUORATE_TIMEOUT
            {
                if self.ends {
                    // It goes on by itself. An outcome that is there at once is not told either, so that
                    // the answer is always the same.
                    drop(call.now_or_never());
                }
                return Err(Failure::new(code, message).indefinite(self.ends));
            }
            let expired = async {
                match begun {
                    Some(over) => over,
                    None => over.await,
                }
            };
            match select(pin!(call), pin!(expired)).await {
                Either::Left((outcome, _)) => outcome.map_err(Into::into),
                Either::Right(((code, message), _)) => {
                    Err(Failure::new(code, message).indefinite(self.writes))
                }
            }
        })
    }
}
