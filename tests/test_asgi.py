"""The ASGI door in this process: engines that close, disks that are full, callers that stall."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import FileIO
from typing import Any

import pytest

from proxy_middleware import Limits, Proxy, Replay, Timeouts, _spool
from proxy_middleware.errors import ResponseTruncated
from tests.in_process import Call, Message, proxy_to
from tests.upstream.blocking import doing, never
from tests.upstream.nonblocking import LOOPS, pool_of, taken, until
from tests.upstreams import WAIT, Exchange, ScriptedUpstream, response

pytestmark = pytest.mark.anyio

KIB = 1024


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Every event loop that servers use."""
    return request.param


@asynccontextmanager
async def open_proxy(upstream: ScriptedUpstream, **settings: Any) -> AsyncIterator[Proxy]:
    """A proxy that is closed in the end."""
    proxy = proxy_to(upstream, **settings)
    yield proxy
    await proxy.aclose()


async def test_closing_before_the_head(upstream: ScriptedUpstream) -> None:
    """Requests that wait for their head, or for a place, when the proxy is closed are a 502, whole."""
    upstream.script(never)
    async with open_proxy(upstream, limits=Limits(connections_per_origin=1)) as proxy:
        asking = [asyncio.create_task(Call("POST").through(proxy)) for _ in range(2)]
        await until(lambda: upstream.requests)
        await proxy.aclose()
        calls = await asyncio.wait_for(asyncio.gather(*asking), WAIT)
    assert [(call.statuses, call.ended) for call in calls] == [([502], True)] * 2
    assert upstream.connections == 1


async def test_full_disk(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that could not be kept for a second try, as the disk is full, is sent all the same."""
    monkeypatch.setattr(_spool, "TemporaryFile", lambda **_: FileIO("/dev/full", "w+"))
    upstream.script(doing(lambda exchange: exchange.body, lambda exchange: exchange.send(response())))
    async with open_proxy(upstream, replay=Replay(memory=64 * KIB)) as proxy:
        call = await Call("PUT", [b"x" * 50 * KIB] * 8).through(proxy)
    assert call.statuses == [200]
    assert upstream.requests[0].body == b"x" * 400 * KIB


class StalledCall(Call):
    """A request of a caller that takes one piece of the response, and then nothing."""

    stalls = 0

    async def send(self, message: Message) -> None:
        await super().send(message)
        if sum(len(each.get("body", b"")) for each in self.sent) > 64 * KIB:
            self.stalls += 1
            await asyncio.Event().wait()


async def test_caller_that_takes_nothing(upstream: ScriptedUpstream) -> None:
    """It gives the upstream's place up after `Timeouts.idle`, and its transfer is broken, not ended."""
    closed: list[bool] = []

    def flowing(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(64 * KIB):
                exchange.send(b"10000\r\n" + b"x" * 64 * KIB + b"\r\n")
        except ConnectionError:
            closed.append(True)
            raise

    upstream.script(flowing)
    limits, timeouts = Limits(connections_per_origin=1), Timeouts(idle=0.5)
    async with open_proxy(upstream, limits=limits, timeouts=timeouts) as proxy:
        stalled = StalledCall()
        with pytest.raises(ResponseTruncated):
            await asyncio.wait_for(stalled.through(proxy), WAIT)
        assert (stalled.statuses, stalled.ended, stalled.stalls) == ([200], False, 1)
        assert proxy._asyncio
        assert not taken(pool_of(proxy._asyncio))
        upstream.answer(response())
        assert (await Call().through(proxy)).statuses == [200]
    await until(lambda: closed)


async def test_caller_that_takes_nothing_and_is_cancelled(upstream: ScriptedUpstream) -> None:
    """A server that cancels such a request itself sees its own cancellation."""
    upstream.answer(response(body=b"x" * 1024 * KIB))
    async with open_proxy(upstream, timeouts=Timeouts(idle=60)) as proxy:
        stalled = StalledCall()
        asking = asyncio.create_task(stalled.through(proxy))
        await until(lambda: stalled.stalls)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert proxy._asyncio
        assert not taken(pool_of(proxy._asyncio))
