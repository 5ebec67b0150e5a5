"""curl on /kv/{key}, and the other paths that machines ask."""

import base64
import json
from urllib.parse import quote

from cluster import Cluster, Node

from .harness import client, command, equal, fresh, test

CONTEXT = "x-gramme-context"


class Answer:
    """Status, headers in small letters, body."""

    def __init__(self, output: bytes):
        head, _, self.body = output.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head, _, self.body = self.body.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def context(self) -> str:
        return self.headers[CONTEXT]


def curl(node: Node, path: str, *options, body: bytes | None = None) -> Answer:
    """One request."""
    data = ["--data-binary", "@-"] if body is not None else []
    url = f"http://127.0.0.1:{node.http}{path}"
    return Answer(command("curl", "--silent", "--show-error", "--include", *data, *options, url, stdin=body or b""))


def put(node: Node, key: str, value: bytes, *options, context: str | None = None) -> Answer:
    given = ["-H", f"X-Gramme-Context: {context}"] if context else []
    return curl(node, f"/kv/{key}", "-X", "PUT", *given, *options, body=value)


@test
def curl_puts_and_gets_a_value_with_its_type(cluster: Cluster) -> None:
    a, b, c = cluster.nodes
    key, value = fresh(), bytes(range(256)) * 40
    written = put(a, key, value, "-H", "Content-Type: image/png")
    equal((written.status, written.body), (204, b""))
    read = curl(b, f"/kv/{key}")
    equal((read.status, read.headers["content-type"]), (200, "image/png"))
    assert read.body == value
    head = curl(c, f"/kv/{key}", "--head")
    equal((head.status, head.headers["content-length"], head.body), (200, str(len(value)), b""))
    assert head.context
    equal(put(b, key, b"next", context=read.context).status, 204)
    equal(curl(c, f"/kv/{key}").body, b"next")
    with client(a) as r:
        equal(r.get(key), b"next")


@test
def curl_gets_404_for_what_is_not_there(cluster: Cluster) -> None:
    a, b, _ = cluster.nodes
    equal(curl(a, f"/kv/{fresh()}").status, 404)
    equal(curl(a, f"/kv/{fresh()}", "--head").status, 404)
    equal(curl(a, "/nowhere").status, 404)
    key = fresh()
    context = put(a, key, b"v").context
    equal(curl(b, f"/kv/{key}", "-X", "DELETE", "-H", f"X-Gramme-Context: {context}").status, 204)
    gone = curl(a, f"/kv/{key}")
    equal(gone.status, 404)
    assert gone.context, "what was deleted has a context to write with"


@test
def curl_shows_siblings_as_300_with_json(cluster: Cluster) -> None:
    a, b, c = cluster.nodes
    key = fresh()
    put(a, key, b"\x00one", "-H", "Content-Type: text/plain")
    put(b, key, b"other\xff")
    read = curl(c, f"/kv/{key}")
    equal(read.status, 300)
    assert "json" in read.headers["content-type"]
    siblings = json.loads(read.body)
    equal(sorted(base64.b64decode(each["value"]) for each in siblings), [b"\x00one", b"other\xff"])
    assert all("dot" in each for each in siblings)
    equal(put(c, key, b"merged", context=read.context).status, 204)
    equal((curl(a, f"/kv/{key}").status, curl(a, f"/kv/{key}").body), (200, b"merged"))


@test
def curl_deletes_under_a_context_only(cluster: Cluster) -> None:
    a, b, _ = cluster.nodes
    key = fresh()
    put(a, key, b"v")
    equal(curl(b, f"/kv/{key}", "-X", "DELETE").status, 428)
    context = curl(b, f"/kv/{key}").context
    deleted = curl(b, f"/kv/{key}", "-X", "DELETE", "-H", f"X-Gramme-Context: {context}")
    equal(deleted.status, 204)
    assert deleted.context
    equal(curl(a, f"/kv/{key}").status, 404)
    equal(put(a, key, b"again", context=deleted.context).status, 204)
    equal(curl(b, f"/kv/{key}").body, b"again")


@test
def curl_names_any_key(cluster: Cluster) -> None:
    a, b, _ = cluster.nodes
    for name in [bytes(range(1, 256)), b"a/b?c#d%2F", b"\0", " spaces + plus".encode(), "schlüssel".encode(), b"."]:
        name = fresh().encode() + name
        path = quote(name, safe="")
        equal(put(a, path, name).status, 204)
        equal(curl(b, f"/kv/{path}", "--path-as-is").body, name)
        with client(b) as r:
            equal(r.get(name), name)
    longest = fresh().ljust(65_536 // 2, "k")
    equal(put(a, longest, b"v").status, 204)
    equal(curl(b, f"/kv/{longest}").body, b"v")


@test
def curl_chooses_quorums(cluster: Cluster) -> None:
    a, b, _ = cluster.nodes
    key = fresh()
    equal(put(a, f"{key}?w=all&pw=2&dw=one&timeout=2000", b"v").status, 204)
    for query in ["r=1", "r=one", "r=quorum&pr=3", "r=all", "pr=one", "r=3&timeout=2000"]:
        equal((query, curl(b, f"/kv/{key}?{query}").status), (query, 200))


@test
def curl_is_told_400_for_what_makes_no_sense(cluster: Cluster) -> None:
    a, _, _ = cluster.nodes
    key = fresh()
    put(a, key, b"v")
    for query in ["r=0", "r=4", "r=", "r=-1", "r=two", "pr=9", "r=99999999999", "timeout=soon", "timeout=-1"]:
        equal((query, curl(a, f"/kv/{key}?{query}").status), (query, 400))
    for query in ["w=0", "w=4", "pw=x", "dw=4", "ttl=never", "timeout=0", "w=1&w=2"]:
        equal((query, put(a, f"{key}?{query}", b"x").status), (query, 400))
    another = fresh()
    borrowed = put(a, another, b"v").context
    for context in ["nonsense", borrowed, "A" * 80]:
        equal(put(a, key, b"x", context=context).status, 400)
        equal(curl(a, f"/kv/{key}", "-X", "DELETE", "-H", f"X-Gramme-Context: {context}").status, 400)
    equal(put(a, "", b"x").status in (400, 404, 405), True)
    equal(curl(a, f"/kv/%zz{key}", "-X", "PUT", body=b"x").status, 400)
    equal(curl(a, f"/kv/{key}").body, b"v")


@test
def curl_keeps_its_connection(cluster: Cluster) -> None:
    a, _, _ = cluster.nodes
    key = fresh()
    put(a, key, b"v")
    url = f"http://127.0.0.1:{a.http}/kv/{key}"
    shown = command("curl", "--silent", "--write-out", "%{num_connects} ", url, url, url)
    equal(shown, b"v1 v0 v0 ")


@test
def health_readiness_and_status(cluster: Cluster) -> None:
    for node in cluster.nodes:
        equal(curl(node, "/healthz").status, 200)
        equal(curl(node, "/readyz").status, 200)
        status = json.loads(curl(node, "/api/status").body)
        assert isinstance(status, dict) and status
