"""Asks an etcd v3 endpoint by the client `aetcd`, over gRPC, and prints the answers.

usage: grpc_client.py ENDPOINT VERSION
"""

import asyncio
import re
import sys
from urllib.parse import urlsplit

import aetcd

# What every store has of its own.
MASKED = re.compile(r"((?:cluster|member)_id|raft_term)[=:] ?\d+")


def tell(what, answer):
    print(f"{what}: {MASKED.sub('?', words(answer))}")


def words(answer):
    """An answer without addresses of objects."""
    if isinstance(answer, (bytes, str, int, bool, type(None))):
        return repr(answer)
    if isinstance(answer, (list, tuple)):
        return "[" + ", ".join(words(it) for it in answer) + "]"
    fields = {
        name: getattr(answer, name)
        for name in ("key", "value", "version", "create_revision", "mod_revision", "lease", "count", "kind", "kv", "prev_kv")
        if hasattr(answer, name)
    }
    if hasattr(answer, "__iter__"):
        fields["kvs"] = list(answer)
    return type(answer).__name__ + str({name: words(it) for name, it in fields.items()})


async def attempt(what, call):
    try:
        tell(what, await call)
    except Exception as error:  # every refusal is told
        tell(what, f"{type(error).__name__}: {error}")


async def keys(client):
    await attempt("put", client.put(b"a", b"1"))
    await attempt("put with prev", client.put(b"a", b"2", prev_kv=True))
    for number in range(3):
        await client.put(f"p/{number}".encode(), str(9 - number).encode())
    await attempt("get", client.get(b"a"))
    await attempt("get none", client.get(b"none"))
    await attempt("get serializable", client.get(b"a", serializable=True))
    for target in ("key", "version", "create", "mod", "value"):
        for order in (None, "ascend", "descend"):
            found = client.get_prefix(b"p/", sort_order=order, sort_target=target)
            await attempt(f"prefix by {target}, {order}", found)
    await attempt("keys alone", client.get_prefix(b"p/", keys_only=True))
    await attempt("range", client.get_range(b"a", b"p/1"))
    await attempt("replace", client.replace(b"a", b"2", b"3"))
    await attempt("replace another", client.replace(b"a", b"2", b"4"))
    await attempt("delete", client.delete(b"p/0", prev_kv=True))
    await attempt("delete prefix", client.delete_prefix(b"p/"))
    txn = client.transactions
    await attempt(
        "transaction",
        client.transaction(
            compare=[txn.value(b"a") == b"3", txn.version(b"a") > 0],
            success=[txn.put(b"t", b"yes"), txn.get(b"t")],
            failure=[txn.delete(b"a")],
        ),
    )
    await attempt("compact", client.compact(3, physical=True))
    await attempt("compact again", client.compact(3))
    await attempt("empty key", client.put(b"", b"x"))


async def watches(client):
    watch = await client.watch(b"w", prev_kv=True)
    for value in (b"1", b"2"):
        await client.put(b"w", value)
    await client.delete(b"w")
    seen = 0
    async for event in watch:
        tell("event", event)
        seen += 1
        if seen == 3:
            break
    await watch.cancel()


async def leases(client):
    lease = await client.lease(600, lease_id=77)
    await client.put(b"l", b"v", lease=lease)
    tell("lease", lease.id)
    left = await client.get_lease_info(77)
    tell("lease", [left.grantedTTL, left.TTL > 0, list(left.keys)])
    left = await client.refresh_lease(77)
    tell("refreshed", left.TTL)
    await attempt("taken", client.lease(600, lease_id=77))
    await client.revoke_lease(77)
    await attempt("its key", client.get(b"l"))
    await attempt("revoke again", client.revoke_lease(77))


async def others(client):
    async with client.lock(b"lock", ttl=60) as lock:
        tell("locked", await lock.is_acquired())
    status = await client.status()
    tell("leads", status.leader is not None)
    members = [it async for it in client.members()]
    tell("members", [len(members), len(members[0].client_urls)])
    tell("alarms", [it async for it in client.list_alarms()])
    tell("hash", await client.hash() is not None)
    await attempt("defragment", client.defragment())


async def main(endpoint):
    address = urlsplit(endpoint)
    async with aetcd.Client(host=address.hostname, port=address.port) as client:
        await keys(client)
        await watches(client)
        await leases(client)
        await others(client)


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
