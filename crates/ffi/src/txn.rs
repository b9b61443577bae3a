//! Transactions, put together call by call.

use std::{mem::MaybeUninit, sync::Mutex};

use quorate::{
    Compare, CompareOp, CompareTarget, Delete, LeaseId, Op, OpResult, Revision, Txn, TxnResult,
};

use crate::{
    bytes::{quorate_bytes, quorate_keys},
    cancel::quorate_cancel,
    client::quorate_client,
    elector::quorate_elector,
    error::{Failure, QUORATE_LOST, guarded, infallible, quorate_code, quorate_error},
    guard::quorate_guard,
    handle::{self, Kind},
    kv::{
        self, lay_kv, lay_range, quorate_kv, quorate_kvs, quorate_put_options,
        quorate_range_options,
    },
    output::{self, Arena, give, required},
    process::lock,
    wait::Limit,
};

/// The condition of a transaction: the key's side equals the target.
pub const QUORATE_EQUAL: i32 = 0;
/// The condition of a transaction: the key's side differs from the target.
pub const QUORATE_NOT_EQUAL: i32 = 1;
/// The condition of a transaction: the key's side is below the target.
pub const QUORATE_LESS: i32 = 2;
/// The condition of a transaction: the key's side is above the target.
pub const QUORATE_GREATER: i32 = 3;

/// The branch of a transaction that is applied if all conditions hold.
pub const QUORATE_THEN: i32 = 0;
/// The branch of a transaction that is applied if a condition does not hold.
pub const QUORATE_ELSE: i32 = 1;

/// What an operation of a transaction was: a put.
pub const QUORATE_OP_PUT: i32 = 0;
/// What an operation of a transaction was: a read.
pub const QUORATE_OP_GET: i32 = 1;
/// What an operation of a transaction was: a deletion.
pub const QUORATE_OP_DELETE: i32 = 2;
/// What an operation of a transaction was: a transaction within.
pub const QUORATE_OP_TXN: i32 = 3;

/// A transaction that is put together: conditions, and two branches of operations, of which one is
/// applied, all at one revision. It can be committed more than once.
pub struct quorate_txn {
    txn: Mutex<Txn>,
}

impl Kind for quorate_txn {
    const NAME: &'static str = "quorate_txn";
}

/// What came of one operation.
#[repr(C)]
pub struct quorate_op_result {
    /// QUORATE_OP_PUT and so on.
    pub kind: i32,
    /// Of a deletion, how many keys there were.
    pub deleted: i64,
    /// Of a read the keys; of a put or a deletion what was there before, if asked for.
    pub kvs: quorate_kvs,
    /// Of a transaction within, what came of it; else NULL.
    pub txn: *const quorate_txn_result,
}

/// What came of a transaction. Free it by quorate_txn_result_free.
#[repr(C)]
pub struct quorate_txn_result {
    /// Whether all conditions held.
    pub succeeded: bool,
    /// The revision of the store after it.
    pub revision: i64,
    /// One answer an operation of the branch that was applied, in their order.
    pub results: *const quorate_op_result,
    /// How many.
    pub len: usize,
}

/// Begins a transaction, to be freed by quorate_txn_free.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_new(
    txn: Option<&mut MaybeUninit<*mut quorate_txn>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(txn, "txn")?;
        *out = handle::open(quorate_txn {
            txn: Mutex::default(),
        });
        Ok(())
    })
}

/// Adds a condition on the value. That of a key that does not exist never holds. `op` is QUORATE_EQUAL
/// and so on; of a range the condition has to hold for every key.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_if_value(
    txn: *mut quorate_txn,
    keys: quorate_keys,
    op: i32,
    value: quorate_bytes,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        when(txn, &keys, op, CompareTarget::Value(value.value("value")?))
    })
}

/// Adds a condition on the revision that made the key; it is 0 if the key does not exist.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_if_create_revision(
    txn: *mut quorate_txn,
    keys: quorate_keys,
    op: i32,
    revision: i64,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        when(
            txn,
            &keys,
            op,
            CompareTarget::CreateRevision(Revision(revision)),
        )
    })
}

