//! The database in a data directory: the state of the store as rows.
#![allow(clippy::result_large_err)] // the database's own error, which becomes another within this file

use std::{
    collections::VecDeque,
    fs::{DirBuilder, File, OpenOptions},
    io,
    path::Path,
    time::Duration,
};

use quorate_engine::{AuthRecord, LeaseId, Record, RestoreError, Restored, Revision, Store};
use redb::{
    Database, DatabaseError, ReadableTable, StorageBackend, StorageError, TableDefinition,
    TableHandle, WriteTransaction, backends::FileBackend,
};

use crate::{Error, Result, store::rows};

/// The file in the data directory.
const FILE: &str = "store.redb";

/// What the system itself may leave in an empty directory.
const IGNORED: &str = "lost+found";

/// The layout of the rows, which rises when an older server could not read them.
const FORMAT: i64 = 1;

/// What is cached of the file. All that is read often is in memory anyway.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// How many forgotten changes one commit deletes, so that nobody waits long for a compaction.
const GARBAGE_PER_COMMIT: usize = 4096;

/// The changes, by revision and place.
const CHANGES: TableDefinition<'_, (i64, i64), &[u8]> = TableDefinition::new("changes");
/// The seconds that each lease lives.
const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");
const ROLES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("roles");
const USERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("users");

/// The rows of `META`.
const AUTH_ENABLED: &str = "auth enabled";
const AUTH_REVISION: &str = "auth revision";
const CLUSTER_ID: &str = "cluster id";
const COMPACTED: &str = "compacted";
const FORMAT_ROW: &str = "format";
const LAST_LEASE_ID: &str = "last lease id";
const MEMBER_ID: &str = "member id";

/// The database of a store, which nobody else can open meanwhile.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
    /// The changes that a compaction dropped and that are not yet deleted.
    garbage: VecDeque<(i64, i64)>,
}

impl Disk {
    /// Opens the database in a directory, and what it holds. Makes both if they are not there.
    pub(super) fn open(path: &Path) -> Result<(Self, Store)> {
        let failed = |cause| Error::DataDir {
            path: path.to_owned(),
            cause,
        };
        prepare(path).map_err(failed)?;
        let file = open_file(&path.join(FILE)).map_err(failed)?;
        // This locks the file. The system unlocks it when the process ends, in whatever way.
        let backend = FileBackend::new(file).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Error::DataDirInUse {
                path: path.to_owned(),
            },
            error => failed(describe(error)),
        })?;
        Self::open_on(backend).map_err(failed)
    }

    /// Opens the database on a backend, and what it holds.
    pub(super) fn open_on(backend: impl StorageBackend) -> io::Result<(Self, Store)> {
        restart_creation(&backend)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(describe)?;
        if is_new(&database)? {
            initialize(&database).map_err(io_error)?;
        }
        let Restored { store, dropped } = restore(&database)?;
        let garbage = dropped.into_iter().map(place).collect();
        let mut store = store;
        store.keep_records();
        Ok((Self { database, garbage }, store))
    }

    /// Whether there is something to do without records.
    pub(super) fn has_garbage(&self) -> bool {
        !self.garbage.is_empty()
    }

    /// Writes records. All of them are on disk when it returns.
    ///
    /// # Errors
    ///
    /// Those of the system. Then nothing more can be written, and what became of these records shows
    /// when the database is opened again.
    pub(super) fn commit(&mut self, records: Vec<Record>) -> io::Result<()> {
        let transaction = self.database.begin_write().map_err(io_error)?;
        self.write(&transaction, records).map_err(io_error)?;
        transaction.commit().map_err(io_error)
    }

    fn write(
        &mut self,
        transaction: &WriteTransaction,
        records: Vec<Record>,
    ) -> Result<(), redb::Error> {
        let mut changes = transaction.open_table(CHANGES)?;
        let mut leases = transaction.open_table(LEASES)?;
        let mut meta = transaction.open_table(META)?;
        for record in records {
            match record {
                Record::Auth(auth) => {
                    meta.insert(AUTH_ENABLED, i64::from(auth.enabled))?;
                    meta.insert(AUTH_REVISION, auth.revision.0)?;
                    write_books(transaction, &auth)?;
                }
                Record::Change {
                    revision,
                    sub,
                    key,
                    kv,
                } => {
                    let row = rows::of_change(key, kv);
                    changes.insert((revision.0, sub), &row[..])?;
                }
                Record::Compacted { revision, dropped } => {
                    meta.insert(COMPACTED, revision.0)?;
                    self.garbage.extend(dropped.into_iter().map(place));
                }
                Record::LeaseEnded { id } => drop(leases.remove(id.0)?),
                Record::LeaseGranted { id, ttl } => {
                    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
                    leases.insert(id.0, seconds)?;
                }
                Record::LeaseIdChosen(id) => drop(meta.insert(LAST_LEASE_ID, id.0)?),
                record => unreachable!("a record without rows: {record:?}"),
            }
        }
        let count = self.garbage.len().min(GARBAGE_PER_COMMIT);
        for place in self.garbage.drain(..count) {
            changes.remove(place)?;
        }
        Ok(())
    }
}

