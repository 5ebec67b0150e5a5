"""Values of the largest size: a few of them are a flood for a connection between nodes.

Tidying up after each takes a node twice its bytes of memory, some time later: other tests count that.
"""

import os
import threading
import time

from cluster import Cluster

from .harness import client, equal, fresh, refused, test, without
from .http_clients import curl, put

VALUE = os.urandom(16 << 20)
# Seconds. Three copies of a dozen values are 600 MB to sync, and disks differ.
PATIENCE = 60


def write(r: "redis.Redis", key: str) -> None:  # noqa: F821
    """Writes the value, with time enough for a slow disk. That a peer is too busy to be reached is told before anything is done."""
    import redis

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            r.execute_command("DYN.PUT", key, VALUE, "TIMEOUT", 1000 * PATIENCE)
            return
        except redis.ResponseError as error:
            if not str(error).startswith("QUORUM") or time.monotonic() > deadline:
                raise


@test
def values_have_up_to_16_mebibytes(cluster: Cluster) -> None:
    a, b, _ = cluster.nodes
    key = fresh()
    largest = b"\0\r\n$" * (4 << 20)
    with client(a) as at_a, client(b) as at_b:
        assert at_a.set(key, largest)
        assert at_b.get(key) == largest, "the largest value comes back as it was"
        with refused("TOOLARGE"):
            at_a.set(key, largest + b"!")
        assert at_a.ping()
        assert at_b.get(key) == largest, "what was refused changed nothing"
        equal(at_a.delete(key), 1)


@test
def curl_is_told_413_for_a_value_beyond_the_limit(cluster: Cluster) -> None:
    a, b, _ = cluster.nodes
    key = fresh()
    largest = b"\xa5" * (16 << 20)
    equal(put(a, key, largest).status, 204)
    assert curl(b, f"/kv/{key}").body == largest
    equal(put(a, key, largest + b"!").status, 413)
    # The same without its length being told before.
    equal(put(a, key, largest + b"!", "-H", "Transfer-Encoding: chunked").status, 413)
    context = curl(b, f"/kv/{key}", "--head").context
    equal(curl(a, f"/kv/{key}", "-X", "DELETE", "-H", f"X-Gramme-Context: {context}").status, 204)


@test
def many_at_once_are_all_written_and_hurt_nobody(cluster: Cluster) -> None:
    keys = [fresh("large") for _ in range(8)]
    written = []

    def write_one(key: str) -> None:
        with client(cluster.nodes[0], socket_timeout=PATIENCE) as r:
            write(r, key)
        written.append(key)

    threads = [threading.Thread(target=write_one, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(sorted(written), sorted(keys))
    with client(cluster.nodes[0]) as r:
        for _ in range(20):
            assert r.set(fresh(), "small")
    with client(cluster.nodes[1], socket_timeout=PATIENCE) as r:
        for key in keys:
            equal(r.get(key) == VALUE, True)
            r.delete(key)


@test
def what_a_node_missed_of_them_is_handed_over(cluster: Cluster) -> None:
    keys = [fresh("missed") for _ in range(12)]
    victim = cluster.nodes[2]
    with without(cluster, victim) as (a, _), client(a, socket_timeout=PATIENCE) as r:
        for key in keys:
            write(r, key)
    cluster.wait_for_handoff(victim)
    with client(cluster.nodes[0]) as r:
        for _ in range(20):
            assert r.set(fresh(), "small")
    with without(cluster, *cluster.nodes[:2]) as (alone,), client(alone, socket_timeout=PATIENCE) as r:
        for key in keys:
            equal(r.execute_command("DYN.GET", key, "R", 1)[1] == [VALUE], True)
    with client(cluster.nodes[0], socket_timeout=PATIENCE) as r:
        for key in keys:
            r.delete(key)
