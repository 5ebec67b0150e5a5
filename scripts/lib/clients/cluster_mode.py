"""Clients of a Redis cluster at the cluster port: redis-py's RedisCluster, redis-cli -c, redis-benchmark --cluster."""

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cluster import Cluster, Node, wait_until

from .harness import client, command, equal, fresh, starts, test

# How long a dead node may stay in what clients are told.
NOTICED = 3.0


@contextlib.contextmanager
def ring_aware(node: Node, **options):
    """redis-py in cluster mode, with its own defaults, knowing one node to begin with."""
    from redis.cluster import RedisCluster

    with RedisCluster(host="127.0.0.1", port=node.cluster_redis, **{"socket_timeout": 5, **options}) as cluster:
        yield cluster


@contextlib.contextmanager
def cluster_of(nodes: int, like: Cluster, room: int = 0) -> Iterator[Cluster]:
    """Another cluster, for the while: in one of three every node holds every key."""
    with tempfile.TemporaryDirectory(prefix="ring-", dir=like.directory.parent) as place:
        with Cluster(like.binary, Path(place) / "cluster", nodes, room=room) as cluster:
            cluster.found()
            cluster.start()
            yield cluster


def masters(node: Node) -> dict[int, int]:
    """For each slot the port of the node that clients should ask first, by what `node` tells."""
    with client(node) as r:
        runs = r.execute_command("CLUSTER SLOTS")
    if isinstance(runs, dict):  # as redis-py shows it
        return {slot: entry["primary"][1] for (first, last), entry in runs.items() for slot in range(first, last + 1)}
    return {slot: run[2][1] for run in runs for slot in range(run[0], run[1] + 1)}


def forwarded(cluster: Cluster) -> int:
    return sum(node.metric("requests_forwarded_total") for node in cluster.nodes if node.is_running())


@test
def redis_py_in_cluster_mode(cluster: Cluster) -> None:
    for protocol in (2, 3):
        key = fresh()
        keys = [f"{key}:{n}" for n in range(300)]
        with ring_aware(cluster.nodes[1], protocol=protocol) as r:
            equal(len(r.get_primaries()), 3)
            equal(sorted(node.port for node in r.get_nodes()), sorted(node.cluster_redis for node in cluster.nodes))
            for n, each in enumerate(keys):
                assert r.set(each, n)
            equal([r.get(each) for each in keys], [b"%d" % n for n in range(300)])
            equal(r.delete(*keys[:3]), 3)
            equal(r.exists(*keys), 297)
            r.mset_nonatomic({each: f"second {n}" for n, each in enumerate(keys)})
            equal(r.mget_nonatomic(keys), [b"second %d" % n for n in range(300)])
            # What a client in cluster mode takes to be of one slot.
            tagged = [f"{{{key}}}:{n}" for n in range(10)]
            assert r.mset({each: "v" for each in tagged})
            equal(r.mget(tagged), [b"v"] * 10)
            with r.pipeline() as pipeline:
                for n, each in enumerate(keys):
                    pipeline.set(each, f"third {n}").get(each)
                equal(pipeline.execute(), [x for n in range(300) for x in (True, b"third %d" % n)])
            context, values = r.execute_command("DYN.GET", key)
            equal(values, [])
            r.execute_command("DYN.PUT", key, "one")
            r.execute_command("DYN.PUT", key, "two")
            context, values = r.execute_command("DYN.GET", key)
            equal(sorted(values), [b"one", b"two"])
            r.execute_command("DYN.PUT", key, "both", "CONTEXT", context)
            equal(r.get(key), b"both")
            equal(r.cluster_keyslot("{foo}x"), 12182)
            equal(len(r.cluster_nodes()), 3)
            starts(r.cluster_info()["cluster_state"], "ok")
        with ring_aware(cluster.nodes[0], protocol=protocol, read_from_replicas=True) as r:
            equal([r.get(each) for each in keys], [b"third %d" % n for n in range(300)])


@test
def commands_of_keys_of_many_slots_work_at_the_cluster_port(cluster: Cluster) -> None:
    keys = [fresh() for _ in range(50)]
    with client(cluster.nodes[2], port=cluster.nodes[2].cluster_redis) as r:
        assert r.mset({key: "v" for key in keys})
        equal(r.mget(keys), [b"v"] * 50)
        equal((r.exists(*keys), r.delete(*keys), r.exists(*keys)), (50, 50, 0))


