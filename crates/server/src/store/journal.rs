//! What makes writes survive the process: the records of the store, on their way to the disk.
//!
//! Calls append their records under the store's lock and wait, without it, until these are on disk.
//! One thread writes. What arrives while it waits for the disk goes together into the next commit, so
//! that many writers share the price of one.

mod disk;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    mem,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use quorate_engine::{Record, Store};
use tokio::sync::{oneshot, watch};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tonic::Status;

use crate::{
    Error, Result,
    store::journal::{disk::Disk, writer::write},
};

/// How many bytes of records may wait for the disk before calls wait with what they have to add.
const MAX_QUEUED_BYTES: usize = 32 * 1024 * 1024;

/// What a record takes beside its key and value, about.
const RECORD_BYTES: usize = 128;

/// The queue of records for the disk, and how far the disk is.
#[derive(Debug)]
pub(crate) struct Journal {
    /// A std mutex: nobody waits for anything while holding it.
    queue: Mutex<Queue>,
    /// Tells the writer that there is something to do.
    work: Condvar,
    progress: watch::Sender<Progress>,
}

/// A place in the sequence of what was appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(u64);

#[derive(Debug, Default)]
struct Queue {
    records: Vec<Record>,
    bytes: usize,
    appended: Position,
    is_closing: bool,
}

#[derive(Debug, Default)]
struct Progress {
    durable: Position,
    /// Why nothing more will be written.
    failure: Option<Arc<str>>,
}

/// What a data directory gave.
pub(crate) struct Opened {
    /// The store as it was when its last server ended, in whatever way.
    pub(crate) store: Store,
    pub(crate) journal: Arc<Journal>,
}

impl Opened {
    /// Opens a data directory, and writes there from now on until the server stops.
    ///
    /// # Errors
    ///
    /// [`Error::DataDir`] or [`Error::DataDirInUse`].
    pub(crate) async fn open(
        path: PathBuf,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let at = path.clone();
        Self::open_with(path, move || Disk::open(&at), tasks, stop).await
    }

    /// Does that with a disk that is given. It is opened on the thread that writes.
    async fn open_with(
        path: PathBuf,
        open: impl FnOnce() -> Result<(Disk, Store)> + Send + 'static,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let journal = Arc::new(Journal {
            queue: Mutex::default(),
            work: Condvar::new(),
            progress: watch::Sender::default(),
        });
        let (sender, opened) = oneshot::channel();
        let writer = Writer {
            journal: Arc::clone(&journal),
            path: path.clone(),
            _task: tasks.token(),
        };
        let run = move || match open() {
            Ok((disk, store)) => {
                // If nobody waits any more the journal is being closed.
                let _ = sender.send(Ok(store));
                write(&writer, disk);
            }
            Err(error) => drop(sender.send(Err(error))),
        };
        let closing = Closing(Arc::clone(&journal));
        let failed = |cause| Error::DataDir {
            path: path.clone(),
            cause,
        };
        std::thread::Builder::new()
            .name("quorate-journal".to_owned())
            .spawn(run)
            .map_err(failed)?;
        let store = match opened.await {
            Ok(store) => store?,
            // It panicked, as the database does when it meets what it takes for impossible.
            Err(_) => return Err(failed(disk::damaged("it makes no sense"))),
        };
        close_at(stop, tasks, closing);
        Ok(Self { store, journal })
    }
}

impl Journal {
    /// Appends what one call did, and tells what to wait for before anybody may hear of it. Must be
    /// called under the store's lock, so that the records keep their order.
    pub(crate) fn append(&self, records: Vec<Record>) -> Position {
        let mut queue = self.queue();
        if !records.is_empty() {
            queue.appended.0 += 1;
            queue.bytes += records.iter().map(size).sum::<usize>();
            if queue.records.is_empty() {
                queue.records = records;
            } else {
                queue.records.extend(records);
            }
            self.work.notify_one();
        }
        queue.appended
    }

