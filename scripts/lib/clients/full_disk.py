"""A disk that is full: writes answer errors, reads and deletes go on, nothing acknowledged is lost, and room mends it."""

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cluster import Cluster, wait_until

from .harness import Skip, client, equal, fresh, test

SIZE = 96 << 20
SEGMENT = 1 << 20


@contextlib.contextmanager
def mounted(place: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes at this place."""
    if os.geteuid() != 0:
        raise Skip("mounting a small tmpfs takes root")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "gramme-test", place]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"can't mount a tmpfs: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def full_cluster(cluster: Cluster) -> Iterator["Filled"]:
    """A cluster of its own on a disk that has been filled until nothing more could be written."""
    with (
        tempfile.TemporaryDirectory(prefix="full-disk-", dir=cluster.directory) as place,
        mounted(Path(place), SIZE) as disk,
    ):
        with Cluster(cluster.binary, disk / "cluster", settings={"segment_bytes": str(SEGMENT)}) as full:
            full.found()
            full.start()
            filled = Filled(full, disk)
            filled.fill()
            yield filled


class Filled:
    """What was acknowledged, and the means to write more and to compare."""

    def __init__(self, cluster: Cluster, disk: Path):
        self.cluster = cluster
        self.ballast = disk / "ballast"
        self.clients = [client(node) for node in cluster.nodes]
        self.acknowledged: dict[str, bytes | None] = {}
        self.tried = 0

    def write(self) -> bool:
        """Writes one more key through the next node; whether that was acknowledged. Only an error will do instead."""
        import redis

        self.tried += 1
        key, value = f"key:{self.tried}", os.urandom(5000)
        try:
            self.clients[self.tried % 3].set(key, value)
        except redis.ResponseError as error:
            kind = str(error).split(" ")[0]
            assert kind in ("UNWRITABLE", "INDETERMINATE", "QUORUM"), error
            return False
        self.acknowledged[key] = value
        return True

    def fill(self) -> None:
        assert all([self.write() for _ in range(300)])
        # Somebody else takes nearly all of the room.
        room = os.statvfs(self.ballast.parent)
        self.ballast.write_bytes(b"\0" * (room.f_bavail * room.f_frsize - (4 << 20)))
        refusals = 0
        while refusals < 30:
            refusals += not self.write()
            assert self.tried < 20_000, "20,000 writes of 5 kB fit into what is left of 96 MB"
        assert len(self.acknowledged) > 300

    def delete(self, count: int) -> None:
        """Deleting works on a full disk: it takes none of the room that is not there."""
        for at, key in enumerate(list(self.acknowledged)[:count]):
            equal(self.clients[at % 3].delete(key), 1)
            self.acknowledged[key] = None

    def make_room(self) -> None:
        self.ballast.unlink()

    def check(self) -> None:
        """Every node runs and has every byte that was acknowledged."""
        for node in self.cluster.nodes:
            assert node.is_running(), f"{node} ended on a full disk: {node.last_words()}"
            with client(node) as r, r.pipeline(transaction=False) as pipeline:
                for key in self.acknowledged:
                    pipeline.get(key)
                answers = pipeline.execute(raise_on_error=False)
            for (key, value), got in zip(self.acknowledged.items(), answers, strict=True):
                assert got == value, f"{key} through {node} is {got!r:.80}"

    def writes_again(self) -> None:
        """Every node takes writes within some seconds, and then all of them."""
        self.clients = [client(node) for node in self.cluster.nodes]
        wait_until(lambda: all([self.write() for _ in range(3)]), "writing goes on where there is room again")
        assert all([self.write() for _ in range(300)])
        key, value = next(reversed(self.acknowledged.items()))
        equal(self.clients[0].execute_command("DYN.GET", key, "R", 3)[1], [value])


@test
def a_full_disk_stops_writes_not_reads_and_room_mends_it(cluster: Cluster) -> None:
    with full_cluster(cluster) as full:
        full.check()
        full.delete(30)
        full.check()
        full.make_room()
        full.writes_again()
        full.check()
        # All of it is on the disk, not in somebody's memory.
        for node in full.cluster.nodes:
            node.kill()
        full.cluster.start()
        full.check()


@test
def nodes_that_are_killed_on_a_full_disk_come_back_and_serve_reads(cluster: Cluster) -> None:
    with full_cluster(cluster) as full:
        for node in full.cluster.nodes:
            node.kill()
        full.cluster.start()
        full.check()
        full.make_room()
        full.writes_again()
        full.check()


@test
def one_full_node_of_three_costs_nobody_a_write(cluster: Cluster) -> None:
    """With W = 2 the other two are enough, whoever coordinates; the full one neither spins nor holds others up."""
    import redis

    with (
        tempfile.TemporaryDirectory(prefix="full-node-", dir=cluster.directory) as place,
        Cluster(cluster.binary, Path(place) / "cluster") as some,
    ):
        full, *others = some.nodes
        full.directory.mkdir()
        with mounted(full.directory, 192 << 20) as disk:
            # What ends here ends before its disk does.
            with some:
                some.found()
                some.start()
                # Somebody else takes the room.
                ballast = disk / "ballast"
                room = os.statvfs(disk)
                ballast.write_bytes(b"\0" * (room.f_bavail * room.f_frsize - (1 << 20)))
                clients = [client(node) for node in some.nodes]
                acknowledged = {}

                def write(through: redis.Redis, *options: str | int) -> bool:
                    key, value = fresh(), os.urandom(20_000)
                    try:
                        through.execute_command("DYN.PUT", key, value, *options)
                    except redis.ResponseError as error:
                        assert str(error).startswith("INDETERMINATE"), error
                        return False
                    acknowledged[key] = value
                    return True

                refusals = 0
                while refusals < 100:
                    refusals += not write(clients[1], "W", 3)
                    assert len(acknowledged) < 20_000, "400 MB fit into a disk of 192 MB"
                took = {node: [] for node in some.nodes}
                for at in range(600):
                    began = time.monotonic()
                    assert write(clients[at % 3]), f"refused through {some.nodes[at % 3]}"
                    took[some.nodes[at % 3]].append(time.monotonic() - began)
                assert [node.status()["disk_full"] for node in some.nodes] == [True, False, False]
                assert "the disk is full" in full.last_words()
                slow = statistics.median(took[full])
                assert slow < 0.02, f"a write through the full node takes {slow:.3f} s, others {took}"
                # What the others keep for it they offer now and then, no more than that.
                spent = full.cpu_seconds()
                time.sleep(5)
                spent = full.cpu_seconds() - spent
                assert spent < 1, f"the full node spent {spent:.2f} s of 5 without a client"
                ballast.unlink()
                wait_until(lambda: write(clients[0], "W", 3), "the node takes writes again")
                assert not full.status()["disk_full"]
                # It has what it missed, what it coordinated itself included.
                some.wait_for_handoff(full)
                for node in others:
                    node.kill()
                with client(full) as r:
                    for key, value in acknowledged.items():
                        got = r.execute_command("DYN.GET", key, "R", 1)[1]
                        assert got == [value], f"{key} has {len(got)} values, or another"
