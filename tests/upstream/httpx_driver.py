"""Drives httpx and httpx2 transports from one thread, on asyncio, on trio and blocking; and the requests for them."""

import gc
import threading
import time
from types import ModuleType
from typing import Any

import anyio
import anyio.to_thread

from proxy_middleware._steps import Forward
from proxy_middleware._target import Origin
from proxy_middleware.models import Timeouts
from proxy_middleware.upstream.httpx import AsyncTransportUpstream, TransportUpstream
from tests.upstreams import ScriptedUpstream


class FakeBody:
    """A caller's body: pieces, errors to raise and events to wait for."""

    def __init__(self, *script: bytes | Exception | threading.Event) -> None:
        self.script = script
        self.left = list(script)
        self.calls: list[str] = []

    @property
    def at_end(self) -> bool:
        return not self.left

    def keep(self) -> None:
        self.calls.append("keep")

    def rewind(self) -> None:
        self.calls.append("rewind")
        self.left = list(self.script)

    def read(self) -> bytes:
        step = self.left.pop(0)
        if isinstance(step, threading.Event):
            assert step.wait(10)
            step = self.left.pop(0)
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, bytes)
        return step


class AsyncFakeBody(FakeBody):
    async def read(self) -> bytes:  # type: ignore[override]
        return await anyio.to_thread.run_sync(super().read)


class Handle:
    """A response, called from the test's thread whatever its colour."""

    def __init__(self, call: Any, response: Any) -> None:
        self._call = call
        self._response = response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    def read(self) -> bytes:
        data: bytes = self._call(self._response.read)
        return data

    def abort(self) -> None:
        async def abort() -> None:
            self._response.abort()

        self._call(abort if hasattr(self._response, "aclose") else self._response.abort)

    def read_all(self) -> bytes:
        pieces = [self.read()]
        while not self._response.at_end:
            pieces.append(self.read())
        return b"".join(pieces)


class Driver:
    """Makes transports of one library and sends through them in one colour."""

    def __init__(self, library: ModuleType, call: Any) -> None:
        self.library = library
        self.blocking = call is None
        self.call = call or (lambda function, *args: function(*args))
        self.opened: list[Any] = []
        gc.freeze()  # `close` collects what comes from now on, and need not look at all the rest.

    def transport(self, **options: Any) -> Any:
        name = "HTTPTransport" if self.blocking else "AsyncHTTPTransport"
        self.opened.append(getattr(self.library, name)(**{"trust_env": False, "verify": False, **options}))
        return self.opened[-1]

    def upstream(self, transport: Any = None, **options: Any) -> Any:
        kind = TransportUpstream if self.blocking else AsyncTransportUpstream
        return kind(transport or self.transport(**options))

    def body(self, *script: Any) -> FakeBody:
        return FakeBody(*script) if self.blocking else AsyncFakeBody(*script)

    def mock(self, handler: Any) -> Any:
        return self.upstream(self.library.MockTransport(handler))

    def send(self, forward: Forward, upstream: Any = None) -> Handle:
        return Handle(self.call, self.call((upstream or self.upstream()).send, forward))

    def close(self) -> None:
        for transport in self.opened:
            self.call(transport.close if self.blocking else transport.aclose)
        # What an abandoned generator has to say must be said while its test runs.
        gc.collect()
        self.call(time.sleep if self.blocking else anyio.sleep, 0)


def forward_to(
    where: ScriptedUpstream | int,
    target: bytes = b"/",
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    body: FakeBody | None = None,
    timeouts: Timeouts | None = None,
    host: str = "127.0.0.1",
    scheme: str = "http",
    keep: bool = False,
    again: bool = False,
) -> Forward:
    """A request as the core makes it."""
    port = where if isinstance(where, int) else where.address[1]
    chunked = body is not None and not fields
    framing = [(b"transfer-encoding", b"chunked")] if chunked else []
    return Forward(
        origin=Origin(scheme, host, port),
        method=method,
        target=target,
        fields=[(b"host", b"api.example"), *fields, *framing],
        chunked=chunked,
        body=body,
        handle=body,
        keep=keep,
        again=again,
        retry=False,
        timeouts=timeouts or Timeouts(5, 5, 5, 5),
    )
