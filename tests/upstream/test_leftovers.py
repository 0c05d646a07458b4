"""What is left of a connection once it has closed: nothing, also before the garbage collector comes."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from proxy_middleware.upstream import asyncio_connection, threads_connection
from tests.upstream import blocking, nonblocking
from tests.upstreams import ScriptedUpstream, response

# Where a response ends in an error, its traceback holds everything for a while.
CLOSING = {
    "asked to close": response(fields=((b"Connection", b"close"),), body=b"ok"),
    "until close": b"HTTP/1.1 200 OK\r\n\r\nok",
}


@pytest.fixture
def before() -> Iterator[list[object]]:
    """What is left of earlier tests, such as one that failed; from now on the garbage collector rests."""
    gc.collect()
    gc.disable()
    yield _alive()
    gc.enable()


@pytest.mark.anyio
@pytest.mark.parametrize("answer", CLOSING.values(), ids=CLOSING)
async def test_asyncio(upstream: ScriptedUpstream, answer: bytes, before: list[object]) -> None:
    """A closed connection of the asyncio engine is freed at once."""
    upstream.answer(answer)
    async with nonblocking.making_engines() as make:
        engine = make()
        assert await nonblocking.read_all(await engine.send(blocking.request(upstream))) == b"ok"
        await nonblocking.until(lambda: not nonblocking.pool_of(engine)._open)
        await asyncio.sleep(0)
        assert _alive() == before


@pytest.mark.parametrize("answer", CLOSING.values(), ids=CLOSING)
def test_threads(upstream: ScriptedUpstream, answer: bytes, before: list[object]) -> None:
    """A closed connection of the blocking engine is freed at once."""
    upstream.answer(answer)
    with blocking.making_engines() as make:
        engine = make()
        assert blocking.read_all(engine.send(blocking.request(upstream))) == b"ok"
        assert _alive() == before


def _alive() -> list[object]:
    kinds = asyncio_connection.Connection | threads_connection.Connection
    return [thing for thing in gc.get_objects() if isinstance(thing, kinds)]
