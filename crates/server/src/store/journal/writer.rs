//! The thread that writes.

use crate::store::journal::{Writer, disk::Disk};

/// Writes what is appended until the journal is closed, or the disk fails.
pub(super) fn write(writer: &Writer, mut disk: Disk) {
    let journal = &writer.journal;
    while let Some((records, position)) = journal.take(disk.has_garbage()) {
        if let Err(error) = disk.commit(records) {
            let path = writer.path.display();
            tracing::error!(%error, %path, "cannot write; from now on every request is refused");
            // Its fate is unknown, so nothing may be built on what is in memory.
            journal.fail(&format!(
                "etcdserver: cannot write to {path}: {error}; \
                 correct that, and start the server again"
            ));
            return;
        }
        journal.reached(position);
    }
}