/// Makes the directory, for its owner alone, or sees that the one that is there is ours or nobody's.
fn prepare(path: &Path) -> io::Result<()> {
    if path.is_file() {
        return Err(io::Error::other("it is a file; give a directory"));
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)?;
    if path.join(FILE).exists() {
        return Ok(());
    }
    for entry in path.read_dir()? {
        let name = entry?.file_name();
        if name != IGNORED && name != FILE {
            return Err(io::Error::other(format!(
                "it holds other things ({}) and no store; give an empty or a new directory",
                name.display()
            )));
        }
    }
    Ok(())
}

/// Opens the file for its owner alone, and makes its name survive if it is new.
fn open_file(path: &Path) -> io::Result<File> {
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    if is_new && let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
        if let Some(parent) = directory.parent().filter(|it| !it.as_os_str().is_empty()) {
            // It may be one that we may enter but not read.
            let _ = File::open(parent).and_then(|parent| parent.sync_all());
        }
    }
    Ok(file)
}

/// Begins anew where a creation was cut off: the mark of the format is written last, so that nobody
/// can have written to a file that lacks it.
fn restart_creation(backend: &impl StorageBackend) -> io::Result<()> {
    const MARK_BYTES: usize = 9;
    let len = backend.len()?;
    let begin = backend.read(
        0,
        MARK_BYTES.min(usize::try_from(len).unwrap_or(MARK_BYTES)),
    )?;
    if len > 0 && begin.iter().all(|&byte| byte == 0) {
        backend.set_len(0)?;
    }
    Ok(())
}

/// Whether nothing was ever written to the database.
fn is_new(database: &Database) -> io::Result<bool> {
    let read = || -> Result<(bool, bool), redb::Error> {
        let transaction = database.begin_read()?;
        let mut names = transaction.list_tables()?.peekable();
        Ok((
            names.peek().is_none(),
            names.any(|table| table.name() == META.name()),
        ))
    };
    match read().map_err(io_error)? {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(damaged("it is the database of another program")),
    }
}

fn initialize(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(CHANGES)?;
    transaction.open_table(LEASES)?;
    transaction.open_table(ROLES)?;
    transaction.open_table(USERS)?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_ROW, FORMAT)?;
        for id in [CLUSTER_ID, MEMBER_ID] {
            meta.insert(id, fastrand::u64(1..).cast_signed())?;
        }
    }
    Ok(transaction.commit()?)
}

