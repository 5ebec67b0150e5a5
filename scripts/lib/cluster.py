"""A cluster of real server processes on this machine, each of which can be killed and started alone."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

# Below the ports that the system hands out by itself.
PORTS = range(20_000, 32_000, 100)


class Failed(Exception):
    """The cluster did not do what it was told."""


def wait_until(condition, what: str, seconds: float = 15.0) -> None:
    """Polls until `condition()` is true; an error that names `what` if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


def is_open(port: int) -> bool:
    """Whether something listens at this port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def free_ports(nodes: int) -> int:
    """The first of a run of ports of which a cluster can have all that it needs."""
    for base in random.sample(PORTS, len(PORTS)):
        sockets = []
        try:
            for offset in range(10 * nodes):
                sockets.append(socket.socket())
                sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sockets[-1].bind(("127.0.0.1", base + offset))
            return base
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    raise Failed("no run of free ports")


class Node:
    """One server process, or none at the moment."""

    def __init__(self, cluster: "Cluster", number: int):
        self.cluster = cluster
        self.number = number
        self.directory = cluster.directory / f"node{number}"
        base = cluster.port + 10 * (number - 1)
        self.redis, self.http, self.peer, self.cluster_redis = base, base + 1, base + 2, base + 3
        self.process: subprocess.Popen | None = None
        self.log = cluster.directory / f"node{number}.stderr"

    def __repr__(self) -> str:
        return f"node{self.number}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Starts the process; `wait` tells when it serves."""
        assert not self.is_running()
        command = [self.cluster.binary, "serve", "--dir", self.directory]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, env=self.cluster.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait(self, seconds: float = 15.0) -> None:
        """Waits until it answers clients."""

        def answers() -> bool:
            if not self.is_running():
                raise Failed(f"{self} ended with {self.process.poll()}: {self.last_words()}")
            return self.ask(b"PING\r\n").startswith(b"+PONG")

        wait_until(answers, f"{self} answers", seconds)

    def ask(self, request: bytes) -> bytes:
        """The first bytes of the answer to a request on a connection of its own; none if there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.redis), timeout=2) as connection:
                connection.settimeout(2)
                connection.sendall(request)
                return connection.recv(65_536)
        except OSError:
            return b""

    def peers_up(self) -> int:
        """How many members this one holds for alive, itself included."""
        return self.ask(b"DYN.PREFLIST k\r\n").count(b"\r\nup\r\n")

    def status(self) -> dict:
        """What it says of itself and its peers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/status", timeout=5) as answer:
            return json.load(answer)

    def metric(self, name: str) -> int:
        """A number of its /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=5) as answer:
            return int(re.search(rf"^gramme_{name} (\d+)$", answer.read().decode(), re.M)[1])

    def owes(self, other: "Node") -> bool:
        """Whether it has, or may have, writes for another node that it was handed when that could not be reached."""
        peers = {peer["node"]: peer for peer in self.status()["peers"]}
        return peers[other.status()["node"]]["hints_pending"]

    def kill(self) -> None:
        """kill -9, and waits for the end."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 15.0) -> int:
        """Asks it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"{self} did not stop within {seconds:g} s of SIGTERM") from None

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of memory, as the system counts them."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB$", status, re.M)[1]) * 1024

    def cpu_seconds(self) -> float:
        """What it has spent of the processors' time."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


class Cluster:
    """Founded by `gramme dev`, then run node by node with `gramme serve`."""

    def __init__(
        self, binary: Path, directory: Path, nodes: int = 3, settings: dict[str, str] | None = None, room: int = 0
    ):
        self.binary = binary
        self.directory = directory
        # Settings of all nodes, in the environment as GRAMME_….
        self.environment = os.environ | {f"GRAMME_{name.upper()}": value for name, value in (settings or {}).items()}
        # `room` nodes may join later.
        self.port = free_ports(nodes + room)
        directory.mkdir(parents=True, exist_ok=True)
        self.nodes = [Node(self, number + 1) for number in range(nodes)]

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_) -> None:
        for node in self.nodes:
            if node.is_running():
                # A stopped process takes this too.
                node.kill()

    def found(self) -> None:
        """Lets `gramme dev` make the cluster, and ends it with Ctrl-C."""
        command = [self.binary, "dev", "--nodes", str(len(self.nodes)), "--dir", self.directory]
        with open(self.directory / "dev.output", "ab") as log:
            dev = subprocess.Popen(
                [*command, "--port", str(self.port)], env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            for node in self.nodes:
                wait_until(
                    lambda: dev.poll() is not None or node.ask(b"PING\r\n").startswith(b"+PONG"), f"{node} is founded"
                )
            if dev.poll() is not None:
                raise Failed(f"gramme dev: {(self.directory / 'dev.output').read_text(errors='replace')}")
            dev.send_signal(signal.SIGINT)
            dev.wait(15)
        finally:
            if dev.poll() is None:
                os.killpg(dev.pid, signal.SIGKILL)
        for node in self.nodes:
            wait_until(lambda: not is_open(node.redis), f"{node} ends with gramme dev")

    def start(self) -> None:
        """Starts every node that does not run and waits until all know of all."""
        for node in self.nodes:
            if not node.is_running():
                node.start()
        for node in self.nodes:
            node.wait()
        self.wait_for_each_other()

    def add(self) -> Node:
        """Starts one more node, which finds the cluster by the first; it is no member yet."""
        node = Node(self, len(self.nodes) + 1)
        node.directory.mkdir()
        secret = self.directory / "secret"
        secret.write_bytes(self.gramme("secret", "--dir", self.nodes[0].directory))
        lines = {
            "redis": node.redis, "cluster-redis": node.cluster_redis, "http": node.http, "peer": node.peer,
            "join": self.nodes[0].peer,
        }  # fmt: skip
        settings = [f"{name} = '127.0.0.1:{port}'\n" for name, port in lines.items()]
        (node.directory / "gramme.toml").write_text("".join(settings) + f"secret-file = '{secret}'\n")
        self.nodes.append(node)
        node.start()
        node.wait()
        return node

    def join(self, node: Node, seconds: float = 180) -> None:
        """Makes it a member, and waits until what it owns has moved to it."""
        at = f"127.0.0.1:{self.nodes[0].http}"
        known = lambda: node.status()["node"] in self.gramme("members", "--at", at).decode()  # noqa: E731
        wait_until(known, f"{node} is known")
        self.gramme("cluster", "stage", "join", node.status()["node"], "--at", at)
        self.gramme("cluster", "commit", "--wait", "--at", at, seconds=seconds)

    def gramme(self, *arguments, seconds: float = 30) -> bytes:
        """What a command says that must succeed."""
        done = subprocess.run(
            [self.binary, *map(str, arguments)], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=seconds,
        )  # fmt: skip
        if done.returncode != 0:
            raise Failed(f"gramme {arguments} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def wait_for_handoff(self, to: Node, seconds: float = 120) -> None:
        """Waits until no other running node owes anything to this one."""
        for node in self.nodes:
            if node is not to and node.is_running():
                wait_until(lambda: not node.owes(to), f"{node} has handed {to} what it keeps for it", seconds)

    def wait_for_each_other(self) -> None:
        """Waits until every running node holds exactly the running nodes for alive."""
        running = [node for node in self.nodes if node.is_running()]
        for node in running:
            wait_until(lambda: node.peers_up() == len(running), f"{node} sees {len(running)} members up")