    /// Waits until more may be appended.
    ///
    /// # Errors
    ///
    /// "Unavailable", once the disk has failed.
    pub(crate) async fn ready(&self) -> Result<(), Status> {
        self.check()?;
        if self.is_full() {
            self.wait(|_| !self.is_full()).await?;
        }
        Ok(())
    }

    /// Refuses everything once the disk has failed.
    pub(crate) fn check(&self) -> Result<(), Status> {
        match &self.progress.borrow().failure {
            Some(failure) => Err(Status::unavailable(&**failure)),
            None => Ok(()),
        }
    }

    /// Whether everything up to a position is on disk.
    pub(crate) fn is_durable(&self, position: Position) -> bool {
        self.progress.borrow().durable >= position
    }

    /// Waits until everything up to a position is on disk.
    ///
    /// # Errors
    ///
    /// "Unavailable", if it never will be.
    pub(crate) async fn durable(&self, position: Position) -> Result<(), Status> {
        self.wait(|progress| progress.durable >= position).await
    }

    /// Waits until nothing more will be written.
    pub(crate) async fn failed(&self) {
        let _ = self.wait(|_| false).await;
    }

    async fn wait(&self, mut is_over: impl FnMut(&Progress) -> bool) -> Result<(), Status> {
        let mut progress = self.progress.subscribe();
        let over = progress
            .wait_for(|progress| is_over(progress) || progress.failure.is_some())
            .await;
        // The sender is in `self`.
        let Ok(progress) = over else { return Ok(()) };
        match &progress.failure {
            Some(failure) if !is_over(&progress) => Err(Status::unavailable(&**failure)),
            _ => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        self.queue().bytes > MAX_QUEUED_BYTES
    }

    /// Nothing that holds the lock can panic halfway.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was appended since this was asked for last; waits for it unless there is other `work`.
    /// None once the journal is closed and all of it was taken.
    fn take(&self, has_work: bool) -> Option<(Vec<Record>, Position)> {
        let idle = |queue: &mut Queue| queue.records.is_empty() && !queue.is_closing && !has_work;
        let waiting = self.work.wait_while(self.queue(), idle);
        let mut queue = waiting.unwrap_or_else(PoisonError::into_inner);
        if queue.records.is_empty() && queue.is_closing {
            return None;
        }
        let was_full = mem::take(&mut queue.bytes) > MAX_QUEUED_BYTES;
        let taken = (mem::take(&mut queue.records), queue.appended);
        drop(queue);
        if was_full {
            self.progress.send_modify(|_| ());
        }
        Some(taken)
    }

    fn reached(&self, position: Position) {
        self.progress
            .send_modify(|progress| progress.durable = position);
    }

    /// Lets everybody know that nothing more will be written. The first reason counts.
    fn fail(&self, reason: &str) {
        self.progress.send_modify(|progress| {
            progress.failure.get_or_insert_with(|| reason.into());
        });
    }
}

/// What the thread that writes holds. However the thread ends, nobody waits for it any more.
struct Writer {
    journal: Arc<Journal>,
    path: PathBuf,
    /// Lets the server wait until the directory is free.
    _task: TaskTrackerToken,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.journal.fail("etcdserver: server stopped");
    }
}

/// Closes the journal when it is dropped: what was appended is still written.
struct Closing(Arc<Journal>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.queue().is_closing = true;
        self.0.work.notify_one();
    }
}

/// Closes the journal when the server stops, or its runtime ends.
#[allow(clippy::disallowed_methods)] // the task belongs to the server, not to a client
fn close_at(stop: &CancellationToken, tasks: &TaskTracker, closing: Closing) {
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(async move {
        let _closing = closing;
        stopped.await;
    });
}

fn size(record: &Record) -> usize {
    let content = match record {
        Record::Change { key, kv, .. } => key.len() + kv.as_ref().map_or(0, |kv| kv.value.len()),
        Record::Compacted { dropped, .. } => size_of_val(&dropped[..]),
        _ => 0,
    };
    RECORD_BYTES + content
}
