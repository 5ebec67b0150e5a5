"""redis-cli, redis-py with both versions of the protocol, and redis-benchmark."""

import time

from cluster import Cluster, Node

from .harness import client, command, equal, fresh, refused, starts, test
from .wire import Wire

EVERY_BYTE = bytes(range(256))


def cli(node: Node, *arguments, stdin: bytes | None = None) -> bytes:
    """What redis-cli prints, without the line end that it adds."""
    options = ["-x"] if stdin is not None else []
    return command("redis-cli", "-p", node.redis, *options, *arguments, stdin=stdin or b"").removesuffix(b"\n")


@test
def redis_cli_sets_gets_counts_and_deletes(cluster: Cluster) -> None:
    a, b, c = cluster.nodes
    one, two, none = fresh(), fresh(), fresh()
    equal(cli(a, "PING"), b"PONG")
    equal(cli(a, "SET", one, "first value"), b"OK")
    equal(cli(b, "GET", one), b"first value")
    equal(cli(b, "SET", one, "second value"), b"OK")
    equal(cli(c, "GET", one), b"second value")
    equal(cli(a, "MSET", one, "1", two, "2"), b"OK")
    equal(cli(c, "MGET", one, none, two), b"1\n\n2")
    equal(cli(b, "EXISTS", one, two, none, one), b"3")
    equal(cli(b, "DEL", one, none), b"1")
    equal(cli(a, "EXISTS", one), b"0")
    equal(cli(c, "GET", one), b"")
    equal(cli(a, "DEL", one), b"0")
    equal(cli(a, "GET", two), b"2")


@test
def redis_cli_carries_any_bytes(cluster: Cluster) -> None:
    a, b, _ = cluster.nodes
    key = fresh()
    equal(cli(a, "SET", key, stdin=EVERY_BYTE), b"OK")
    equal(cli(b, "GET", key), EVERY_BYTE)
    equal(cli(a, "SET", key, stdin=b""), b"OK")
    equal(cli(b, "EXISTS", key), b"1")
    equal(cli(b, "STRLEN", key), b"0")


@test
def redis_cli_shows_siblings_and_resolves_them(cluster: Cluster) -> None:
    a, b, c = cluster.nodes
    cart = fresh("cart")
    first = cli(a, "DYN.PUT", cart, "milk")
    cli(b, "DYN.PUT", cart, "eggs")
    context, *values = cli(c, "DYN.GET", cart).split(b"\n")
    equal(sorted(values), [b"eggs", b"milk"])
    assert first != context
    cli(a, "DYN.PUT", cart, "milk and eggs", "CONTEXT", context)
    context, *values = cli(b, "DYN.GET", cart).split(b"\n")
    equal(values, [b"milk and eggs"])
    cli(c, "DYN.DEL", cart, "CONTEXT", context)
    equal(cli(a, "GET", cart), b"")
    equal(cli(a, "EXISTS", cart), b"0")


@test
def redis_cli_gets_the_commands_documented(cluster: Cluster) -> None:
    # redis-cli asks for COMMAND DOCS when it is interactive.
    shown = cli(cluster.nodes[0], "COMMAND", "DOCS", "dyn.put")
    starts(shown, b"dyn.put")


@test
def unknown_commands_and_wrong_counts_are_refused_and_the_connection_goes_on(cluster: Cluster) -> None:
    with client(cluster.nodes[0]) as r:
        for words in [("FLY", "to", "the", "moon"), ("GET",), ("SET", "k"), ("DYN.GET",), ("\x00\xff",)]:
            with refused("ERR", "unknown", "wrong"):
                r.execute_command(*words)
        with refused("unknown command", "ERR unknown command"):
            r.execute_command("NOSUCH")
        assert r.ping()


@test
def what_would_need_consensus_says_so(cluster: Cluster) -> None:
    key = fresh()
    with client(cluster.nodes[0]) as r:
        for words in [("SET", key, "1", "NX"), ("SET", key, "1", "XX"), ("SETNX", key, "1"), ("INCR", key), ("MULTI",)]:
            with refused(""):
                r.execute_command(*words)
        equal(r.get(key), None)


@test
def keys_have_1_to_65536_bytes(cluster: Cluster) -> None:
    with client(cluster.nodes[0]) as r:
        longest = fresh().encode().ljust(65_536, b"\xfe")
        assert r.set(longest, "v")
        equal(r.get(longest), b"v")
        for key in [b"", longest + b"!"]:
            for words in [("SET", key, "v"), ("GET", key), ("DEL", key), ("EXISTS", key), ("DYN.GET", key),
                          ("DYN.PUT", key, "v"), ("MGET", "k", key), ("MSET", "k", "v", key, "v")]:  # fmt: skip
                with refused("a key has 1 to 65536 bytes", "ERR a key"):
                    r.execute_command(*words)
        assert r.ping()


@test
def a_key_takes_100_siblings_and_no_more(cluster: Cluster) -> None:
    key = fresh()
    with client(cluster.nodes[0]) as r:
        for n in range(100):
            r.execute_command("DYN.PUT", key, n)
        with refused("TOOLARGE"):
            r.execute_command("DYN.PUT", key, 100)
        context, values = r.execute_command("DYN.GET", key)
        equal(sorted(values, key=int), [b"%d" % n for n in range(100)])
        r.execute_command("DYN.PUT", key, "merged", "CONTEXT", context)
        equal(r.get(key), b"merged")


