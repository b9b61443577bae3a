//! Whether a process is run when it should be, and if not, why.

use std::{
    cell::RefCell,
    fs,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{Log, Stamp, What, nanos, now, used};

/// How often a process looks whether it is run.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// How much later than asked a process wakes up if it is starved.
const STARVED: Duration = Duration::from_millis(200);

/// Notes when this process is not run although it should be, for ever: so that what is late since the
/// machine has too much to do is not taken for a broken promise.
pub(crate) async fn note_starvation(log: &RefCell<Log>) {
    loop {
        let (since, used_before, waited_before) = (now(), used(), waited());
        let (writing_before, read_before) = (WRITING.load(Relaxed), read_back());
        tokio::time::sleep(TICK).await;
        if now() - since > nanos(TICK + STARVED) {
            let what = What::Starved {
                since,
                used: used() - used_before,
                waited: waited().zip(waited_before).map(|(now, then)| now - then),
                writing: WRITING.load(Relaxed) - writing_before,
                read_back: read_back() != read_before,
            };
            log.borrow_mut().note(what);
        }
    }
}

/// How long this process wrote its history, which takes long while the disk is busy.
static WRITING: AtomicU64 = AtomicU64::new(0);

/// Takes note of how long it took to write something down.
pub(super) fn wrote(time: Stamp) {
    WRITING.fetch_add(time, Relaxed);
}

/// How often this process had to read its own memory from the disk.
fn read_back() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // What is behind the name of the program, which may have spaces.
    text.rsplit(") ").next()?.split(' ').nth(9)?.parse().ok()
}

/// How long this thread could have run and was not let: `None` where the kernel does not tell.
fn waited() -> Option<Stamp> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').nth(1)?.parse().ok()
}
