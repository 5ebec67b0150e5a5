"""Garbage, lies about lengths, slowness: the sender gets an error or is hung up on, everybody else goes on unharmed."""

import contextlib
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cluster import Cluster, Node

from .harness import Skip, client, equal, fresh, starts, test
from .wire import Wire

# What a node may take on for all connections of one such test together.
ROOM = 24 << 20
# The same with answers that nobody takes: the bound on those, 256 MiB, and half as much again for what the engine
# holds of the reads in hand and the allocator keeps.
ANSWERS = 384 << 20
# Clients that take nothing are cut off after 3 seconds, if others wait for the room. A dozen of the largest values fit
# at a time, so that who comes behind many of those waits a few times as long.
PATIENCE = 3


@contextlib.contextmanager
def unharmed(cluster: Cluster, room: int = ROOM) -> Iterator[None]:
    """Meanwhile clients of every node write and read, quickly and without one error, and no node takes much memory."""
    # Gigabytes keep a small machine busy, whoever else is served meanwhile.
    patience = 2 if room < ANSWERS else 8
    before = [node.memory() for node in cluster.nodes]
    for node in cluster.nodes:
        # Its peak begins anew.
        Path(f"/proc/{node.pid}/clear_refs").write_text("5")
    stop, served = threading.Event(), threading.Semaphore(0)
    slowest, failures = [0.0], []

    def work(node: Node) -> None:
        key = fresh("bystander")
        try:
            with client(node, socket_timeout=15) as r:
                n = 0
                while not stop.is_set():
                    began = time.monotonic()
                    assert r.set(key, n)
                    equal(r.get(key), b"%d" % n)
                    slowest[0] = max(slowest[0], time.monotonic() - began)
                    n += 1
                    served.release()
        except Exception as error:  # noqa: BLE001 (told below)
            failures.append(f"{node}: {error!r}")
            served.release()

    threads = [threading.Thread(target=work, args=(node,)) for node in cluster.nodes]
    for thread in threads:
        thread.start()
    # Each has been served once before anything begins.
    for _ in range(len(threads)):
        served.acquire()
    try:
        yield
    finally:
        # Long enough that each was served after the worst, too.
        time.sleep(0.2)
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert slowest[0] < patience, f"a bystander waited {slowest[0]:.1f} s"
    for node, was in zip(cluster.nodes, before, strict=True):
        grown = node.memory("VmHWM") - was
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


class Hog(Wire):
    """A client that asks and takes nothing, as if its window were closed."""

    def __init__(self, port: int, *requests: bytes, primed_by: bytes = b""):
        super().__init__(port)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if primed_by:
            self.send(primed_by)
            self.receive(b"$1\r\n1\r\n")
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for request in requests:
                self.socket.send(request)


def values(cluster: Cluster, **sizes: int) -> dict[str, bytes]:
    """Fresh keys, one for each name, with values of this many bytes."""
    keys = {name: fresh(name).encode() for name in sizes}
    with client(cluster.nodes[0]) as r:
        for name, size in sizes.items():
            r.set(keys[name], b"1" * size)
    return keys


def settle(node: Node, within: float = 1.0) -> None:
    """Lets a node do its worst: until its answers no longer grow, and at least this long."""
    until, last = time.monotonic() + within, -1
    while (now := node.memory()) > last or time.monotonic() < until:
        last = max(now, last)
        time.sleep(0.1)


def a_proper_client_reads(node: Node, key: bytes, size: int, rounds: int = 1) -> None:
    """It waits for room until those are cut off who take nothing; `rounds` of them come before it."""
    began = time.monotonic()
    with client(node, socket_timeout=60) as r:
        equal(len(r.get(key)), size)
    took = time.monotonic() - began
    assert took < (PATIENCE + 2) * rounds + 2, f"a large value took {took:.1f} s"


