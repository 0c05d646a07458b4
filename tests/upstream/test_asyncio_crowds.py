"""The asyncio engine when much happens at once: crowds of waiters that leave together, several event loops."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from typing import Any

import pytest

from proxy_middleware.errors import PoolExhausted
from proxy_middleware.models import Limits, Timeouts
from proxy_middleware.upstream.asyncio import AsyncioUpstream, Pool
from proxy_middleware.upstream.asyncio_connection import Response
from tests.upstream.blocking import LOOPBACK, UNFINISHED, doing, never, request, sending
from tests.upstream.nonblocking import LOOPS, MakeEngine, making_engines, pool_of, read_all, taken, until
from tests.upstreams import WAIT, ScriptedUpstream, response

CROWD = 1000

LIMITS = pytest.mark.parametrize("limit", ["connections_per_origin", "connections"])


class TestCrowds:
    @pytest.fixture(params=LOOPS)
    def anyio_backend(self, request: pytest.FixtureRequest) -> Any:
        """Every event loop that servers use."""
        return request.param

    @pytest.fixture
    async def make_engine(self) -> AsyncIterator[MakeEngine]:
        """Makes engines that are closed in the end."""
        async with making_engines() as make:
            yield make

    @pytest.mark.anyio
    @LIMITS
    async def test_cancelled_together(self, make_engine: MakeEngine, upstream: ScriptedUpstream, limit: str) -> None:
        """Those who have a place and those who wait leave at the same time: no place is lost, all later are served."""
        engine = make_engine(**{limit: 5})
        upstream.route(b"/held", never)
        asking = [asyncio.create_task(engine.send(request(upstream, target=b"/held"))) for _ in range(CROWD)]
        await until(lambda: len(upstream.requests) == 5)
        for task in asking:
            task.cancel()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}
        assert not taken(pool_of(engine))
        assert not pool_of(engine)._places._wanted
        await check_all_served(engine, upstream, 5)

    @pytest.mark.anyio
    @LIMITS
    async def test_timed_out_as_a_place_comes_free(
        self, make_engine: MakeEngine, upstream: ScriptedUpstream, limit: str
    ) -> None:
        """All those who wait give up in the turn of the loop in which one of them is granted a place."""
        engine = make_engine(**{limit: 1})
        upstream.route(b"/held", doing(sending(UNFINISHED), never))
        held = await engine.send(request(upstream, target=b"/held"))
        hasty = request(upstream, timeouts=Timeouts(pool=0.2))
        asking = [asyncio.create_task(engine.send(hasty)) for _ in range(CROWD)]
        await asyncio.sleep(0)  # one turn of the loop: all of them begin to wait, and none can have given up
        assert len(pool_of(engine)._places._wanted) == CROWD
        time.sleep(0.3)  # noqa: ASYNC251 -- the loop is busy until all of them are due
        held.abort()
        results = await asyncio.gather(*asking, return_exceptions=True)
        late = [result for result in results if isinstance(result, PoolExhausted)]
        served = [result for result in results if isinstance(result, Response)]
        assert len(late) + len(served) == CROWD
        assert len(served) <= 1
        assert not pool_of(engine)._places._wanted
        await check_all_served(engine, upstream, 1)


async def check_all_served(engine: AsyncioUpstream, upstream: ScriptedUpstream, places: int) -> None:
    """Asserts that so many requests are served at the same time, over as many places."""
    together = threading.Barrier(places)
    upstream.route(b"/later", doing(lambda exchange: together.wait(WAIT) >= 0, sending(response(body=b"ok"))))
    answers = [engine.send(request(upstream, target=b"/later")) for _ in range(places)]
    for answer in await asyncio.wait_for(asyncio.gather(*answers), WAIT):
        assert await read_all(answer) == b"ok"
    assert taken(pool_of(engine)) == places


class Interleaved(AsyncioUpstream):
    """An engine whose other event loop, in another thread, gets in between any two steps."""

    between: Iterator[Pool | None] | None = None

    @property
    def _last(self) -> Pool | None:
        return next(self.between) if self.between else None

    @_last.setter
    def _last(self, pool: Pool | None) -> None:
        pass


class Ended:
    """An event loop that has ended; while one looks, other threads drop its pool, and add another's."""

    def __init__(self, pools: dict[Any, Any]) -> None:
        self.pools = pools
        pools[self] = "a pool"

    def is_closed(self) -> bool:
        del self.pools[self]
        self.pools["another event loop"] = "its pool"
        return True


class TestTwoLoops:
    def test_first_use(self, upstream: ScriptedUpstream) -> None:
        """Two event loops that use engines for the first time at the same moment each get their own connections."""
        engines = [AsyncioUpstream(Limits(), LOOPBACK, None) for _ in range(100)]
        start, results = threading.Barrier(2), list[bytes | Exception]()

        async def use(engine: AsyncioUpstream) -> bytes:
            assert pool_of(engine).loop is asyncio.get_running_loop()
            body = await read_all(await engine.send(request(upstream)))
            await engine.aclose()
            return body

        async def use_all() -> None:
            for engine in engines:
                start.wait(WAIT)
                try:
                    results.append(await asyncio.wait_for(use(engine), WAIT))
                except Exception as error:
                    results.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=asyncio.run, args=(use_all(),), daemon=True) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT)
        finally:
            sys.setswitchinterval(interval)
        assert results == [b"ok"] * 200

    def test_the_others_pool_is_not_taken(self) -> None:
        """Whatever another event loop has put there meanwhile, each gets its own pool, and always the same."""
        engine = Interleaved(Limits(), LOOPBACK, None)

        async def main() -> Pool:
            return pool_of(engine)

        with asyncio.Runner() as one, asyncio.Runner() as other:
            foreign = other.run(main())
            engine.between = cycle([foreign])
            own = one.run(main())
            for order in ([own, foreign], [foreign, own], [None, foreign], [own, None]):
                engine.between = cycle(order)
                assert [one.run(main()) for _ in order] == [own, own]
            assert (own.loop, foreign.loop) == (one.get_loop(), other.get_loop())

    def test_others_come_and_go(self) -> None:
        """Pools that other threads add and drop while those of ended event loops are dropped are no fault."""
        engine = AsyncioUpstream(Limits(), LOOPBACK, None)
        Ended(engine._pools)

        async def main() -> None:
            pool = pool_of(engine)
            assert list(engine._pools) == ["another event loop", pool.loop]

        asyncio.run(main())
