"""A transport that cancels whoever reads the request's body."""

import asyncio

import httpx
import pytest

from proxy_middleware import Connection, Proxy, StaticCredentials, StaticResolver, anyone
from tests.integration.test_uploads import PIECES, WHOLE, Caller, Renewing
from tests.upstream.nonblocking import until
from tests.upstreams import WAIT

pytestmark = pytest.mark.anyio


class Hasty(httpx.AsyncBaseTransport):
    """Answers the first request while its body is still coming, and reads the second one to its end."""

    def __init__(self) -> None:
        self.bodies: list[bytearray] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(body := bytearray())

        async def upload() -> None:
            assert isinstance(request.stream, httpx.AsyncByteStream)
            async for piece in request.stream:
                body.extend(piece)

        task = asyncio.create_task(upload())
        if len(self.bodies) == 1:
            await until(lambda: len(body) == 60_000)
            task.cancel()
            await asyncio.wait([task])
            return httpx.Response(401, content=b"expired")
        await task
        return httpx.Response(200, content=b"welcome")


async def test_reader_is_cancelled() -> None:
    """A transport may cancel its reader of the body: the piece that it waited for is sent at the second try."""
    transport, caller = Hasty(), Caller()
    proxy = Proxy(
        resolver=StaticResolver([Connection("crm", "https://crm.example")]),
        credentials=StaticCredentials({"crm": Renewing()}),
        authenticate=anyone,
        upstream=transport,
    )
    task = asyncio.create_task(caller.asks(proxy))
    caller.give(*PIECES[:2])
    await until(lambda: len(transport.bodies) == 2 and len(transport.bodies[1]) == 60_000)
    caller.give(*PIECES[2:], more=False)
    await asyncio.wait_for(task, WAIT)
    assert (caller.answer, bytes(transport.bodies[1])) == ((200, b"welcome", True), WHOLE)
