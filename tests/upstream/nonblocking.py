"""What the tests of the asyncio engine have in common; requests and scripts are those of the blocking engine's."""

import asyncio
import importlib.util
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy_middleware.models import EgressPolicy, Limits
from proxy_middleware.upstream.asyncio import AsyncioUpstream, Pool
from proxy_middleware.upstream.asyncio_connection import Response
from tests.upstream import blocking
from tests.upstreams import WAIT

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
]

MakeEngine = Callable[..., AsyncioUpstream]


@asynccontextmanager
async def making_engines() -> AsyncIterator[MakeEngine]:
    """Makes engines, closes them in the end, and sees to it that nothing is left of them: no task, no connection."""
    engines: list[AsyncioUpstream] = []

    def make(
        ssl_context: ssl.SSLContext | None = None, egress: EgressPolicy = blocking.LOOPBACK, **limits: Any
    ) -> AsyncioUpstream:
        engines.append(AsyncioUpstream(Limits(**limits), egress, ssl_context))
        return engines[-1]

    yield make
    pools = [pool for engine in engines for pool in engine._pools.values()]
    for engine in engines:
        await engine.aclose()
    await until(lambda: not tasks())
    await until(lambda: not any(map(taken, pools)))
    assert not any(pool._open for pool in pools)


class FakeBody(blocking.FakeBody):
    """A request body of these pieces; one that is an exception is raised instead, one that is an event waited for.

    As with the real one, an upload that was given up waits on for its piece, and whoever reads next waits for it.
    """

    def __init__(self, *pieces: bytes | Exception | asyncio.Event, replayable: bool = False) -> None:
        super().__init__(*pieces, replayable=replayable)  # type: ignore[arg-type]
        self.kept = 0
        self._turn = 0
        self._reader: asyncio.Task[Any] | None = None

    @property
    def reading(self) -> bool:
        """Whether somebody waits for a piece."""
        return self._reader is not None

    def keep(self) -> None:
        super().keep()
        self.kept += 1

    def rewind(self) -> None:
        self._turn += 1
        super().rewind()

    async def read(self) -> bytes:  # type: ignore[override]
        turn = self._turn
        if self._reader is not None:
            await asyncio.wait([self._reader])
        assert not self.reading
        self._reader = asyncio.current_task()
        try:
            while isinstance(event := self.pieces[self.position], asyncio.Event):
                await event.wait()
                self.position += self._turn == turn
            await asyncio.sleep(0)
            return super().read() if self._turn == turn else b""
        finally:
            self._reader = None

    def close(self) -> None:
        """The request is over."""
        if self._reader is not None:
            self._reader.cancel()


def pool_of(engine: AsyncioUpstream) -> Pool:
    """The engine's pool for the running event loop."""
    return engine._pool(asyncio.get_running_loop())


def taken(pool: Pool) -> int:
    """How many places are taken."""
    return pool._places._count


def tasks() -> list[asyncio.Task[Any]]:
    """All tasks but those that run the test."""
    return [task for task in asyncio.all_tasks() if "TestRunner." not in repr(task.get_coro())]


async def read_all(answer: Response) -> bytes:
    """The whole body."""
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    assert answer.at_end
    return b"".join(pieces)


async def until(condition: Callable[[], object], within: float = WAIT) -> None:
    """Waits until the condition holds, and lets the event loop run meanwhile."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
