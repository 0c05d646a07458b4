"""The bare host applications, which answer by themselves what the upstream answers through a proxy."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from itertools import repeat
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.benchmarks.scenario import BARE_PREFIX, BODIES, EVENT_SECONDS, Comparison, event

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

READ_SIZE = 2**18


async def asgi(scope: Message, receive: Receive, send: Send) -> None:
    """Answer what `/bare` has; refuse the lifespan protocol, as a server has to accept."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    path = scope["path"].removeprefix(BARE_PREFIX)
    if path == "/events":
        await _send_events(int(scope["query_string"]), send)
        return
    received = await _received(receive) if scope["method"] == "POST" else Comparison()
    status, kind, length, pieces = _answer(path, received)
    fields = [(b"content-type", kind.encode()), (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    for piece in pieces:
        length -= len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": length > 0})


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer what `/bare` has, but for streams of events: each would take a thread."""
    received = Comparison()
    if environ["REQUEST_METHOD"] == "POST":
        while piece := environ["wsgi.input"].read(READ_SIZE):
            received.feed(piece)
    status, kind, length, pieces = _answer(environ["PATH_INFO"].removeprefix(BARE_PREFIX), received)
    fields = [("Content-Type", kind), ("Content-Length", str(length))]
    start_response("200 OK" if status == 200 else "404 Not Found", fields)
    return pieces


def _answer(path: str, received: Comparison) -> tuple[int, str, int, Iterable[bytes]]:
    if path == "/upload":
        payload = received.answer()
        return 200, "application/json", len(payload), [payload]
    if path not in BODIES:
        return 404, "text/plain", 9, [b"not found"]
    piece, times = BODIES[path]
    kind = "application/json" if path == "/json" else "application/octet-stream"
    return 200, kind, len(piece) * times, _pieces(piece, times)


def _pieces(piece: bytes, times: int) -> Iterable[bytes]:
    if times == 1:
        return [piece]
    return _cut(piece, times)


def _cut(piece: bytes, times: int) -> Iterator[bytes]:
    for whole in repeat(piece, times):
        for start in range(0, len(whole), READ_SIZE):
            yield whole[start : start + READ_SIZE]


async def _received(receive: Receive) -> Comparison:
    received = Comparison()
    more = True
    while more:
        message = await receive()
        received.feed(message.get("body", b""))
        more = message.get("more_body", False)
    return received


async def _send_events(count: int, send: Send) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    fields = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    for number in range(count):
        await send({"type": "http.response.body", "body": event(number), "more_body": True})
        await asyncio.sleep(start + (number + 1) * EVENT_SECONDS - loop.time())
    await send({"type": "http.response.body", "body": b""})