/// Adds a condition on the revision of the last write; it is 0 if the key does not exist.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_if_mod_revision(
    txn: *mut quorate_txn,
    keys: quorate_keys,
    op: i32,
    revision: i64,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        when(
            txn,
            &keys,
            op,
            CompareTarget::ModRevision(Revision(revision)),
        )
    })
}

/// Adds a condition on the number of writes since the key was made; it is 0 if it does not exist.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_if_version(
    txn: *mut quorate_txn,
    keys: quorate_keys,
    op: i32,
    version: i64,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        when(txn, &keys, op, CompareTarget::Version(version))
    })
}

/// Adds a condition on the lease; it is 0 if the key has none or does not exist.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_if_lease(
    txn: *mut quorate_txn,
    keys: quorate_keys,
    op: i32,
    lease: i64,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        when(
            txn,
            &keys,
            op,
            CompareTarget::Lease(LeaseId::from_wire(lease)),
        )
    })
}

/// Adds the fence of a lock or a leadership: the transaction is applied only while its key stands,
/// whatever this process believes. The transaction has to be committed by a client of the same namespace.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_if_held(
    txn: *mut quorate_txn,
    guard: *const quorate_guard,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let fence = handle::used(guard)?.fence.clone();
        push(txn, |txn| txn.compares.push(fence))
    })
}

/// Adds the fence of the term that an elector leads; QUORATE_LOST if it does not lead.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_if_leading(
    txn: *mut quorate_txn,
    elector: *const quorate_elector,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let fence = handle::used(elector)?.fence();
        let fence = fence.ok_or_else(|| Failure::new(QUORATE_LOST, "we do not lead"))?;
        push(txn, |txn| txn.compares.push(fence))
    })
}

/// Adds a put to a branch, QUORATE_THEN or QUORATE_ELSE. With `prev` its result has the key as it stood
/// before.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_put(
    txn: *mut quorate_txn,
    branch: i32,
    key: quorate_bytes,
    value: quorate_bytes,
    options: Option<&quorate_put_options>,
    prev: bool,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let mut put = kv::put(key, value, options)?;
        put.prev_kv = prev;
        add(txn, branch, put.into())
    })
}

/// Adds a read to a branch. It sees what the operations before it wrote, and cannot name a revision.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_get(
    txn: *mut quorate_txn,
    branch: i32,
    keys: quorate_keys,
    options: Option<&quorate_range_options>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        add(txn, branch, kv::range(&keys, options)?.into())
    })
}

/// Adds a deletion to a branch. With `prev` its result has the keys as they stood before.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_delete(
    txn: *mut quorate_txn,
    branch: i32,
    keys: quorate_keys,
    prev: bool,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let mut delete = Delete::new(keys.range()?);
        delete.prev_kv = prev;
        add(txn, branch, delete.into())
    })
}

/// Adds a copy of a transaction to a branch. Its conditions see the store as it was before all.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_nest(
    txn: *mut quorate_txn,
    branch: i32,
    inner: *const quorate_txn,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let inner = lock(&handle::used(inner)?.txn).clone();
        if depth(&inner) >= DEEPEST {
            return Err(Failure::invalid("the transactions are nested too deeply"));
        }
        add(txn, branch, inner.into())
    })
}

/// Applies a transaction, which stays what it is.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_commit(
    client: *const quorate_client,
    txn: *const quorate_txn,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    result: Option<&mut MaybeUninit<*mut quorate_txn_result>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(result, "result")?;
        let used = handle::used(client)?;
        let txn = lock(&handle::used(txn)?.txn).clone();
        let mut transaction = used.client.txn();
        for compare in txn.compares {
            transaction = transaction.when(compare);
        }
        for op in txn.success {
            transaction = transaction.then(op);
        }
        for op in txn.failure {
            transaction = transaction.or_else(op);
        }
        let call = transaction.commit();
        let done = Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)?;
        *out = give(|arena| lay_result(&done, arena));
        Ok(())
    })
}

