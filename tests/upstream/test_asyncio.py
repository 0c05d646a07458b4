"""The asyncio engine against scripted upstreams: its pool, closing, cancellation, event loops and forks."""

import asyncio
import gc
import os
import select
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from proxy_middleware._target import Origin
from proxy_middleware.errors import PoolExhausted, ResponseTruncated
from proxy_middleware.models import Limits, Timeouts
from proxy_middleware.upstream.asyncio import AsyncioUpstream
from proxy_middleware.upstream.asyncio_connection import HIGH_WATER, READ_SIZE
from tests.upstream.blocking import BIG, LOOPBACK, UNFINISHED, doing, never, request, sending, waiting
from tests.upstream.nonblocking import LOOPS, FakeBody, MakeEngine, making_engines, pool_of, read_all, taken, until
from tests.upstreams import WAIT, Exchange, ScriptedUpstream, response

pytestmark = pytest.mark.anyio


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Every event loop that servers use."""
    return request.param


@pytest.fixture
async def make_engine() -> AsyncIterator[MakeEngine]:
    """Makes engines that are closed in the end."""
    async with making_engines() as make:
        yield make


@pytest.fixture
async def engine(make_engine: MakeEngine) -> AsyncioUpstream:
    """An engine with the usual limits."""
    return make_engine()


def closing(events: list[bool], start: bytes = b"") -> Callable[[Exchange], None]:
    """A script that sends this much, and notes when the connection is closed within a second."""
    return doing(sending(start), lambda exchange: events.append(exchange.wait_closed(1)))


class TestPool:
    async def test_keep_alive(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """One request after the other goes over one connection."""
        for _ in range(3):
            assert await read_all(await engine.send(request(upstream))) == b"ok"
        assert upstream.connections == 1

    async def test_last_in_first_out(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """The connection that was used last is reused first."""
        finish = [threading.Event(), threading.Event()]

        def half(exchange: Exchange) -> None:
            exchange.send(UNFINISHED)
            exchange.wait(finish[exchange.connection_number - 1])
            exchange.send(b"cd")

        upstream.route(b"/half", half)
        answers = [await engine.send(request(upstream, target=b"/half")) for _ in finish]
        for event, answer in reversed(list(zip(finish, answers, strict=True))):
            event.set()
            assert await read_all(answer) == b"abcd"
        await engine.send(request(upstream))
        assert upstream.requests[-1].connection_number == 1

    @pytest.mark.parametrize("limits", [{"connections_per_origin": 1}, {"connections": 1}])
    async def test_full_pool(self, make_engine: MakeEngine, upstream: ScriptedUpstream, limits: dict[str, int]) -> None:
        """Who gets no connection within the time-out gets an error, and the next one is served."""
        engine = make_engine(**limits)
        upstream.script(doing(sending(UNFINISHED), never))
        held = await engine.send(request(upstream))
        with pytest.raises(PoolExhausted):
            await engine.send(request(upstream, timeouts=Timeouts(pool=0.05)))
        await held.aclose()
        await (await engine.send(request(upstream))).aclose()

    @pytest.mark.parametrize("limits", [{"connections_per_origin": 2}, {"connections": 2}])
    async def test_many_callers(
        self, make_engine: MakeEngine, upstream: ScriptedUpstream, limits: dict[str, int]
    ) -> None:
        """All callers get their own answers over the few connections there may be, which they hand on."""
        engine = make_engine(**limits)
        upstream.script(lambda exchange: exchange.send(response(body=exchange.request.target)))

        async def ask(number: int) -> bytes:
            return await read_all(await engine.send(request(upstream, target=b"/%d" % number)))

        assert await asyncio.gather(*map(ask, range(100))) == [b"/%d" % number for number in range(100)]
        assert upstream.connections == 2

    async def test_total_limit_evicts_idle(self, make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
        """An idle connection gives way to one for another origin."""
        engine = make_engine(connections=1)
        with ScriptedUpstream() as other:
            for one in (upstream, other, upstream):
                assert (await engine.send(request(one))).status == 200
            assert upstream.connections == 2
            await engine.aclose()

    async def test_fair_waiting(self, make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
        """Those who wait for a connection get it in the order in which they came."""
        engine = make_engine(connections_per_origin=1)
        finish = threading.Event()
        upstream.route(b"/held", doing(waiting(finish), sending(response())))
        targets = [b"/held", *(b"/%d" % number for number in range(5))]
        asking = [asyncio.create_task(engine.send(request(upstream, target=target))) for target in targets]
        await until(lambda: upstream.requests)
        finish.set()
        assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
        assert [each.target for each in upstream.requests] == targets
        assert upstream.connections == 1

    @pytest.mark.parametrize("limit", [1, 2])
    async def test_nobody_is_forgotten(self, make_engine: MakeEngine, upstream: ScriptedUpstream, limit: int) -> None:
        """Callers of several origins that share too few places are all served."""
        engine = make_engine(connections=limit, connections_per_origin=1)
        with ScriptedUpstream() as other, ScriptedUpstream() as third:
            asking = [engine.send(request(each)) for each in (upstream, other, upstream, third, other, upstream) * 5]
            answers = await asyncio.wait_for(asyncio.gather(*asking), WAIT / 2)
            assert {answer.status for answer in answers} == {200}
            await engine.aclose()

    async def test_keepalive_expires(self, make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
        """A connection that was idle for too long is closed by itself."""
        engine = make_engine(keepalive=0.05)
        closed: list[bool] = []
        upstream.script(closing(closed, response()))
        await engine.send(request(upstream))
        await until(lambda: closed == [True])
        assert not taken(pool_of(engine))

    @pytest.mark.parametrize("ending", [lambda e: e.send(response(body=b"poison")), Exchange.close, Exchange.reset])
    async def test_idle_connection_stirs(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream, ending: Callable[[Exchange], None]
    ) -> None:
        """An idle connection that received bytes, or its end, is never used again, not even for a POST."""
        go = threading.Event()
        upstream.route(b"/first", doing(sending(response()), waiting(go), ending))
        await engine.send(request(upstream, target=b"/first"))
        go.set()
        await until(lambda: not taken(pool_of(engine)))
        answer = await engine.send(request(upstream, b"POST"))
        assert (await read_all(answer), answer.retried) == (b"ok", False)
        assert upstream.connections == 2

    async def test_idle_connection_stirs_unseen(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """Nor is it while the loop, which was busy, has not seen yet what has arrived."""
        go = threading.Event()
        poison = sending(response(body=b"poison"))
        upstream.route(b"/first", doing(sending(response()), waiting(go), poison))
        await engine.send(request(upstream, target=b"/first"))
        (connection,) = pool_of(engine)._places.idle()
        go.set()
        assert select.select([connection._transport.get_extra_info("socket")], [], [], WAIT)[0]
        assert await read_all(await engine.send(request(upstream, b"POST"))) == b"ok"
        assert upstream.connections == 2


class TestCancellation:
    async def test_waiting_for_the_body(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """A caller that leaves before its body has begun costs no connection."""
        asking = asyncio.create_task(engine.send(request(upstream, b"POST", body=FakeBody(asyncio.Event(), b"one"))))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert upstream.connections == 0

    async def test_connecting(self, engine: AsyncioUpstream, stalled_port: int) -> None:
        """A caller that leaves while a connection is being opened gives the place back."""
        asking = asyncio.create_task(engine.send(request(stalled_port)))
        await until(lambda: taken(pool_of(engine)))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not taken(pool_of(engine))

    async def test_handshaking(self, engine: AsyncioUpstream) -> None:
        """A caller that leaves during the TLS handshake closes the connection."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.setblocking(False)
            origin = Origin("https", "127.0.0.1", silent.getsockname()[1])
            asking = asyncio.create_task(engine.send(request(0, origin=origin)))
            accepted, _ = await asyncio.get_running_loop().sock_accept(silent)
            with accepted:
                await asyncio.get_running_loop().sock_recv(accepted, 1)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                assert not taken(pool_of(engine))
                async with asyncio.timeout(1):
                    while await asyncio.get_running_loop().sock_recv(accepted, 65536):
                        pass

    @pytest.mark.parametrize("limits", [{"connections_per_origin": 1}, {"connections": 1}])
    @pytest.mark.parametrize("late", [False, True], ids=["before", "just granted"])
    async def test_waiting_for_a_place(
        self, make_engine: MakeEngine, upstream: ScriptedUpstream, limits: dict[str, int], late: bool
    ) -> None:
        """A caller that leaves while it waits for a place leaves it to the next, also when it had just got it."""
        engine = make_engine(**limits)
        upstream.route(b"/held", doing(sending(UNFINISHED), never))
        held = await engine.send(request(upstream, target=b"/held"))
        leaving, staying = (asyncio.create_task(engine.send(request(upstream))) for _ in range(2))
        await asyncio.sleep(0.01)
        if late:
            held.abort()
        leaving.cancel()
        if not late:
            await asyncio.wait([leaving])
            held.abort()
        assert (await asyncio.wait_for(staying, WAIT)).status == 200
        assert leaving.cancelled()
        assert taken(pool_of(engine)) == 1

    @pytest.mark.parametrize("upload", [False, True])
    async def test_waiting_for_the_head(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream, upload: bool
    ) -> None:
        """A caller that leaves while the upstream thinks closes the upstream's connection."""
        closed: list[bool] = []
        upstream.script(closing(closed))
        body = FakeBody(b"one", asyncio.Event(), b"two") if upload else None
        asking = asyncio.create_task(engine.send(request(upstream, b"POST", body=body)))
        await until(lambda: upstream.requests)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not taken(pool_of(engine))
        await until(lambda: closed == [True])
        if body is not None:
            # Who ends the request, ends the waiting for its body.
            assert body.reading
            body.close()

    async def test_reading(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """A reader that is cancelled loses nothing; once the response is given up, the connection is closed."""
        go, closed = threading.Event(), list[bool]()
        upstream.script(doing(sending(UNFINISHED), waiting(go), closing(closed, b"c")))
        answer = await engine.send(request(upstream))
        assert await answer.read() == b"ab"
        reading = asyncio.create_task(answer.read())
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading])
        go.set()
        assert await answer.read() == b"c"
        await answer.aclose()
        assert not taken(pool_of(engine))
        await until(lambda: closed == [True])


