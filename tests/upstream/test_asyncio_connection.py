"""The asyncio engine against scripted upstreams: what happens on a connection."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from proxy_middleware.errors import (
    CallerLeft,
    ConnectionTerminated,
    PayloadTooLarge,
    ProtocolViolation,
    ResponseTruncated,
)
from proxy_middleware.models import Timeouts
from proxy_middleware.upstream.asyncio import AsyncioUpstream
from tests.upstream.blocking import BIG, PIECE, UNFINISHED, doing, never, request, sending, waiting
from tests.upstream.nonblocking import (
    LOOPS,
    FakeBody,
    MakeEngine,
    making_engines,
    pool_of,
    read_all,
    taken,
    tasks,
    until,
)
from tests.upstreams import WAIT, Exchange, ScriptedUpstream, response
from tests.wire import chunked

pytestmark = pytest.mark.anyio

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


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


class TestRequests:
    async def test_request_goes_out_as_it_is(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """Request line and fields are sent byte for byte, and status, reason, fields and body come back."""
        upstream.answer(response(207, ((b"X-A", b"1"), (b"X-A", b"2")), b"body", reason=b"Many things"))
        answer = await engine.send(request(upstream, b"get", b"/a%2Fb/../c?q"))
        assert (answer.status, answer.reason, await read_all(answer)) == (207, b"Many things", b"body")
        assert answer.fields == [(b"X-A", b"1"), (b"X-A", b"2"), (b"Content-Length", b"4")]
        assert not answer.retried
        port = upstream.address[1]
        assert upstream.requests[0].head == b"get /a%%2Fb/../c?q HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n\r\n" % port

    async def test_chunked_upload(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """Each piece of a body without a length is a chunk."""
        await engine.send(request(upstream, b"POST", body=FakeBody(b"one", b"three", b"")))
        assert upstream.requests[0].raw_body == chunked(b"one", b"three")

    async def test_large_upload_with_length(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """A body with a length arrives whole, however little the upstream takes at a time."""
        plain = request(upstream, b"PUT", body=FakeBody(*BIG), chunked=False)
        plain.fields.append((b"content-length", b"%d" % (len(BIG) * len(PIECE))))
        taken: list[int] = []
        upstream.script(doing(lambda exchange: taken.append(exchange.discard_body()), sending(response())))
        assert (await engine.send(plain)).status == 200
        assert taken == [len(BIG) * len(PIECE)]

    @pytest.mark.parametrize("error", [CallerLeft(), PayloadTooLarge()])
    async def test_body_that_fails(self, engine: AsyncioUpstream, upstream: ScriptedUpstream, error: Exception) -> None:
        """What the caller's body raises comes out, and the upstream gets no whole request."""
        with pytest.raises(type(error)):
            await engine.send(request(upstream, b"POST", body=FakeBody(b"one", error)))
        await until(lambda: upstream.requests)
        await until(upstream.requests[0]._ended.is_set)
        assert not upstream.requests[0].complete

    async def test_body_is_read_first(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """No connection is opened for a caller whose body fails at once."""
        with pytest.raises(CallerLeft):
            await engine.send(request(upstream, b"POST", body=FakeBody(CallerLeft())))
        assert upstream.connections == 0

    async def test_nothing_is_held_back(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """Small packets go out at once (TCP_NODELAY)."""
        upstream.script(doing(sending(UNFINISHED), never))
        await engine.send(request(upstream))
        (connection,) = pool_of(engine)._open
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class TestResponses:
    @pytest.mark.parametrize(
        ("answer", "body"),
        [
            (CHUNKED + chunked(b"one", b"two"), b"onetwo"),
            (UNTIL_CLOSE + b"to the end", b"to the end"),
            (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(body=b"final"), b"final"),
            (response(body=PIECE * 20), PIECE * 20),
            (CHUNKED + chunked(*[PIECE] * 20), PIECE * 20),
            (UNTIL_CLOSE + PIECE * 20, PIECE * 20),
            (response(body=b"ok", fields=((b"Connection", b"close"),)), b"ok"),
        ],
        ids=["chunked", "close-delimited", "interim", "large", "large, chunked", "large, close-delimited", "close"],
    )
    async def test_bodies(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream, answer: bytes, body: bytes
    ) -> None:
        """Bodies are whole, however they are delimited, and the next request is served, too."""
        upstream.answer(answer)
        for _ in range(2):
            assert await read_all(await engine.send(request(upstream))) == body

    @pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
    async def test_bodiless(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream, method: bytes, status: int
    ) -> None:
        """Responses that have no body end with their head, and leave the connection usable."""
        upstream.answer(b"HTTP/1.1 %d OK\r\nContent-Length: 5\r\n\r\n" % status)
        for _ in range(2):
            answer = await engine.send(request(upstream, method))
            assert (answer.status, answer.at_end, answer.ready, await answer.read()) == (status, True, True, b"")
        assert upstream.connections == 1

    @pytest.mark.parametrize("ending", [Exchange.close, Exchange.reset])
    @pytest.mark.parametrize("start", [UNFINISHED, CHUNKED + b"4\r\nab"], ids=["length", "chunked"])
    async def test_truncated(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream, start: bytes, ending: Callable[[Exchange], None]
    ) -> None:
        """A body that breaks off is an error, never an end, and stays one."""
        read = threading.Event()
        upstream.script(doing(sending(start), waiting(read), ending))
        answer = await engine.send(request(upstream))
        assert await answer.read() == b"ab"
        read.set()
        for _ in range(2):
            with pytest.raises(ResponseTruncated):
                await answer.read()
        assert not answer.at_end

    async def test_reset_close_delimited(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """A reset is no end of a body that the connection's end delimits."""
        read = threading.Event()
        upstream.script(doing(sending(UNTIL_CLOSE + b"ab"), waiting(read), Exchange.reset))
        answer = await engine.send(request(upstream))
        assert await answer.read() == b"ab"
        read.set()
        with pytest.raises(ResponseTruncated):
            await answer.read()

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + response(),
            response(fields=((b"X", b"y" * 5000),)),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nbody",
        ],
        ids=["garbage", "upgrade", "interim", "large", "coding"],
    )
    @pytest.mark.parametrize("method", [b"GET", b"HEAD"])
    async def test_violations(
        self, make_engine: MakeEngine, upstream: ScriptedUpstream, answer: bytes, method: bytes
    ) -> None:
        """What is no proper response is an error before there is a head, and its connection is closed."""
        closed: list[bool] = []
        upstream.script(doing(sending(answer), lambda exchange: closed.append(exchange.wait_closed(WAIT))))
        engine = make_engine(response_head=4096)
        with pytest.raises(ProtocolViolation):
            await engine.send(request(upstream, method))
        await until(lambda: closed == [True])
        assert not taken(pool_of(engine))

    async def test_violation_in_the_body(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """What came before bad framing can be read, and never has an end."""
        read = threading.Event()
        upstream.script(doing(sending(CHUNKED + b"2\r\nab\r\n"), waiting(read), sending(b"zz\r\n"), never))
        answer = await engine.send(request(upstream))
        assert await answer.read() == b"ab"
        read.set()
        with pytest.raises(ProtocolViolation):
            await answer.read()

    @pytest.mark.parametrize(
        "wordy",
        [b"2;x=" + b"y" * 300_000 + b"\r\nok\r\n0\r\n\r\n", b"2\r\nok\r\n0\r\nX: " + b"y" * 300_000 + b"\r\n\r\n"],
        ids=["extension", "trailer"],
    )
    async def test_framing_does_not_block(
        self, make_engine: MakeEngine, upstream: ScriptedUpstream, wordy: bytes
    ) -> None:
        """Chunk extensions and trailers larger than any buffer do not bring the response to a stand-still."""
        upstream.answer(CHUNKED + wordy)
        answer = await make_engine(response_head=1_000_000).send(request(upstream))
        assert await asyncio.wait_for(read_all(answer), WAIT / 4) == b"ok"

    async def test_abandoned(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """A response that is given up closes its connection, however often it is given up."""
        closed: list[bool] = []
        upstream.script(doing(sending(UNFINISHED), lambda exchange: closed.append(exchange.wait_closed(WAIT))))
        answer = await engine.send(request(upstream))
        answer.abort()
        await answer.aclose()
        await until(lambda: closed == [True])
        assert await answer.read() == b"ab"
        with pytest.raises(ResponseTruncated):
            await answer.read()

    async def test_given_up_after_the_end(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """Giving up a response that has arrived leaves its connection to others."""
        for _ in range(2):
            await (await engine.send(request(upstream))).aclose()
        assert upstream.connections == 1


class TestDuplex:
    async def test_echo(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """An upstream may answer while it is still being sent to, and each piece passes at once."""
        go = [asyncio.Event() for _ in range(3)]
        body = FakeBody(b"0", go[0], b"1", go[1], b"2", go[2], b"3")

        @upstream.script
        def _(exchange: Exchange) -> None:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            for number in range(1, 5):
                exchange.send(exchange.read(number)[-1:])

        answer = await engine.send(request(upstream, b"POST", body=body))
        for number, event in enumerate(go):
            assert await answer.read() == b"%d" % number
            event.set()
        assert await read_all(answer) == b"3"
        await engine.send(request(upstream, target=b"/next"))
        assert upstream.connections == 1

    async def test_large_echo(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """A large body flows both ways at the same time."""

        @upstream.script
        def _(exchange: Exchange) -> None:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(PIECE) * 32))
            for number in range(1, 33):
                exchange.read(number * len(PIECE))
                exchange.send(PIECE)

        answer = await engine.send(request(upstream, b"POST", body=FakeBody(*BIG[:32])))
        assert await read_all(answer) == PIECE * 32

    @pytest.mark.parametrize("ending", [Exchange.close, Exchange.reset])
    async def test_early_answer(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream, ending: Callable[[Exchange], None]
    ) -> None:
        """A complete answer ends the upload, and its connection is not used again."""
        arrived = threading.Event()
        refused = response(413, body=b"too large")
        upstream.script(doing(lambda exchange: exchange.read(10), sending(refused), waiting(arrived), ending))
        for _ in range(2):
            arrived.clear()
            body = FakeBody(*BIG)
            answer = await engine.send(request(upstream, b"POST", body=body))
            arrived.set()
            assert (answer.status, await read_all(answer), body.at_end) == (413, b"too large", False)
            await until(lambda: not tasks())
            assert not body.reading
        assert upstream.connections == 2

    async def test_early_answer_to_a_body_in_one_piece(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream
    ) -> None:
        """Nor is it where the caller's body has been read, but is not sent yet: the next request would be behind it."""
        read = threading.Event()
        upstream.route(b"/big", doing(sending(response(413)), waiting(read)))
        body = FakeBody(b"x" * 20_000_000)
        answer = await engine.send(request(upstream, b"POST", b"/big", body))
        assert (answer.status, body.at_end) == (413, True)
        answer = await engine.send(request(upstream, b"POST", timeouts=Timeouts(head=1)))
        assert await read_all(answer) == b"ok"
        assert upstream.connections == 2

    async def test_early_answer_until_close(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """An early answer that the connection's end delimits is whole, although the upload is stuck."""
        read = threading.Event()
        refused = b"HTTP/1.1 413 No\r\n\r\ntoo large"
        upstream.script(doing(sending(refused), lambda e: e.sock.shutdown(socket.SHUT_WR), waiting(read), never))
        answer = await engine.send(request(upstream, b"POST", body=FakeBody(*BIG)))
        assert await asyncio.wait_for(read_all(answer), WAIT / 4) == b"too large"

    async def test_upload_goes_on(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """An answer that has begun does not end the upload."""
        upstream.script(doing(sending(UNFINISHED), lambda exchange: exchange.body, sending(b"cd")))
        answer = await engine.send(request(upstream, b"POST", body=FakeBody(*BIG)))
        assert await read_all(answer) == b"abcd"
        assert upstream.requests[0].complete

    @pytest.mark.parametrize("error", [CallerLeft(), PayloadTooLarge()])
    async def test_body_fails_after_head(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream, error: Exception
    ) -> None:
        """What the caller's body raises after the head comes out of reading the response."""
        upstream.script(doing(sending(UNFINISHED), lambda exchange: exchange.wait_closed(WAIT)))
        go = asyncio.Event()
        answer = await engine.send(request(upstream, b"POST", body=FakeBody(b"one", go, error)))
        assert await answer.read() == b"ab"
        go.set()
        with pytest.raises(type(error)):
            await answer.read()
        assert not upstream.requests[0].complete


class TestStaleConnections:
    @pytest.fixture
    def dying(self, upstream: ScriptedUpstream) -> ScriptedUpstream:
        """An upstream whose first connection serves one request, and dies of the second."""

        @upstream.script
        def _(exchange: Exchange) -> None:
            if exchange.request.target != b"/unread":
                exchange.read(None)
            if exchange.connection_number == 1 and len(upstream.requests) > 1:
                exchange.send({b"/partial": b"HTTP/1.1 2"}.get(exchange.request.target, b""))
                exchange.close()
            else:
                exchange.send(response(body=exchange.body))

        return upstream

    @pytest.mark.parametrize("target", [b"/", b"/unread"])
    @pytest.mark.parametrize("pieces", [(), (b"one", b"two"), (b"one", *BIG)], ids=["none", "small", "large"])
    async def test_retried_once(
        self, engine: AsyncioUpstream, dying: ScriptedUpstream, pieces: tuple[bytes, ...], target: bytes
    ) -> None:
        """A request that met a dead connection is sent once more over a fresh one, its body from the start."""
        await engine.send(request(dying))
        body = FakeBody(*pieces, replayable=True) if pieces else None
        answer = await engine.send(request(dying, b"PUT", target, body=body, keep=True))
        assert (answer.status, answer.retried) == (200, True)
        assert await read_all(answer) == b"".join(pieces)
        assert dying.connections == 2
        assert body is None or body.kept == 1

    @pytest.mark.parametrize(
        "changes",
        [
            {"method": b"POST"},
            {"method": b"PUT", "body": FakeBody(b"once")},
            {"target": b"/partial"},
            {"retry": False},
        ],
        ids=["not idempotent", "body gone", "half answered", "retried before"],
    )
    async def test_not_retried(self, engine: AsyncioUpstream, dying: ScriptedUpstream, changes: dict[str, Any]) -> None:
        """A POST, a body that is gone, and a request that was answered, however little, are never sent twice."""
        await engine.send(request(dying))
        if "body" in changes:
            changes = {**changes, "body": FakeBody(b"once")}
        with pytest.raises(ConnectionTerminated):
            await engine.send(request(dying, **changes))
        assert len(dying.requests) == 2

    async def test_others_are_suspect(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """A retry trusts no other idle connection of the origin, and closes them all."""
        finish = threading.Event()
        upstream.route(b"/held", doing(sending(UNFINISHED), waiting(finish), sending(b"cd")))
        held = [await engine.send(request(upstream, target=b"/held")) for _ in range(3)]
        finish.set()
        assert [await read_all(answer) for answer in held] == [b"abcd"] * 3
        upstream.script(lambda each: each.close() if each.connection_number <= 3 else each.send(response()))
        assert (await engine.send(request(upstream))).retried
        assert len(upstream.requests) == 5
        assert taken(pool_of(engine)) == len(pool_of(engine)._open) == 1

    async def test_fresh_connection_is_not_retried(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """A fresh connection that closes is the upstream's answer to this request."""
        upstream.script(Exchange.close)
        with pytest.raises(ConnectionTerminated):
            await engine.send(request(upstream))
        assert len(upstream.requests) == 1