/// The store as the rows tell it.
fn restore(database: &Database) -> io::Result<Restored> {
    let transaction = database.begin_read().map_err(io_error)?;
    let meta = transaction.open_table(META).map_err(io_error)?;
    let get = |row| -> io::Result<Option<i64>> {
        let found = meta.get(row).map_err(io_error)?;
        Ok(found.map(|value| value.value()))
    };
    let need = |row| get(row)?.ok_or_else(|| damaged(&format!("the {row} is missing")));
    let format = need(FORMAT_ROW)?;
    if format != FORMAT {
        return Err(io::Error::other(format!(
            "the store in it has format {format}, and this version reads format {FORMAT}; \
             use the version that wrote it"
        )));
    }

    let mut records = Vec::new();
    let changes = transaction.open_table(CHANGES).map_err(io_error)?;
    for row in changes.iter().map_err(io_error)? {
        let (place, row) = row.map_err(io_error)?;
        let (revision, sub) = place.value();
        records.push(rows::change(revision, sub, row.value())?);
    }
    let leases = transaction.open_table(LEASES).map_err(io_error)?;
    for row in leases.iter().map_err(io_error)? {
        let (id, seconds) = row.map_err(io_error)?;
        records.push(Record::LeaseGranted {
            id: LeaseId(id.value()),
            ttl: Duration::from_secs(seconds.value().unsigned_abs()),
        });
    }
    if let Some(id) = get(LAST_LEASE_ID)? {
        records.push(Record::LeaseIdChosen(LeaseId(id)));
    }
    if let Some(revision) = get(COMPACTED)? {
        let revision = Revision(revision);
        let dropped = Vec::new();
        records.push(Record::Compacted { revision, dropped });
    }
    if let (Some(enabled), Some(revision)) = (get(AUTH_ENABLED)?, get(AUTH_REVISION)?) {
        let mut auth = AuthRecord {
            enabled: enabled != 0,
            revision: Revision(revision),
            users: Vec::new(),
            roles: Vec::new(),
        };
        let users = transaction.open_table(USERS).map_err(io_error)?;
        for row in users.iter().map_err(io_error)? {
            let (name, row) = row.map_err(io_error)?;
            rows::add_user(&mut auth, name.value(), row.value())?;
        }
        let roles = transaction.open_table(ROLES).map_err(io_error)?;
        for row in roles.iter().map_err(io_error)? {
            let (name, row) = row.map_err(io_error)?;
            rows::add_role(&mut auth, name.value(), row.value())?;
        }
        records.push(Record::Auth(auth));
    }

    let (cluster_id, member_id) = (need(CLUSTER_ID)?, need(MEMBER_ID)?);
    let inconsistent = |error: RestoreError| damaged(&error.to_string());
    Store::restore(
        cluster_id.cast_unsigned(),
        member_id.cast_unsigned(),
        Duration::ZERO,
        records,
    )
    .map_err(inconsistent)
}

/// Writes users and roles in the place of those that were there.
fn write_books(transaction: &WriteTransaction, auth: &AuthRecord) -> Result<(), redb::Error> {
    let mut users = transaction.open_table(USERS)?;
    users.retain(|_, _| false)?;
    for (name, row) in rows::of_users(auth) {
        users.insert(name, &row[..])?;
    }
    let mut roles = transaction.open_table(ROLES)?;
    roles.retain(|_, _| false)?;
    for (name, row) in rows::of_roles(auth) {
        roles.insert(name, &row[..])?;
    }
    Ok(())
}

const fn place((revision, sub): (Revision, i64)) -> (i64, i64) {
    (revision.0, sub)
}

/// What is wrong with a database that cannot be opened.
fn describe(error: DatabaseError) -> io::Error {
    match error {
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != io::ErrorKind::InvalidData
                && error.kind() != io::ErrorKind::UnexpectedEof =>
        {
            error
        }
        DatabaseError::Storage(StorageError::Io(_)) => damaged("it is no database"),
        error => damaged(&error.to_string()),
    }
}

/// Rows that cannot be what was written.
pub(super) fn damaged(how: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the store in it ({FILE}) is damaged: {how}; put a copy in its place, \
             or move it away to begin with an empty store"
        ),
    )
}

/// What the system said, if it was the system that did.
fn io_error(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        redb::Error::Corrupted(how) => damaged(&how),
        error => io::Error::other(error),
    }
}
