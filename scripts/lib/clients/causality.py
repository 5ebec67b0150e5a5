"""What contexts promise, through clients and through several coordinators."""

from cluster import Cluster

from .harness import client, equal, fresh, refused, test


class Three:
    """A client at each of three nodes, and DYN.* in short."""

    def __init__(self, cluster: Cluster):
        self.clients = [client(node) for node in cluster.nodes]
        self.key = fresh("cart")

    def get(self, at: int) -> tuple[bytes, list[bytes]]:
        context, values = self.clients[at].execute_command("DYN.GET", self.key)
        return context, sorted(values)

    def put(self, at: int, value: str, context: bytes | None = None) -> bytes:
        rest = ("CONTEXT", context) if context else ()
        return self.clients[at].execute_command("DYN.PUT", self.key, value, *rest)

    def delete(self, at: int, context: bytes) -> bytes:
        return self.clients[at].execute_command("DYN.DEL", self.key, "CONTEXT", context)


@test
def two_writers_with_one_context_leave_two_siblings_through_one_coordinator_or_two(cluster: Cluster) -> None:
    for left, right in [(0, 0), (0, 1), (1, 2)]:
        three = Three(cluster)
        three.put(2, "old")
        context, _ = three.get(0)
        three.put(left, "one", context)
        three.put(right, "other", context)
        merged, values = three.get(1)
        equal(values, [b"one", b"other"])
        three.put(2, "merged", merged)
        equal(three.get(0)[1], [b"merged"])


@test
def a_writer_that_chains_its_own_contexts_never_erases_what_it_was_not_shown(cluster: Cluster) -> None:
    three = Three(cluster)
    mine = three.put(0, "mine 0")
    three.put(1, "theirs")
    longest = 0
    for n in range(1, 60):
        mine = three.put(n % 3, f"mine {n}", mine)
        longest = max(longest, len(mine))
        if n % 10 == 0:
            equal(three.get(2)[1], [f"mine {n}".encode(), b"theirs"])
    equal(three.get(0)[1], [b"mine 59", b"theirs"])
    assert longest <= 200, f"a context grew to {longest} characters"


@test
def the_papers_figure_3(cluster: Cluster) -> None:
    # D1 and D2 through Sx; D3 through Sy and D4 through Sz both follow D2; D5 reconciles them through Sx.
    three = Three(cluster)
    sx, sy, sz = 0, 1, 2
    d1 = three.put(sx, "D1")
    three.put(sx, "D2", d1)
    d2, values = three.get(sy)
    equal(values, [b"D2"])
    three.put(sy, "D3", d2)
    three.put(sz, "D4", d2)
    both, values = three.get(sx)
    equal(values, [b"D3", b"D4"])
    three.put(sx, "D5", both)
    for node in (sx, sy, sz):
        equal(three.get(node)[1], [b"D5"])
    # A client that still holds the old context adds a sibling, and takes nothing away.
    three.put(sz, "late", d2)
    equal(three.get(sx)[1], [b"D5", b"late"])


@test
def a_plain_set_replaces_all_siblings_and_a_plain_del_removes_them(cluster: Cluster) -> None:
    three = Three(cluster)
    for at in range(3):
        three.put(at, f"sibling {at}")
    equal(len(three.get(0)[1]), 3)
    assert three.clients[1].set(three.key, "one")
    equal(three.get(2)[1], [b"one"])
    for at in range(3):
        three.put(at, f"sibling {at}")
    equal(three.clients[2].delete(three.key), 1)
    equal(three.get(0)[1], [])
    assert three.clients[1].get(three.key) is None


@test
def a_delete_takes_only_what_its_context_covers(cluster: Cluster) -> None:
    three = Three(cluster)
    three.put(0, "seen")
    context, _ = three.get(1)
    three.put(1, "not seen")
    after = three.delete(2, context)
    equal(three.get(0)[1], [b"not seen"])
    three.put(1, "anew", after)
    equal(three.get(0)[1], [b"anew", b"not seen"])


@test
def forged_damaged_and_borrowed_contexts_are_errors_and_change_nothing(cluster: Cluster) -> None:
    three, another = Three(cluster), Three(cluster)
    three.put(0, "v")
    another.put(0, "w")
    good, _ = three.get(0)
    borrowed, _ = another.get(0)
    bad = [borrowed, b"", b"nonsense", b"A" * 80, b"A" * 70_000, good[:-1], good + b"A", good + b"=", b"\xff\0" * 20]
    for at in range(len(good)):
        bad.append(good[:at] + (b"B" if good[at : at + 1] == b"A" else b"A") + good[at + 1 :])
    for context in bad:
        with refused("context", "ERR context"):
            three.clients[1].execute_command("DYN.PUT", three.key, "forged", "CONTEXT", context)
        with refused("context", "ERR context"):
            three.delete(2, context)
    with refused("DYN.DEL needs the CONTEXT"):
        three.clients[0].execute_command("DYN.DEL", three.key, "W", 2)
    equal(three.get(0), (good, [b"v"]))