@test
def redis_cli_follows_a_redirection(cluster: Cluster) -> None:
    with cluster_of(5, cluster) as five:
        for n in range(20):
            key = f"key-{n}"
            for at in five.nodes:
                equal(command("redis-cli", "-c", "-p", at.cluster_redis, "SET", key, n).strip(), b"OK")
                # Without a terminal it follows silently.
                equal(command("redis-cli", "-c", "-p", at.cluster_redis, "GET", key).strip(), b"%d" % n)
        redirected = plain = 0
        for at in five.nodes:
            shown = command("redis-cli", "-p", at.cluster_redis, "GET", "key-7")
            redirected += shown.startswith(b"MOVED ")
            plain += command("redis-cli", "-p", at.redis, "GET", "key-7").strip() == b"7"
        equal((redirected, plain), (2, 5))
        health = command("redis-cli", "--cluster", "check", f"127.0.0.1:{five.nodes[0].cluster_redis}")
        assert b"[OK] All 16384 slots covered." in health, health


@test
def redis_benchmark_in_cluster_mode(cluster: Cluster) -> None:
    for pipeline in (1, 16):
        shown = command(
            "redis-benchmark", "--cluster", "-p", cluster.nodes[0].cluster_redis, "-t", "set,get", "-c", 50, "-n", 8000,
            "-P", pipeline, "-r", 1000, "-d", 100, "--csv", seconds=120,
        )  # fmt: skip
        rows = [line.split(b",") for line in shown.splitlines() if line.startswith(b'"')]
        equal(len(rows), 3)
        assert all(float(row[1].strip(b'"')) > 0 for row in rows[1:]), shown
        assert b"rror" not in shown, shown


@test
def requests_of_a_ring_aware_client_are_coordinated_by_a_replica_without_forwarding(cluster: Cluster) -> None:
    with cluster_of(5, cluster) as five:
        before = forwarded(five)
        keys = [f"key-{n}" for n in range(1000)]
        with ring_aware(five.nodes[3]) as r:
            for key in keys:
                assert r.set(key, key)
            with r.pipeline() as pipeline:
                for key in keys:
                    pipeline.get(key)
                equal(pipeline.execute(), [key.encode() for key in keys])
        equal(forwarded(five) - before, 0)
        # A client that knows one node only is forwarded for the two fifths of the keys of which that is no replica.
        with client(five.nodes[3]) as r:
            equal([r.get(key) for key in keys], [key.encode() for key in keys])
        share = (forwarded(five) - before) / len(keys)
        assert 0.3 < share < 0.5, share


@test
def the_map_follows_a_node_that_dies_or_falls_silent_and_returns(cluster: Cluster) -> None:
    a, b, gone = cluster.nodes
    everyone = {node.cluster_redis for node in cluster.nodes}
    for node in cluster.nodes:
        equal(set(masters(node).values()), everyone)

    def told(ports: set[int]):
        return lambda: all(len(m := masters(node)) == 16384 and set(m.values()) == ports for node in (a, b))

    gone.kill()
    wait_until(told(everyone - {gone.cluster_redis}), "the dead node is in no map", NOTICED)
    with client(a, port=a.cluster_redis) as r:
        equal(r.execute_command("CLUSTER INFO")["cluster_state"], "ok")
        states = {line.split()[7]: line.split()[2] for line in command("redis-cli", "-p", a.redis, "CLUSTER", "NODES").decode().splitlines()}  # fmt: skip # noqa: E501
        equal(states.get("disconnected"), "master,fail")
    cluster.start()
    wait_until(told(everyone), "the node that is back is in every map", NOTICED)

    os.kill(gone.pid, signal.SIGSTOP)
    try:
        wait_until(told(everyone - {gone.cluster_redis}), "the silent node is in no map", NOTICED)
    finally:
        os.kill(gone.pid, signal.SIGCONT)
    wait_until(told(everyone), "the node that speaks again is in every map", NOTICED)


