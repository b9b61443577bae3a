"""Takes a lock, has its session revoked behind its back, and learns of it: by descriptor and by next."""

import ctypes
import select
import sys
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p

OK, LOST, SESSION_LOST, LOSS_NONE = 0, 7, 2, 0


class Bytes(ctypes.Structure):
    _fields_ = [("data", c_char_p), ("len", c_size_t)]

    @classmethod
    def of(cls, text):
        return cls(text.encode(), len(text.encode()))


class Error(ctypes.Structure):
    _fields_ = [("code", c_int32), ("message", c_char_p), ("retryable", c_bool), ("indefinite", c_bool),
                ("loss", c_int32), ("oldest_revision", c_int64)]


class LockOptions(ctypes.Structure):
    _fields_ = [("ttl_ms", c_int64), ("session", c_void_p), ("max_hold_ms", c_int64), ("holder", Bytes),
                ("reserved", c_uint64 * 4)]


class TxnResult(ctypes.Structure):
    _fields_ = [("succeeded", c_bool), ("revision", c_int64), ("results", c_void_p), ("len", c_size_t)]


library = ctypes.CDLL(sys.argv[1])
library.quorate_session_lease.argtypes = [c_void_p]
library.quorate_session_lease.restype = c_int64
library.quorate_guard_is_held.argtypes = [c_void_p]
library.quorate_guard_is_held.restype = c_bool


def call(name, *arguments, expect=OK):
    """Calls a function with an error behind its arguments."""
    error = POINTER(Error)()
    code = getattr(library, name)(*arguments, byref(error))
    if code != expect:
        sys.exit(f"{name}: {code} {error.contents.message if error else ''}")
    library.quorate_error_free(error)


def made(name, *arguments):
    """Calls a function whose output is a handle."""
    handle = c_void_p()
    call(name, *arguments, byref(handle))
    return handle


client = made("quorate_client_open", Bytes.of(sys.argv[2]))
other = made("quorate_client_open", Bytes.of(sys.argv[2]))
session = made("quorate_session_open", client, c_int64(3000), c_int64(-1), None)
options = LockOptions(session=session)
guard = made("quorate_lock_acquire", client, Bytes.of("jobs"), byref(options), c_int64(-1), None)
assert library.quorate_guard_is_held(guard)
print("held")

events, lost = c_int(), c_int()
call("quorate_session_fd", session, byref(events))
call("quorate_guard_lost_fd", guard, byref(lost))
poll = select.poll()
poll.register(lost.value, select.POLLIN)
assert not poll.poll(0)
call("quorate_lease_revoke", other, c_int64(library.quorate_session_lease(session)), c_int64(-1), None)
assert poll.poll(30000)
assert select.select([events.value], [], [], 30)[0]
print("readable")

state, loss = c_int32(), c_int32()
while state.value != SESSION_LOST:
    call("quorate_session_next", session, c_int64(30000), None, byref(state), byref(loss))
assert loss.value != LOSS_NONE
call("quorate_guard_wait_lost", guard, c_int64(0), None, byref(loss))
assert not library.quorate_guard_is_held(guard)
print("lost")

txn = made("quorate_txn_new")
call("quorate_txn_if_held", txn, guard)
call("quorate_txn_put", txn, c_int32(0), Bytes.of("k"), Bytes.of("v"), None, c_bool(False))
result = POINTER(TxnResult)()
call("quorate_txn_commit", other, txn, c_int64(-1), None, byref(result))
print("written" if result.contents.succeeded else "the fence refuses")
library.quorate_txn_result_free(result)
call("quorate_guard_release", guard, c_int64(-1), None, expect=LOST)
for kind, handle in [("txn", txn), ("guard", guard), ("session", session), ("client", client), ("client", other)]:
    getattr(library, f"quorate_{kind}_free")(handle)
assert library.quorate_in_use() == 0
