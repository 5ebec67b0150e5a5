"""Bytes to and from a port, for what no proper client would send."""

import socket
import time


class Wire:
    """A connection that sends anything."""

    def __init__(self, port: int, seconds: float = 10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.seconds = seconds
        self.received = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends, or does not: the other side may have hung up, and that is its right."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def receive(self, ending: bytes) -> bytes:
        """All bytes up to this ending."""
        while ending not in self.received:
            more = self.socket.recv(65_536)
            assert more, f"the connection was closed after {self.received[-200:]!r}"
            self.received += more
        answer, _, self.received = self.received.partition(ending)
        return answer + ending

    def is_closed(self, seconds: float) -> bool:
        """Whether the other side hangs up within this time; what it says until then is kept in `received`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                more = self.socket.recv(65_536)
            except TimeoutError:
                return False
            except ConnectionResetError:
                return True
            if not more:
                return True
            self.received += more
        return False
