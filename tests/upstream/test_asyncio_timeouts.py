"""The asyncio engine against scripted upstreams: every time-out, and where there is none."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy_middleware._target import Origin
from proxy_middleware.errors import ConnectTimeout, HeadTimeout, PoolExhausted, ReadTimeout, WriteTimeout
from proxy_middleware.models import Timeouts
from proxy_middleware.upstream.asyncio import AsyncioUpstream
from tests.upstream.blocking import BIG, UNFINISHED, doing, never, request, sending, waiting
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


async def test_connect(engine: AsyncioUpstream, stalled_port: int) -> None:
    """A connection that nobody takes is an error, and gives its place back."""
    for _ in range(2):
        with pytest.raises(ConnectTimeout):
            await engine.send(request(stalled_port, timeouts=Timeouts(connect=0.1)))
    assert not taken(pool_of(engine))


async def test_handshake(engine: AsyncioUpstream) -> None:
    """A TLS handshake that nobody answers is an error."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        origin = Origin("https", "127.0.0.1", silent.getsockname()[1])
        with pytest.raises(ConnectTimeout):
            await engine.send(request(0, origin=origin, timeouts=Timeouts(connect=0.1)))
    assert not taken(pool_of(engine))


async def test_look_up(engine: AsyncioUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that does not come back is an error."""
    answer, real = threading.Event(), socket.getaddrinfo

    def hang(host: str, port: int, *, type: int, flags: int = 0) -> Any:  # noqa: A002
        if not flags:
            answer.wait(WAIT)
        return real(host, port, type=type, flags=flags)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        for _ in range(40):
            with pytest.raises(ConnectTimeout):
                await engine.send(request(0, origin=Origin("http", "localhost", 9), timeouts=Timeouts(connect=0.01)))
        # Whatever else the host runs in the loop's own threads goes on.
        assert await asyncio.wait_for(asyncio.to_thread(lambda: True), WAIT)
    finally:
        answer.set()
    assert not taken(pool_of(engine))


@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 2"], ids=["interim", "part"])
async def test_head(make_engine: MakeEngine, upstream: ScriptedUpstream, interim: bytes) -> None:
    """There is one deadline for the head; neither interim responses nor parts of it extend it."""
    engine, closed = make_engine(connections=1), threading.Event()

    @upstream.script
    def _(exchange: Exchange) -> None:
        for byte in interim * 7 if interim.endswith(b"\n") else interim + b"00 OK" + b"!" * 200:
            exchange.send(bytes([byte]))
            if exchange.wait_closed(0.02):
                closed.set()
                return

    with pytest.raises(HeadTimeout):
        await engine.send(request(upstream, timeouts=Timeouts(head=0.2)))
    assert not taken(pool_of(engine))
    await until(closed.is_set)


async def test_head_after_an_upload(engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
    """The deadline for the head begins with the last byte of the body."""
    go = asyncio.Event()
    upstream.script(doing(lambda exchange: exchange.read(None), never))
    body = FakeBody(b"one", go, b"two")
    asking = asyncio.create_task(engine.send(request(upstream, b"POST", body=body, timeouts=Timeouts(head=0.1))))
    await asyncio.sleep(0.3)
    assert not asking.done()
    go.set()
    with pytest.raises(HeadTimeout):
        await asking


async def test_read(engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
    """A response body that stands still is an error, after what had come has been read."""
    upstream.script(doing(sending(UNFINISHED), never))
    answer = await engine.send(request(upstream, timeouts=Timeouts(idle=0.1)))
    assert await answer.read() == b"ab"
    for _ in range(2):
        with pytest.raises(ReadTimeout):
            await answer.read()
    assert not taken(pool_of(engine))


async def test_slow_reader(engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
    """A caller that does not read is no fault of the upstream's."""
    upstream.answer(response(body=b"".join(BIG)))
    answer = await engine.send(request(upstream, timeouts=Timeouts(idle=0.1)))
    await asyncio.sleep(0.4)
    assert await read_all(answer) == b"".join(BIG)


async def test_events_may_be_far_apart(engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
    """An event stream may stand still for as long as it likes, and each event arrives by itself."""
    second = threading.Event()
    start = b"HTTP/1.1 200 OK\r\ncontent-TYPE: Text/Event-Stream; charset=utf-8\r\n\r\ndata: 1\n\n"
    upstream.script(doing(sending(start), waiting(second), sending(b"data: 2\n\n"), Exchange.close))
    answer = await engine.send(request(upstream, timeouts=Timeouts(idle=0.05)))
    assert await answer.read() == b"data: 1\n\n"
    await asyncio.sleep(0.2)
    second.set()
    assert await read_all(answer) == b"data: 2\n\n"


async def test_write(engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
    """A request body that the upstream does not take is an error."""
    upstream.script(never)
    body = FakeBody(*BIG)
    with pytest.raises(WriteTimeout):
        await engine.send(request(upstream, b"POST", body=body, timeouts=Timeouts(idle=0.2)))
    await until(lambda: not body.reading)
    assert not taken(pool_of(engine))


async def test_upload_counts_as_movement(engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
    """A response that has begun may wait for an upload that moves on."""
    pieces = [piece for number in range(6) for piece in (asyncio.Event(), b"%d" % number)]
    upstream.script(doing(sending(UNFINISHED), lambda exchange: exchange.read(None), sending(b"cd")))
    body = FakeBody(b"first", *pieces)
    answer = await engine.send(request(upstream, b"POST", body=body, timeouts=Timeouts(idle=0.4)))
    for event in pieces[::2]:
        await asyncio.sleep(0.1)
        assert isinstance(event, asyncio.Event)
        event.set()
    assert await read_all(answer) == b"abcd"


async def test_none_is_no_limit(make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
    """Where there is no limit, there is no timer."""
    engine, go = make_engine(connections=1), threading.Event()
    upstream.script(doing(lambda e: e.read(None), waiting(go), sending(UNFINISHED), waiting(go), sending(b"cd")))
    unlimited = Timeouts(None, None, None, None)
    asking = [
        asyncio.create_task(engine.send(request(upstream, b"POST", body=FakeBody(b"a", b"b"), timeouts=unlimited)))
        for _ in range(2)
    ]
    await until(lambda: upstream.requests)
    (connection,) = pool_of(engine)._open
    await until(lambda: connection._uploaded)
    assert connection._timer is None
    go.set()
    assert await read_all(await asking[0]) == b"abcd"
    assert await read_all(await asking[1]) == b"abcd"


async def test_pool(make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
    """Who waits for a place in vain holds none, and does not disturb who has one."""
    engine, go = make_engine(connections_per_origin=1), threading.Event()
    upstream.script(doing(waiting(go), sending(response(body=b"ok"))))
    first = asyncio.create_task(engine.send(request(upstream)))
    await until(lambda: upstream.requests)
    asking = [engine.send(request(upstream, timeouts=Timeouts(pool=0.05))) for _ in range(3)]
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [PoolExhausted] * 3
    go.set()
    assert await read_all(await first) == b"ok"
    assert taken(pool_of(engine)) == 1