/// Frees a transaction; NULL is accepted. What it did stays done.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_free(txn: *mut quorate_txn) {
    infallible((), || {
        handle::free(txn);
        Ok(())
    });
}

/// Frees a result; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_txn_result_free(result: *mut quorate_txn_result) {
    infallible((), || {
        output::take_back(result);
        Ok(())
    });
}

/// How many entries a list of a transaction may have before the store is asked; etcd takes 128 unless it
/// is told otherwise.
const MOST: usize = 65_536;

/// How deep transactions may nest, so that none exhausts the stack.
const DEEPEST: usize = 16;

fn when(
    txn: *mut quorate_txn,
    keys: &quorate_keys,
    op: i32,
    target: CompareTarget,
) -> Result<(), Failure> {
    let op = match op {
        QUORATE_EQUAL => CompareOp::Equal,
        QUORATE_NOT_EQUAL => CompareOp::NotEqual,
        QUORATE_LESS => CompareOp::Less,
        QUORATE_GREATER => CompareOp::Greater,
        op => return Err(Failure::invalid(format!("{op} compares nothing"))),
    };
    let keys = keys.range()?;
    push(txn, |txn| txn.compares.push(Compare { keys, op, target }))
}

fn add(txn: *mut quorate_txn, branch: i32, op: Op) -> Result<(), Failure> {
    match branch {
        QUORATE_THEN => push(txn, |txn| txn.success.push(op)),
        QUORATE_ELSE => push(txn, |txn| txn.failure.push(op)),
        branch => Err(Failure::invalid(format!("{branch} is no branch"))),
    }
}

fn push(txn: *mut quorate_txn, push: impl FnOnce(&mut Txn)) -> Result<(), Failure> {
    let used = handle::used(txn)?;
    let mut txn = lock(&used.txn);
    if txn
        .compares
        .len()
        .max(txn.success.len())
        .max(txn.failure.len())
        >= MOST
    {
        return Err(Failure::invalid("the transaction has too many entries"));
    }
    push(&mut txn);
    Ok(())
}

fn depth(txn: &Txn) -> usize {
    let inner = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Txn(inner) => depth(inner),
        Op::Delete(_) | Op::Put(_) | Op::Range(_) => 0,
    });
    1 + inner.max().unwrap_or(0)
}

fn lay_result(result: &TxnResult, arena: &mut Arena) -> quorate_txn_result {
    let (results, len) = arena.collect(&result.results, lay_op);
    quorate_txn_result {
        succeeded: result.succeeded,
        revision: result.header.revision.0,
        results,
        len,
    }
}

fn lay_op(result: &OpResult, arena: &mut Arena) -> quorate_op_result {
    let mut laid = quorate_op_result {
        kind: QUORATE_OP_PUT,
        deleted: 0,
        kvs: kv::lay_kvs(&[], Revision::ZERO, 0, arena),
        txn: std::ptr::null(),
    };
    match result {
        OpResult::Put { prev } => {
            let (kvs, len): (*const quorate_kv, usize) = arena.collect(prev, lay_kv);
            (laid.kvs.kvs, laid.kvs.len, laid.kvs.count) = (kvs, len, i64::from(len != 0));
        }
        OpResult::Range(range) => {
            laid.kind = QUORATE_OP_GET;
            laid.kvs = lay_range(range, arena);
        }
        OpResult::Delete { deleted, prevs } => {
            laid.kind = QUORATE_OP_DELETE;
            laid.deleted = *deleted;
            laid.kvs = kv::lay_kvs(prevs, Revision::ZERO, *deleted, arena);
        }
        OpResult::Txn(inner) => {
            laid.kind = QUORATE_OP_TXN;
            let inner = lay_result(inner, arena);
            laid.txn = arena.one(inner);
        }
    }
    laid
}
