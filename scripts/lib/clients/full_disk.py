"""A disk that is full: writes answer errors, reads and deletes go on, nothing acknowledged is lost, and room mends it."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster import Cluster, wait_until

from .harness import Skip, client, equal, test

SIZE = 96 << 20
SEGMENT = 1 << 20


@contextlib.contextmanager
def small_disk(beside: Path) -> Iterator[Path]:
    """A mounted file system of `SIZE` bytes."""
    if os.geteuid() != 0:
        raise Skip("mounting a small tmpfs takes root")
    with tempfile.TemporaryDirectory(prefix="full-disk-", dir=beside) as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "gramme-test", place]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip(f"can't mount a tmpfs: {done.stderr.strip()}")
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def full_cluster(cluster: Cluster) -> Iterator["Filled"]:
    """A cluster of its own on a disk that has been filled until nothing more could be written."""
    with small_disk(cluster.directory) as disk:
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
