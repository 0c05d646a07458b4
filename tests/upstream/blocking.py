"""What the tests of the blocking engine have in common."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from proxy_middleware._steps import Forward
from proxy_middleware._target import Origin
from proxy_middleware.models import EgressPolicy, Limits, Timeouts
from proxy_middleware.upstream.threads import ThreadsUpstream
from proxy_middleware.upstream.threads_connection import Response
from tests.upstreams import WAIT, Exchange, Script, ScriptedUpstream

LOOPBACK = EgressPolicy(allow=("127.0.0.0/8",))
PIECE = b"x" * 65536
BIG = [PIECE] * 256
UNFINISHED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"

MakeEngine = Callable[..., ThreadsUpstream]


@contextmanager
def making_engines() -> Iterator[MakeEngine]:
    """Makes engines, and closes them in the end."""
    engines = []

    def make(
        ssl_context: ssl.SSLContext | None = None, egress: EgressPolicy = LOOPBACK, **limits: Any
    ) -> ThreadsUpstream:
        engines.append(ThreadsUpstream(Limits(**limits), egress, ssl_context))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


class FakeBody:
    """A request body of these pieces; one that is an exception is raised instead."""

    caller: socket.socket | None = None
    loop = None

    def __init__(self, *pieces: bytes | Exception, replayable: bool = False) -> None:
        self.pieces = pieces
        self.position = 0
        self.replayable = replayable

    @property
    def at_end(self) -> bool:
        return self.position == len(self.pieces)

    def keep(self) -> None:
        assert self.position == 0

    def rewind(self) -> None:
        self.position = 0

    def read(self) -> bytes:
        piece = self.pieces[self.position]
        self.position += 1
        if isinstance(piece, Exception):
            raise piece
        return piece


def request(
    to: ScriptedUpstream | int,
    method: bytes = b"GET",
    target: bytes = b"/",
    body: FakeBody | None = None,
    **changes: Any,
) -> Forward:
    """A request for an upstream or a port; a body is chunked, unless told otherwise."""
    port = to if isinstance(to, int) else to.address[1]
    secure = isinstance(to, ScriptedUpstream) and to.url.startswith("https")
    origin = Origin("https" if secure else "http", "127.0.0.1", port)
    fields = [(b"host", origin.authority)]
    if body is not None and changes.get("chunked", True):
        fields.append((b"transfer-encoding", b"chunked"))
    usual = {"keep": False, "again": False, "retry": method != b"POST", "timeouts": Timeouts(), "chunked": bool(body)}
    handle = FakeBody() if body is None else body
    values = {"origin": origin, "target": target, "fields": fields, "body": body, "handle": handle, **usual, **changes}
    return Forward(method=method, **values)


def read_all(answer: Response) -> bytes:
    """The whole body."""
    return b"".join(iter(answer.read, b""))


def until(condition: Callable[[], object]) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def doing(*steps: Callable[[Exchange], object]) -> Script:
    """A script of these steps."""

    def script(exchange: Exchange) -> None:
        for step in steps:
            step(exchange)

    return script


def sending(data: bytes) -> Script:
    """A step that sends."""
    return lambda exchange: exchange.send(data)


def waiting(event: threading.Event) -> Script:
    """A step that waits until the test sets the event."""
    return lambda exchange: exchange.wait(event)


def never(exchange: Exchange) -> None:
    """A step after which nothing comes."""
    exchange.wait(threading.Event())