class Writer(threading.Thread):
    """Writes keys of its own through one client until told to end; remembers what was acknowledged, and when."""

    def __init__(self, at: Node, prefix: str):
        super().__init__(daemon=True)
        self.at, self.prefix = at, prefix
        self.stopping = threading.Event()
        self.acknowledged: dict[str, str] = {}
        self.moments: list[float] = []
        self.errors: list[str] = []
        # Where it would send requests, by what it knows of the ring.
        self.knows: set[int] = set()

    def run(self) -> None:
        import redis

        with ring_aware(self.at) as r:
            n = 0
            while not self.stopping.is_set():
                n += 1
                key = f"{self.prefix}:{n}"
                try:
                    r.set(key, f"value {n}")
                    if r.get(key) != b"value %d" % n:
                        self.errors.append(f"{key} reads otherwise")
                except redis.RedisError as error:
                    self.errors.append(f"{key}: {type(error).__name__}: {error}")
                else:
                    self.acknowledged[key] = f"value {n}"
                    self.moments.append(time.monotonic())
                self.knows = {node.port for node in r.get_nodes()}


@test
def a_ring_aware_client_gets_over_a_killed_node_and_nothing_acknowledged_is_lost(cluster: Cluster) -> None:
    victim = cluster.nodes[1]
    # One of them knows only the node that will be killed.
    writers = [Writer(node, fresh("load")) for node in cluster.nodes]
    for writer in writers:
        writer.start()
    try:
        wait_until(lambda: all(len(w.acknowledged) > 50 for w in writers), "all writers write")
        victim.kill()
        killed = time.monotonic()
        wait_until(
            lambda: all(w.moments[-1] > killed + NOTICED and len([m for m in w.moments if m > killed]) > 50 for w in writers),
            "all writers go on", 30,
        )  # fmt: skip
        cluster.start()
        back = time.monotonic()
        wait_until(lambda: all(w.moments[-1] > back + 1 for w in writers), "all writers go on after its return", 30)
    finally:
        for writer in writers:
            writer.stopping.set()
        for writer in writers:
            writer.join(60)
    for writer in writers:
        pause = max(b - a for a, b in zip(writer.moments, writer.moments[1:], strict=False))
        assert pause < NOTICED, f"{writer.prefix}: no acknowledgement for {pause:.1f} s; {writer.errors}"
        assert not any("reads otherwise" in error for error in writer.errors), writer.errors
        # redis-py tries again by itself; what is left are the answers of an unlucky few.
        assert len(writer.errors) <= 3, writer.errors
        with ring_aware(victim) as r:
            for key, value in writer.acknowledged.items():
                equal(r.get(key), value.encode())


@test
def a_ring_aware_client_follows_a_node_that_joins_while_it_reads_and_writes(cluster: Cluster) -> None:
    with cluster_of(3, cluster, room=1) as growing:
        keys = [f"before-{n}" for n in range(500)]
        with ring_aware(growing.nodes[0]) as r:
            for key in keys:
                assert r.set(key, key)
        writers = [Writer(node, fresh("load")) for node in growing.nodes]
        for writer in writers:
            writer.start()
        try:
            wait_until(lambda: all(len(w.acknowledged) > 50 for w in writers), "all writers write", 30)
            # This one reads what is about to move, all the while.
            joiner, first = growing.add(), growing.nodes[0]
            joined = threading.Thread(target=growing.join, args=(joiner,), daemon=True)
            joined.start()
            rounds = 0
            with ring_aware(first) as r:
                while joined.is_alive() or rounds < 2:
                    equal([r.get(key) for key in keys], [key.encode() for key in keys])
                    rounds += 1
            equal(len(first.status()["peers"]), 3)
            wait_until(
                lambda: all(len(set(masters(node).values())) == 4 for node in growing.nodes), "all nodes are in every map"
            )
            # A client hears of it by being redirected, and moves one slot each time until it fetches the map.
            wait_until(lambda: all(joiner.cluster_redis in w.knows for w in writers), "every client's map is new", 60)
            more = [len(w.acknowledged) + 50 for w in writers]
            wait_until(
                lambda: all(len(w.acknowledged) > n for w, n in zip(writers, more, strict=True)), "all writers go on", 30
            )
        finally:
            for writer in writers:
                writer.stopping.set()
            for writer in writers:
                writer.join(60)
        for writer in writers:
            equal(writer.errors, [])
            for node in (growing.nodes[1], joiner):
                with ring_aware(node) as r:
                    for key, value in writer.acknowledged.items():
                        equal(r.get(key), value.encode())
        # What goes to the newcomer goes there without detours.
        before = forwarded(growing)
        with ring_aware(joiner) as r:
            equal([r.get(key) for key in keys], [key.encode() for key in keys])
        equal(forwarded(growing), before)
