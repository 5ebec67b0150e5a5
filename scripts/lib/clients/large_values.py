"""Values of the largest size: a few of them are a flood for a connection between nodes."""

import os
import threading

from cluster import Cluster

from .harness import client, equal, fresh, test, without

VALUE = os.urandom(16 << 20)


@test
def many_at_once_are_all_written_and_hurt_nobody(cluster: Cluster) -> None:
    keys = [fresh("large") for _ in range(8)]
    answers = {}

    def write(key: str) -> None:
        with client(cluster.nodes[0], socket_timeout=60) as r:
            answers[key] = r.set(key, VALUE)

    threads = [threading.Thread(target=write, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(answers, dict.fromkeys(keys, True))
    with client(cluster.nodes[0]) as r:
        for _ in range(20):
            assert r.set(fresh(), "small")
    with client(cluster.nodes[1], socket_timeout=60) as r:
        for key in keys:
            equal(r.get(key) == VALUE, True)
            r.delete(key)


@test
def what_a_node_missed_of_them_is_handed_over(cluster: Cluster) -> None:
    keys = [fresh("missed") for _ in range(12)]
    victim = cluster.nodes[2]
    with without(cluster, victim) as (a, _), client(a, socket_timeout=60) as r:
        for key in keys:
            assert r.set(key, VALUE)
    cluster.wait_for_handoff(victim)
    with client(cluster.nodes[0]) as r:
        for _ in range(20):
            assert r.set(fresh(), "small")
    with without(cluster, *cluster.nodes[:2]) as (alone,), client(alone, socket_timeout=60) as r:
        for key in keys:
            equal(r.execute_command("DYN.GET", key, "R", 1)[1] == [VALUE], True)
    with client(cluster.nodes[0], socket_timeout=60) as r:
        for key in keys:
            r.delete(key)
