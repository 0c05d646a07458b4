"""What any proxy on an ASGI server pays: a second hop, and nothing done to the request but a look at its token.

No proxy: it forwards neither fields nor bodies, and takes the first thing that the upstream sends for a whole response.
"""

import asyncio
from typing import cast
from urllib.parse import urlsplit

from tests.benchmarks.peers.common import CALLER, CREDENTIAL, UPSTREAM, Message, Receive, Send, refuse
from tests.benchmarks.scenario import PROXY_PREFIX

_AUTHORITY = urlsplit(UPSTREAM).netloc
_HOST, _, _PORT = _AUTHORITY.partition(":")
_AUTHORIZATION = b"authorization", CALLER.encode()
_PREFIX = len(PROXY_PREFIX)
_REST = f" HTTP/1.1\r\nhost: {_AUTHORITY}\r\nauthorization: {CREDENTIAL}\r\n\r\n".encode()

_idle: "list[_Hop]" = []


class _Hop(asyncio.Protocol):
    """A connection to the upstream."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, path: bytes) -> asyncio.Future[bytes]:
        """Send a request; done with what comes."""
        self._transport.write(b"GET " + path + _REST)
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._answer.set_result(data)


async def asgi(scope: Message, receive: Receive, send: Send) -> None:
    """Answer one request without a body."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if _AUTHORIZATION not in scope["headers"]:
        await refuse(send)
        return
    hop = _idle.pop() if _idle else await _connect()
    head, _, body = (await hop.ask(scope["raw_path"][_PREFIX:])).partition(b"\r\n\r\n")
    _idle.append(hop)
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": int(head[9:12]), "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _connect() -> _Hop:
    _, hop = await asyncio.get_running_loop().create_connection(_Hop, _HOST, int(_PORT))
    return hop
