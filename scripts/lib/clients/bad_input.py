"""Garbage, lies about lengths, slowness: the sender gets an error or is hung up on, everybody else goes on unharmed."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator

from cluster import Cluster, Node

from .harness import client, equal, fresh, test
from .wire import Wire

# What a node may take on for all connections of one such test together.
ROOM = 24 << 20


@contextlib.contextmanager
def unharmed(cluster: Cluster, room: int = ROOM) -> Iterator[None]:
    """Meanwhile clients of every node write and read, quickly and without one error, and no node takes much memory."""
    before = [node.memory() for node in cluster.nodes]
    stop = threading.Event()
    slowest, failures = [0.0], []

    def work(node: Node) -> None:
        key = fresh("bystander")
        try:
            with client(node, socket_timeout=5) as r:
                n = 0
                while not stop.is_set():
                    began = time.monotonic()
                    assert r.set(key, n)
                    equal(r.get(key), b"%d" % n)
                    slowest[0] = max(slowest[0], time.monotonic() - began)
                    n += 1
                assert n > 0
        except Exception as error:  # noqa: BLE001 (told below)
            failures.append(f"{node}: {error!r}")

    threads = [threading.Thread(target=work, args=(node,)) for node in cluster.nodes]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        # Long enough that each was served after the worst, too.
        time.sleep(0.2)
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert slowest[0] < 2, f"a bystander waited {slowest[0]:.1f} s"
    for node, was in zip(cluster.nodes, before, strict=True):
        grown = node.memory() - was
        assert grown < room, f"{node} grew by {grown >> 20} MiB"


def ports(node: Node) -> dict[str, int]:
    return {"redis": node.redis, "http": node.http, "peer": node.peer}


@test
def garbage_on_every_port(cluster: Cluster) -> None:
    chance = random.Random(1)
    beginnings = [
        b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\n", b"*3\r\n$3\r\nSET\r\n", b"\0" * 64,
        b"\xff" * 64, b"PUT /kv/k HTTP/1.1\r\nContent-Length: 5\r\n\r\n", b"*1\r\n$-5\r\n", b"*-7\r\n", b"$5\r\n", b"\r\n\r\n",
        b"GET /kv/%ff%0 HTTP/1.1\r\n\r\n", b"gramme", b"SET 'a\r\n",
    ]  # fmt: skip
    with unharmed(cluster):
        for port in ports(cluster.nodes[0]).values():
            for turn in range(60):
                with Wire(port) as wire:
                    wire.send(beginnings[turn % len(beginnings)] + chance.randbytes(chance.choice([1, 100, 65_536])))


@test
def what_breaks_the_protocol_is_named_and_hung_up_on(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    for words in [b"*1\r\n:1\r\n", b"*x\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$3\r\nabcde\r\n", b"*1048577\r\n", b"\0\0\0\0"]:
        with Wire(a.redis) as wire:
            wire.send(words)
            assert wire.is_closed(3), f"{words!r} keeps its connection"
            assert wire.received.startswith(b"-ERR Protocol error: "), wire.received
    with Wire(a.http) as wire:
        wire.send(b"this is no HTTP\r\n\r\n")
        assert wire.is_closed(3)
        assert wire.received.startswith(b"HTTP/1.1 400 "), wire.received
    with Wire(a.peer) as wire:
        wire.send(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 4096)
        assert wire.is_closed(10), "a stranger on the peer port is kept"


@test
def lengths_of_4_gib_are_refused_before_memory_is_taken(cluster: Cluster) -> None:
    claims = {
        "redis": [
            b"*1\r\n$4294967296\r\n", b"*4294967296\r\n", b"*2\r\n$3\r\nGET\r\n$4294967295\r\n", b"*1048576\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n",
        ],
        "http": [
            b"PUT /kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n",
            b"PUT /kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            b"PUT /kv/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
            b"GET /kv/" + b"k" * 1_000_000 + b" HTTP/1.1\r\n",
        ],
        "peer": [b"\xff\xff\xff\xff" * 4, b"\x00\x00\x00\x01" * 4, b"\xff" * 8 + b"\x7f" * 8, b"\x00" * 4 + b"\xff" * 12],
    }  # fmt: skip
    with unharmed(cluster), contextlib.ExitStack() as stack:
        for name, port in ports(cluster.nodes[1]).items():
            for claim in claims[name]:
                for _ in range(8):
                    wire = stack.enter_context(Wire(port))
                    wire.send(claim + b"z" * 10_000)


@test
def a_body_that_is_announced_too_large_is_answered_413(cluster: Cluster) -> None:
    with Wire(cluster.nodes[2].http) as wire:
        wire.send(b"PUT /kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n")
        assert wire.receive(b"\r\n\r\n").startswith(b"HTTP/1.1 413 ")


@test
def slow_and_silent_connections_disturb_nobody(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    key = fresh().encode()
    with unharmed(cluster), contextlib.ExitStack() as stack:
        for port in ports(a).values():
            for _ in range(100):
                stack.enter_context(Wire(port))
        half = stack.enter_context(Wire(a.http))
        half.send(b"PUT /kv/half HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf of it")
        slow = stack.enter_context(Wire(a.redis))
        for byte in b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$4\r\nslow\r\n" % (len(key), key):
            slow.send(bytes([byte]))
            time.sleep(0.01)
        assert slow.receive(b"\r\n") == b"+OK\r\n"
    with client(cluster.nodes[1]) as r:
        equal(r.get(key), b"slow")
        equal(r.get("half"), None)


@test
def a_client_that_never_reads_is_not_buffered_without_end(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    key = fresh().encode()
    with client(a) as r:
        r.set(key, b"v" * 100_000)
    # A node holds at most 64 MiB of answers for all that do not take them. These would be 2.4 GB.
    with unharmed(cluster, room=96 << 20), Wire(a.redis) as wire:
        wire.socket.setblocking(False)
        request = b"GET %s\r\n" % key * 1000
        for _ in range(24):
            with contextlib.suppress(BlockingIOError):
                wire.socket.send(request)
            time.sleep(0.02)


@test
def connections_that_vanish_in_the_middle_leave_nothing_behind(cluster: Cluster) -> None:
    with unharmed(cluster):
        for node in cluster.nodes:
            for port in ports(node).values():
                for _ in range(100):
                    with Wire(port) as wire:
                        wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nhalf")
