"""Tests that run against one cluster, one after the other; each counts as passed or failed, and none stops the rest."""

import contextlib
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import count

from cluster import Cluster, Node

TESTS: list[Callable] = []
_names = count()


class Skip(Exception):
    """The machine can't do what the test needs."""


def test(function: Callable) -> Callable:
    """Registers a test; it is handed a cluster of which all nodes are up, and leaves it so."""
    TESTS.append(function)
    return function


def equal(got, wanted) -> None:
    """An assertion that tells what it saw."""
    assert got == wanted, f"got {got!r}, wanted {wanted!r}"


def starts(got, wanted) -> None:
    """The same for a beginning, of text or bytes."""
    assert got.startswith(wanted), f"got {got!r}, wanted {wanted!r}…"


def fresh(prefix: str = "key") -> str:
    """A key that nobody used before."""
    return f"{prefix}-{next(_names)}"


def command(*arguments, stdin: bytes = b"", seconds: float = 60) -> bytes:
    """The standard output of a program that must succeed."""
    done = subprocess.run(list(map(_text, arguments)), input=stdin, capture_output=True, timeout=seconds)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr!r} {done.stdout!r}"
    return done.stdout


def _text(argument):
    return argument if isinstance(argument, bytes) else str(argument)


def client(node: Node, **options):
    """redis-py, without retries of its own."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis(**{"port": node.redis, "socket_timeout": 15, "retry": Retry(NoBackoff(), 0), **options})


@contextlib.contextmanager
def refused(*beginnings: str) -> Iterator[None]:
    """The command within must be answered by an error that begins so."""
    import redis

    try:
        yield
    except redis.ResponseError as error:
        assert str(error).startswith(beginnings), f"refused with {error}, not with {beginnings}"
    else:
        raise AssertionError(f"it was not refused with {beginnings}")


@contextlib.contextmanager
def without(cluster: Cluster, *nodes: Node) -> Iterator[list[Node]]:
    """kill -9 of these nodes; yields the others once they know, and brings all back in the end."""
    for node in nodes:
        node.kill()
    try:
        cluster.wait_for_each_other()
        yield [node for node in cluster.nodes if node not in nodes]
    finally:
        cluster.start()


def run(cluster: Cluster, wanted: list[str]) -> tuple[int, int]:
    """Runs all tests of which the name has one of these words in it; how many passed and failed."""
    passed = failed = 0
    for function in TESTS:
        name = f"{function.__module__.rpartition('.')[2]}: {function.__name__.replace('_', ' ')}"
        if wanted and not any(word in name for word in wanted):
            continue
        began = time.monotonic()
        try:
            for node in cluster.nodes:
                assert node.is_running(), f"{node} had ended before: {node.last_words()}"
            function(cluster)
            for node in cluster.nodes:
                assert node.is_running(), f"{node} ended: {node.last_words()}"
        except Skip as reason:
            # Not passed: a run that skips everything must not look like success.
            print(f"SKIPPED  {name}: {reason}")
            print(f"client-tests: skipped: {name}: {reason}", file=sys.stderr)
        except Exception:  # noqa: BLE001 (every failure is told, and the rest still run)
            failed += 1
            print(f"FAILED   {name}\n{traceback.format_exc()}")
            revive(cluster)
        else:
            passed += 1
            print(f"ok       {name} ({time.monotonic() - began:.1f} s)")
        sys.stdout.flush()
    return passed, failed


def revive(cluster: Cluster) -> None:
    """Makes the best of what a failed test left."""
    try:
        for node in cluster.nodes:
            if node.is_running():
                os.kill(node.pid, 18)  # SIGCONT
        cluster.start()
    except Exception as error:  # noqa: BLE001 (the next test tells)
        print(f"         and the cluster does not come back: {error}")
