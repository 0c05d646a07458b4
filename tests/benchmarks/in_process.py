"""The ASGI door without server, network or kernel: requests that are answered at once, again and again.

A program of its own: `python -m tests.benchmarks.in_process REQUESTS`. What it does depends on nothing but the number.
"""

import asyncio
import socket
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from proxy_middleware import ASGIProxyMiddleware
from tests.benchmarks import hosts
from tests.benchmarks.configured import proxy
from tests.benchmarks.scenario import CALLER_TOKEN, JSON, PROXY_PREFIX

CALLERS = 16
BASE_URL = "http://127.0.0.1:9000"
PATH = f"{PROXY_PREFIX}/json"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 07:22:37 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%s" % (len(JSON), JSON)
)


class Answering(asyncio.Transport):
    """A connection whose other end answers whatever is written to it."""

    def __init__(self, protocol: Any, loop: asyncio.AbstractEventLoop) -> None:
        # The proxy looks whether the socket of an idle connection is still silent.
        self._socket, self._other = socket.socketpair()
        super().__init__({"socket": self._socket})
        self._protocol = protocol
        self._loop = loop

    def write(self, data: Any) -> None:
        self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        self._protocol.get_buffer(-1)[: len(RESPONSE)] = RESPONSE
        self._protocol.buffer_updated(len(RESPONSE))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self._socket.close()
        self._other.close()


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose connections lead to an `Answering`."""

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Dial nothing."""

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BufferedProtocol], *, sock: socket.socket, **settings: Any
    ) -> tuple[Answering, asyncio.BufferedProtocol]:
        """Connect the protocol to an `Answering`."""
        sock.close()
        protocol = protocol_factory()
        transport = Answering(protocol, self)
        protocol.connection_made(transport)
        return transport, protocol


class Caller:
    """Sends one request after the other, each in a task of its own as servers do, and counts the bytes it gets."""

    def __init__(self, door: ASGIProxyMiddleware) -> None:
        self._door = door
        self.received = 0

    async def call(self, times: int) -> None:
        """Send this many requests."""
        loop = asyncio.get_running_loop()
        for _ in range(times):
            await loop.create_task(self._door(scope(), self._receive, self._send))

    async def _receive(self) -> MutableMapping[str, Any]:
        raise AssertionError("a GET that is answered at once has no need to ask whether its caller has left")

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            self.received += len(message["body"])


def scope() -> dict[str, Any]:
    """Return what a server makes of a request by wrk."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 4444),
        "scheme": "http",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"authorization", b"Bearer " + CALLER_TOKEN.encode())],
        "method": "GET",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "state": {},
    }


async def main(requests: int) -> None:
    """Send the requests from `CALLERS` callers, and see that each has been answered."""
    door = proxy({"c0": BASE_URL}).asgi(hosts.asgi)
    callers = [Caller(door) for _ in range(CALLERS)]
    await asyncio.gather(*(caller.call(requests // CALLERS) for caller in callers))
    received = sum(caller.received for caller in callers)
    if received != requests * len(JSON):
        raise SystemExit(f"{received} bytes for {requests} requests")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main(int(sys.argv[1])))
