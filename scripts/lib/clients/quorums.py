"""R, W, PR, PW when nodes are dead or do not answer; restarts."""

import os
import signal
import subprocess
import time

from cluster import Cluster, is_open, wait_until

from .harness import client, equal, fresh, refused, starts, test, without
from .http_clients import curl, put


@test
def with_one_node_dead_everything_goes_on_but_what_asks_for_three(cluster: Cluster) -> None:
    key, missing = fresh(), fresh()
    with client(cluster.nodes[0]) as r:
        r.set(key, "before")
    with without(cluster, cluster.nodes[2]) as (a, b), client(a) as at_a, client(b) as at_b:
        equal(at_b.get(key), b"before")
        assert at_a.set(key, "after")
        equal(at_b.get(key), b"after")
        with refused("QUORUM r: 2 of 3"):
            at_a.execute_command("DYN.GET", key, "R", 3)
        with refused("QUORUM pr: 2 of 3"):
            at_a.execute_command("DYN.GET", key, "PR", "all")
        for option, name in [("W", "w"), ("PW", "pw"), ("DW", "dw")]:
            with refused(f"QUORUM {name}: 2 of 3 reachable"):
                at_a.execute_command("DYN.PUT", missing, "v", option, "all")
        equal(at_b.get(missing), None)
        equal(curl(a, f"/kv/{key}?r=3").status, 503)
        answer = put(a, f"{missing}?w=all", b"v")
        equal(answer.status, 503)
        assert b"w: 2 of 3" in answer.body, answer.body
        equal(curl(b, f"/kv/{missing}").status, 404)
    with client(cluster.nodes[2]) as r:
        equal(r.execute_command("DYN.GET", key, "R", 3)[1], [b"after"])


@test
def with_two_nodes_dead_one_copy_can_still_be_asked_for(cluster: Cluster) -> None:
    key, lonely = fresh(), fresh()
    with client(cluster.nodes[1]) as r:
        r.execute_command("DYN.PUT", key, "v", "W", 3)
    with without(cluster, *cluster.nodes[1:]) as (a,), client(a) as r:
        with refused("QUORUM r: 1 of 2"):
            r.get(key)
        with refused("QUORUM w: 1 of 2 reachable"):
            r.set(key, "x")
        with refused("QUORUM"):
            r.delete(key)
        with refused("QUORUM"):
            r.mget(key, lonely)
        equal(r.execute_command("DYN.GET", key, "R", 1)[1], [b"v"])
        r.execute_command("DYN.PUT", lonely, "written alone", "W", 1)
        equal(r.execute_command("DYN.GET", lonely, "R", "one")[1], [b"written alone"])
        equal((curl(a, f"/kv/{key}").status, curl(a, f"/kv/{key}?r=1").status), (503, 200))
        equal(put(a, key, b"x").status, 503)
        equal(curl(a, "/healthz").status, 200)
    with client(cluster.nodes[2]) as r:
        equal(r.execute_command("DYN.GET", key, "R", 3)[1], [b"v"])
        equal(r.execute_command("DYN.GET", lonely, "R", 3)[1], [b"written alone"])


@test
def a_write_that_a_silent_node_did_not_acknowledge_is_indeterminate(cluster: Cluster) -> None:
    a, b, silent = cluster.nodes
    key, other = fresh(), fresh()
    with client(a) as at_a, client(b) as at_b:
        os.kill(silent.pid, signal.SIGSTOP)
        try:
            # At once, before anybody suspects anything.
            began = time.monotonic()
            with refused("INDETERMINATE w: 2 of 3 acknowledged", "QUORUM w: 2 of 3 reachable"):
                at_a.execute_command("DYN.PUT", key, "v", "W", 3, "TIMEOUT", 300)
            assert time.monotonic() - began < 3, "the answer comes by its deadline"
            assert at_a.set(other, "two are enough")
            equal(at_b.get(other), b"two are enough")
        finally:
            os.kill(silent.pid, signal.SIGCONT)
    cluster.wait_for_each_other()
    with client(silent) as r:
        equal(r.execute_command("DYN.GET", other, "R", 3)[1], [b"two are enough"])


@test
def levels_out_of_range_are_refused(cluster: Cluster) -> None:
    key = fresh()
    with client(cluster.nodes[0]) as r:
        for level in ["0", "4", "-1", "many", "", "256", "99999999999999999999"]:
            with refused("r is", "R takes"):
                r.execute_command("DYN.GET", key, "R", level)
            with refused("w is", "W takes"):
                r.execute_command("DYN.PUT", key, "v", "W", level)
        equal(r.get(key), None)


@test
def a_node_back_from_the_dead_learns_what_it_missed(cluster: Cluster) -> None:
    keys = [fresh() for _ in range(500)]
    victim = cluster.nodes[1]
    with without(cluster, victim) as (a, _), client(a) as r, r.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.set(key, key)
        equal(pipeline.execute(), [True] * len(keys))
    # The others hand over what they kept for it; then they are not needed any more.
    cluster.wait_for_handoff(victim)
    with without(cluster, *(node for node in cluster.nodes if node is not victim)), client(victim) as r:
        for key in keys:
            equal(r.execute_command("DYN.GET", key, "R", 1)[1], [key.encode()])


@test
def a_stopped_cluster_keeps_its_data_and_every_node_ends_cleanly(cluster: Cluster) -> None:
    key = fresh()
    with client(cluster.nodes[0]) as r:
        r.set(key, "kept")
    for node in cluster.nodes:
        equal(node.stop(), 0)
    cluster.start()
    with client(cluster.nodes[1]) as r:
        equal(r.get(key), b"kept")


@test
def gramme_dev_prints_addresses_survives_ctrl_c_and_keeps_its_data(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.stop()
    key = fresh()
    try:
        for turn in range(2):
            printed = cluster.directory / f"dev.printed.{turn}"
            with printed.open("wb") as output:
                dev = subprocess.Popen(
                    [cluster.binary, "dev", "--nodes", "3", "--dir", cluster.directory, "--port", str(cluster.port)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            try:
                for node in cluster.nodes:
                    address = f"127.0.0.1:{node.redis}".encode()
                    wait_until(lambda: address in printed.read_bytes(), f"gramme dev prints {address!r}")
                    wait_until(lambda: node.peers_up() == 3, f"{node} sees all")
                with client(cluster.nodes[turn]) as r:
                    if turn == 0:
                        assert r.set(key, "by dev")
                    equal(r.get(key), b"by dev")
                dev.send_signal(signal.SIGINT)
                assert dev.wait(15) == 0, printed.read_bytes()
                for node in cluster.nodes:
                    assert not is_open(node.redis), f"{node} outlived gramme dev"
            finally:
                if dev.poll() is None:
                    os.killpg(dev.pid, signal.SIGKILL)
    finally:
        cluster.start()


@test
def a_second_server_on_one_directory_is_refused_in_words(cluster: Cluster) -> None:
    done = subprocess.run(
        [cluster.binary, "serve", "--dir", cluster.nodes[0].directory],
        capture_output=True, timeout=15, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1, done
    starts(done.stderr, b"gramme: ")