@test
def a_value_expires_when_it_was_told_to(cluster: Cluster) -> None:
    a, b, _ = cluster.nodes
    key = fresh()
    with client(a) as at_a, client(b) as at_b:
        assert at_a.set(key, "v", px=400)
        assert 0 < at_b.pttl(key) <= 400
        equal(at_b.get(key), b"v")
        deadline = time.monotonic() + 5
        while at_b.get(key) is not None:
            assert time.monotonic() < deadline, "a value with 400 ms to live is there after 5 s"
        equal((at_a.exists(key), at_a.ttl(key)), (0, -2))


@test
def inline_commands_and_half_commands(cluster: Cluster) -> None:
    key = fresh().encode()
    with Wire(cluster.nodes[0].redis) as wire:
        wire.send(b'SET %s "hello \\x41 world"\r\nGET %s\n\r\n' % (key, key))
        equal(wire.receive(b"world\r\n"), b"+OK\r\n$13\r\nhello A world\r\n")
        for byte in b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key):
            wire.send(bytes([byte]))
        equal(wire.receive(b"world\r\n"), b"$13\r\nhello A world\r\n")


@test
def pipelines_are_answered_in_order_whatever_fails_among_them(cluster: Cluster) -> None:
    key = fresh().encode()
    with Wire(cluster.nodes[1].redis) as wire:
        wire.send(b"".join(b"SET %s %d\r\nGET %s\r\nNOSUCH\r\nECHO %d\r\n" % (key, n, key, n) for n in range(500)))
        for n in range(500):
            equal(wire.receive(b"\r\n"), b"+OK\r\n")
            equal(wire.receive(b"\r\n") + wire.receive(b"\r\n"), b"$%d\r\n%d\r\n" % (len(str(n)), n))
            starts(wire.receive(b"\r\n"), b"-ERR")
            equal(wire.receive(b"\r\n") + wire.receive(b"\r\n"), b"$%d\r\n%d\r\n" % (len(str(n)), n))


def with_redis_py(cluster: Cluster, protocol: int) -> None:
    a, b, c = (client(node, protocol=protocol) for node in cluster.nodes)
    key, other, number = fresh(), fresh(), fresh()
    assert a.set(key, EVERY_BYTE)
    equal(b.get(key), EVERY_BYTE)
    equal(c.get("never written"), None)
    assert a.mset({other: "2", number: "3"})
    equal(b.mget(key, "never written", other, number), [EVERY_BYTE, None, b"2", b"3"])
    equal(c.exists(key, other, "never written"), 2)
    equal((c.delete(key, "never written"), c.get(key)), (1, None))
    equal((a.strlen(other), a.type(other), a.type(key)), (1, b"string", b"none"))
    assert a.set(key, "with time", ex=100) and 0 < b.ttl(key) <= 100
    equal(a.ttl(other), -1)

    with a.pipeline(transaction=False) as pipeline:
        for n in range(1000):
            pipeline.set(f"{key}:{n}", n)
        equal(pipeline.execute(), [True] * 1000)
    with b.pipeline(transaction=False) as pipeline:
        for n in range(1000):
            pipeline.get(f"{key}:{n}")
        equal(pipeline.execute(), [b"%d" % n for n in range(1000)])
    with c.pipeline(transaction=False) as pipeline:
        # Commands on one key take effect in order.
        pipeline.set(key, "x").get(key).delete(key).get(key).exists(key).set(key, "y").get(key)
        equal(pipeline.execute(), [True, b"x", 1, None, 0, True, b"y"])

    context, values = a.execute_command("DYN.GET", key)
    equal(values, [b"y"])
    assert context.isascii() and len(context) <= 200
    b.execute_command("DYN.PUT", key, "z", "CONTEXT", context, "W", 3)
    equal(c.execute_command("DYN.GET", key, "R", "all")[1], [b"z"])
    equal(a.execute_command("DYN.GET", "never written")[1], [])
    for each in (a, b, c):
        each.close()


@test
def redis_py_with_version_2(cluster: Cluster) -> None:
    with_redis_py(cluster, 2)


@test
def redis_py_with_version_3(cluster: Cluster) -> None:
    with_redis_py(cluster, 3)


@test
def redis_benchmark_runs_with_and_without_pipelining(cluster: Cluster) -> None:
    for pipeline in (1, 16):
        shown = command(
            "redis-benchmark", "-p", cluster.nodes[0].redis, "-t", "set,get,mset", "-c", 50, "-n", 8000, "-P", pipeline,
            "-r", 1000, "-d", 100, "--csv", seconds=120,
        )  # fmt: skip
        rows = [line.split(b",") for line in shown.splitlines() if line.startswith(b'"')]
        # One heading, then SET, GET, MSET: each with a rate that is not zero.
        equal(len(rows), 4)
        assert all(float(row[1].strip(b'"')) > 0 for row in rows[1:]), shown
        assert b"rror" not in shown, shown
