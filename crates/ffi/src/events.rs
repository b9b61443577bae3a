//! Events: the next one is fetched ahead, so that a descriptor can tell that it waits.

use std::{
    pin::pin,
    sync::{Arc, Mutex, OnceLock},
};

use futures_util::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    error::{Failure, QUORATE_END},
    process::{Process, lock},
    signal::Signal,
};

/// The events of one handle. A task takes one from their stream when the one before was taken; it ends
/// with this.
pub(crate) struct Events<T> {
    shared: Arc<Shared<T>>,
    task: Mutex<AbortOnDropHandle<()>>,
}

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    /// An event came, or the end.
    filled: Notify,
    /// The event was taken.
    emptied: Notify,
    signal: OnceLock<Signal>,
}

struct Slot<T> {
    event: Option<T>,
    /// Why there will be no more.
    end: Option<Failure>,
    /// Which stream the events are from.
    stream: u64,
}

impl<T: Send + 'static> Events<T> {
    /// Events from a stream that ends with an error, or with no more events.
    pub(crate) fn new<S, E>(stream: S) -> Result<Self, Failure>
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            slot: Mutex::new(Slot {
                event: None,
                end: None,
                stream: 0,
            }),
            filled: Notify::new(),
            emptied: Notify::new(),
            signal: OnceLock::new(),
        });
        let task = Process::current()
            .runtime()?
            .spawn(fetch(Arc::clone(&shared), stream, 0));
        Ok(Self {
            shared,
            task: Mutex::new(AbortOnDropHandle::new(task)),
        })
    }

    /// Goes on with another stream. What waits to be taken is forgotten.
    pub(crate) fn replace<S, E>(&self, stream: S) -> Result<(), Failure>
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let runtime = Process::current().runtime()?;
        let mut task = lock(&self.task);
        let number = {
            let mut slot = lock(&self.shared.slot);
            slot.event = None;
            slot.end = None;
            slot.stream += 1;
            self.shared.signal(&slot);
            slot.stream
        };
        let next = runtime.spawn(fetch(Arc::clone(&self.shared), stream, number));
        *task = AbortOnDropHandle::new(next);
        Ok(())
    }

    /// Waits for the next event.
    pub(crate) async fn next(&self) -> Result<T, Failure> {
        loop {
            let mut filled = pin!(self.shared.filled.notified());
            filled.as_mut().enable();
            if let Some(taken) = self.shared.take() {
                return taken;
            }
            filled.await;
        }
    }

    /// The descriptor that is readable while an event waits, or after the last.
    pub(crate) fn fd(&self) -> Result<i32, Failure> {
        let slot = lock(&self.shared.slot);
        let signal = match self.shared.signal.get() {
            Some(signal) => signal,
            None => {
                let signal = Signal::new()?;
                self.shared.signal.get_or_init(|| signal)
            }
        };
        self.shared.signal(&slot);
        Ok(signal.number())
    }
}

impl<T> Shared<T> {
    fn take(&self) -> Option<Result<T, Failure>> {
        let mut slot = lock(&self.slot);
        let Some(event) = slot.event.take() else {
            return slot.end.clone().map(Err);
        };
        self.signal(&slot);
        drop(slot);
        self.emptied.notify_waiters();
        Some(Ok(event))
    }

    /// Waits until what a stream told was taken.
    async fn emptied(&self, stream: u64) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            let waits = {
                let slot = lock(&self.slot);
                slot.event.is_some() && slot.stream == stream
            };
            if !waits {
                return;
            }
            emptied.await;
        }
    }

    /// Makes the descriptor say what the slot has.
    fn signal(&self, slot: &Slot<T>) {
        if let Some(signal) = self.signal.get() {
            signal.clear();
            if slot.event.is_some() || slot.end.is_some() {
                signal.set();
            }
        }
    }

    /// Fills the slot for a stream, unless it was replaced.
    fn fill(&self, stream: u64, fill: impl FnOnce(&mut Slot<T>)) {
        let mut slot = lock(&self.slot);
        if slot.stream == stream {
            fill(&mut slot);
            self.signal(&slot);
            drop(slot);
            self.filled.notify_waiters();
        }
    }
}

async fn fetch<T, S, E>(shared: Arc<Shared<T>>, stream: S, number: u64)
where
    S: Stream<Item = Result<T, E>>,
    E: Into<Failure>,
{
    let mut stream = pin!(stream);
    let end = loop {
        match stream.next().await {
            Some(Ok(event)) => {
                shared.fill(number, |slot| slot.event = Some(event));
                shared.emptied(number).await;
            }
            Some(Err(error)) => break error.into(),
            None => break Failure::new(QUORATE_END, "there will be no more events"),
        }
    };
    shared.fill(number, |slot| slot.end = Some(end));
}