class TestClosing:
    async def test_breaks_responses_off(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """Closing the engine breaks a response off visibly, even one that the connection's end delimits."""
        upstream.script(doing(sending(b"HTTP/1.1 200 OK\r\n\r\nab"), never))
        body = FakeBody(b"one", asyncio.Event(), b"two")
        answer = await engine.send(request(upstream, b"POST", body=body))
        assert await answer.read() == b"ab"
        reading = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        await engine.aclose()
        with pytest.raises(ResponseTruncated):
            await reading
        body.close()

    async def test_leaves_nothing_open(self, make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
        """Requests that are under way or waiting when the engine is closed end, and leave no connection behind."""
        engine, closed = make_engine(connections_per_origin=1), list[bool]()
        upstream.script(closing(closed, b""))
        asking = [asyncio.create_task(engine.send(request(upstream))) for _ in range(3)]
        await until(lambda: upstream.requests)
        pool = pool_of(engine)
        await engine.aclose()
        await asyncio.wait(asking, timeout=WAIT / 4)
        assert all(task.done() and task.exception() for task in asking)
        await until(lambda: not taken(pool))
        assert upstream.connections == 1

    async def test_works_again(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """An engine that was closed opens new connections."""
        for _ in range(2):
            assert (await engine.send(request(upstream))).status == 200
            await engine.aclose()
        assert upstream.connections == 2


async def ask(engine: AsyncioUpstream, upstream: ScriptedUpstream, target: bytes = b"/") -> bytes:
    """What the upstream answers."""
    return await read_all(await engine.send(request(upstream, target=target)))


class TestEventLoops:
    @pytest.fixture
    def anyio_backend(self) -> str:
        """These run event loops of their own."""
        return "asyncio"

    def test_each_has_its_own(self, upstream: ScriptedUpstream) -> None:
        """Event loops of one process share an engine, and no connection."""
        engine = AsyncioUpstream(Limits(), LOOPBACK, None)
        with asyncio.Runner() as one, asyncio.Runner() as other:
            for runner in (one, other, one, other):
                assert runner.run(ask(engine, upstream)) == b"ok"
            assert [each.connection_number for each in upstream.requests] == [1, 2, 1, 2]
            one.run(engine.aclose())
            assert other.run(ask(engine, upstream)) == b"ok"
            other.run(engine.aclose())
        assert upstream.connections == 2

    def test_none_is_kept(self, upstream: ScriptedUpstream) -> None:
        """An engine keeps no event loop alive that has been closed."""
        engine = AsyncioUpstream(Limits(), LOOPBACK, None)
        with asyncio.Runner() as runner:
            runner.run(ask(engine, upstream))
            loop = weakref.ref(runner.get_loop())
            # The pool stays; its connections do not, so that none is left for the collector to complain about.
            engine._pools[runner.get_loop()].close()
            runner.run(asyncio.sleep(0))
        with asyncio.Runner() as runner:
            runner.run(ask(engine, upstream))
            runner.run(engine.aclose())
        gc.collect()
        assert loop() is None

    # From Python 3.12 on, forking beside threads is warned of; servers do it all the same.
    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
    def test_fork(self, upstream: ScriptedUpstream) -> None:
        """A child shares no connection with its parent, whose connections live on."""
        engine = AsyncioUpstream(Limits(), LOOPBACK, None)
        upstream.script(lambda exchange: exchange.send(response(body=exchange.request.target)))
        with asyncio.Runner() as runner:
            runner.run(ask(engine, upstream, b"/parent"))
            child = os.fork()
            if not child:
                try:
                    os._exit(0 if asyncio.run(ask(engine, upstream, b"/child")) == b"/child" else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert runner.run(ask(engine, upstream, b"/parent")) == b"/parent"
            runner.run(engine.aclose())
        numbers = [(each.target, each.connection_number) for each in upstream.requests]
        assert numbers == [(b"/parent", 1), (b"/child", 2), (b"/parent", 1)]


async def test_memory_is_flat(engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
    """An upstream that sends more than anybody reads is held up."""
    sent = 0

    @upstream.script
    def _(exchange: Exchange) -> None:
        nonlocal sent
        exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
        for piece in BIG * 4:
            exchange.send(piece)
            sent += len(piece)
        exchange.close()

    answer = await engine.send(request(upstream))
    await until(lambda: answer._buffered)
    await asyncio.sleep(0.3)
    assert sum(map(len, answer.chunks)) <= HIGH_WATER + READ_SIZE
    assert sent < 16 * 1024 * 1024
    assert len(await read_all(answer)) == 64 * 1024 * 1024


async def test_slow_upstream_holds_the_caller_up(engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
    """A body is read no faster than the upstream takes it."""
    go, body = threading.Event(), FakeBody(*BIG * 4)
    upstream.script(doing(waiting(go), lambda exchange: exchange.discard_body(), sending(response())))
    asking = asyncio.create_task(engine.send(request(upstream, b"POST", body=body)))
    await until(lambda: body.position)
    await asyncio.sleep(0.3)
    assert body.position * 65536 < 16 * 1024 * 1024
    go.set()
    assert (await asking).status == 200
    assert body.at_end
