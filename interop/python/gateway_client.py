"""Asks an etcd v3 endpoint by the client `etcd3gw`, over JSON, and prints the answers.

usage: gateway_client.py ENDPOINT VERSION
"""

import re
import sys
from urllib.parse import urlsplit

import etcd3gw

# What every store has of its own, and what depends on the time.
MASKED = re.compile(r"'(cluster_id|member_id|raft_term)': '\d+'")


def tell(what, answer):
    text = MASKED.sub(r"\1", repr(answer))
    print(f"{what}: {text}")


def attempt(what, call):
    try:
        tell(what, call())
    except Exception as error:  # every refusal is told, but for its body, which no two versions word alike
        tell(what, f"{type(error).__name__}: {error}")


def main(endpoint):
    address = urlsplit(endpoint)
    client = etcd3gw.client(host=address.hostname, port=address.port, api_path="/v3/", timeout=20)
    attempt("put", lambda: client.put("a", "1"))
    attempt("put again", lambda: client.put("a", "2"))
    attempt("get", lambda: client.get("a"))
    attempt("get with metadata", lambda: client.get("a", metadata=True))
    attempt("get none", lambda: client.get("none"))
    for number in range(3):
        client.put(f"p/{number}", str(9 - number))
    for target in ("key", "version", "create", "mod", "value"):
        for order in ("none", "ascend", "descend"):
            attempt(f"prefix by {target}, {order}", lambda: client.get_prefix("p/", order, target))
    attempt("limit", lambda: client.get("a", metadata=True, range_end="z", limit=2))
    attempt("keys alone", lambda: client.get("a", metadata=True, range_end="z", keys_only=True))
    attempt("count", lambda: client.get("a", metadata=True, range_end="z", count_only=True))
    attempt("past", lambda: client.get("a", metadata=True, revision=2))
    attempt("future", lambda: client.get("a", revision=1000))
    attempt("all", lambda: client.get_all())
    attempt("create", lambda: client.create("new", "1"))
    attempt("create again", lambda: client.create("new", "1"))
    attempt("replace", lambda: client.replace("new", "1", "2"))
    attempt("replace another", lambda: client.replace("new", "1", "2"))
    attempt("delete", lambda: client.delete("new"))
    attempt("delete again", lambda: client.delete("new"))
    attempt("delete prefix", lambda: client.delete_prefix("p/"))
    attempt("empty key", lambda: client.put("", "1"))
    attempt("nonsense", lambda: client.post(client.get_url("/kv/range"), json={"key": "%"}))
    attempt("no path", lambda: client.post(client.get_url("/kv/none"), json={}))

    lease = client.lease(ttl=600)
    tell("granted", lease.ttl() > 590)
    client.put("l", "v", lease=lease)
    tell("keys", lease.keys())
    tell("refreshed", lease.refresh())
    tell("revoked", lease.revoke())
    attempt("its key", lambda: client.get("l"))

    client.put("w", "0")
    events, cancel = client.watch("w", start_revision=2, prev_kv=True)
    client.put("w", "1")
    client.delete("w")
    for _ in range(3):
        tell("event", next(events))
    cancel()

    lock = client.lock("lock", ttl=60)
    tell("acquire", lock.acquire())
    tell("acquired", lock.is_acquired())
    tell("release", lock.release())
    tell("members", len(client.members()))
    tell("status", sorted(client.status())[:3])


main(sys.argv[1])
