"""One ASGI door on several event loops: one after the other, beside one another, asyncio's and trio's."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import trio

from proxy_middleware import ASGIProxyMiddleware, Proxy, StaticCredentials, StaticResolver, anyone
from tests.in_process import Call, host, proxy_to
from tests.upstreams import WAIT, ScriptedUpstream, response


@pytest.fixture
def door(upstream: ScriptedUpstream) -> ASGIProxyMiddleware:
    """A door to an upstream that answers everything."""
    upstream.answer(response())
    return proxy_to(upstream).asgi(host)


async def ask(door: ASGIProxyMiddleware, count: int = 2) -> list[int]:
    """The statuses of so many requests, one after the other, with the pool closed in the end."""
    statuses = [status for _ in range(count) for status in (await Call().at(door)).statuses]
    await door.proxy.aclose()
    return statuses


@pytest.mark.parametrize("runs", [["asyncio", "asyncio"], ["asyncio", "trio", "asyncio"], ["trio", "asyncio", "trio"]])
def test_one_after_the_other(door: ASGIProxyMiddleware, runs: list[str]) -> None:
    """A door serves one event loop after another in the same thread, of either kind."""
    for run in runs:
        assert (trio.run(ask, door) if run == "trio" else asyncio.run(ask(door))) == [200, 200]


@pytest.mark.parametrize("kinds", [["asyncio"] * 4, ["asyncio", "trio"] * 2], ids=["asyncio", "both"])
def test_beside_one_another(door: ASGIProxyMiddleware, kinds: list[str]) -> None:
    """A door serves event loops in several threads at once, each with connections of its own."""
    start = Barrier(len(kinds), timeout=WAIT)

    async def together() -> list[int]:
        start.wait()
        return await ask(door, 20)

    with ThreadPoolExecutor(len(kinds)) as threads:
        runs = [
            threads.submit(trio.run, together) if kind == "trio" else threads.submit(asyncio.run, together())
            for kind in kinds
        ]
        assert [run.result(WAIT) for run in runs] == [[200] * 20] * len(kinds)


def test_loop_that_moves_to_another_thread(door: ASGIProxyMiddleware) -> None:
    """An event loop that goes on in another thread is served there, and the thread it left by its next loop."""
    moving = asyncio.new_event_loop()

    async def two() -> list[int]:
        return [status for _ in range(2) for status in (await Call().at(door)).statuses]

    assert moving.run_until_complete(two()) == [200, 200]
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(moving.run_until_complete, two()).result(WAIT) == [200, 200]
        assert asyncio.run(ask(door)) == [200, 200]
    moving.run_until_complete(door.proxy.aclose())
    moving.close()


def test_loops_that_begin_together() -> None:
    """Threads that enter and leave one event loop after another all the time do not disturb each other."""
    door = Proxy(resolver=StaticResolver([]), credentials=StaticCredentials({}), authenticate=anyone).asgi(host)

    def statuses() -> set[int]:
        return {status for _ in range(100) for status in asyncio.run(Call().at(door)).statuses}

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            runs = [threads.submit(statuses) for _ in range(8)]
            assert [run.result(60) for run in runs] == [{404}] * 8
    finally:
        sys.setswitchinterval(interval)