@test
def one_client_that_never_reads_is_not_buffered_without_end(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    keys = values(cluster, small=1, middle=100_000, big=16 << 20)
    get = {name: b"GET %s\r\n" % key for name, key in keys.items()}
    # 2.4 GB, once the node has seen how small values are; then 4 GiB.
    with unharmed(cluster, ANSWERS), Hog(a.redis, *[get["middle"] * 1000] * 24, primed_by=get["small"]):
        settle(a)
    with unharmed(cluster, ANSWERS), Hog(a.redis, get["big"] * 256, primed_by=get["small"]):
        settle(a)
        a_proper_client_reads(a, keys["big"], 16 << 20)


@test
def many_clients_that_never_read_are_not_buffered_without_end(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    keys = values(cluster, small=1, middle=1 << 20, big=16 << 20)
    get = {name: b"GET %s\r\n" % key for name, key in keys.items()}
    # 4 GiB, 4 GiB by those of whom the node knows nothing, and half of that by another protocol.
    for port, count, request, primed_by in [
        (a.redis, 20, get["middle"] * 200, get["small"]),
        (a.redis, 60, get["big"] * 4, b""),
        (a.http, 30, b"GET /kv/%s HTTP/1.1\r\nHost: x\r\n\r\n" % keys["big"], b""),
    ]:
        with unharmed(cluster, ANSWERS), contextlib.ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(Hog(port, request, primed_by=primed_by))
            settle(a)
            a_proper_client_reads(a, keys["big"], 16 << 20, rounds=8)


@test
def too_large_an_answer_is_refused_in_words_where_memory_is_short(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    keys = values(cluster, small=1, big=16 << 20)
    before = resource.prlimit(a.pid, resource.RLIMIT_AS)
    resource.prlimit(a.pid, resource.RLIMIT_AS, (2_500_000 << 10, before[1]))
    try:
        with unharmed(cluster, ANSWERS), Wire(a.redis, 30) as wire:
            # Primed: the node would ask for all of them at once.
            wire.send(b"GET %s\r\n" % keys["small"])
            wire.receive(b"$1\r\n1\r\n")
            wire.send(b"MGET" + b" %s" % keys["big"] * 256 + b"\r\nPING\r\n")
            starts(wire.receive(b"\r\n"), b"-TOOLARGE answer: the values come to more than 67108864 bytes")
            equal(wire.receive(b"\r\n"), b"+PONG\r\n")
            wire.send(b"MGET" + b" %s" % keys["big"] * 3 + b"\r\n")
            wire.receive(b"*3\r\n")
    finally:
        resource.prlimit(a.pid, resource.RLIMIT_AS, before)


@contextlib.contextmanager
def crowd(port: int, needed: int, said: bytes) -> Iterator[list[Wire]]:
    """So many connections, each of which says this and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed + 100:
        raise Skip(f"it takes {needed} connections, the limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed + 100), hard))
    try:
        with contextlib.ExitStack() as stack:
            wires = []
            for _ in range(needed):
                wires.append(stack.enter_context(Wire(port)))
                wires[-1].send(said)
            yield wires
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@test
def http_connections_that_let_the_server_wait_give_way(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    for said in (b"", b"PUT /kv/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"):
        with crowd(a.http, 3000, said) as waiting, Wire(a.http) as wire:
            wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            starts(wire.receive(b"ok\n"), b"HTTP/1.1 200 ")
            assert waiting[0].is_closed(3), "the one that let the server wait longest is kept"


@test
def redis_connections_that_let_the_server_wait_give_way(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    most = int(client(a).config_get("maxclients")["maxclients"])
    with crowd(a.redis, most + 100, b"*2\r\n$3\r\nGET\r\n") as waiting, Wire(a.redis) as wire:
        wire.send(b"PING\r\n")
        wire.receive(b"+PONG\r\n")
        assert waiting[0].is_closed(3), "the one that let the server wait longest is kept"


@test
def long_wrong_words_are_not_repeated_in_full(cluster: Cluster) -> None:
    a = cluster.nodes[0]
    word = b"\xff" * (16 << 20)
    # A buffer that grows is there twice for a moment.
    with unharmed(cluster, ROOM + len(word)), Wire(a.redis, 30) as wire:
        for before, after in ((b"HELLO 3", b""), (b"CLIENT SETINFO", b" v"), (b"EXPIRE k 9", b"")):
            words = [*before.split(), word, *after.split()]
            wire.send(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            answer = wire.receive(b"\r\n")
            starts(answer, b"-ERR ")
            assert len(answer) < 1000, f"{len(answer)} bytes"


@test
def connections_that_vanish_in_the_middle_leave_nothing_behind(cluster: Cluster) -> None:
    with unharmed(cluster):
        for node in cluster.nodes:
            for port in ports(node).values():
                for _ in range(100):
                    with Wire(port) as wire:
                        wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nhalf")
