"""The blocking engine against scripted upstreams: what happens on a connection."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy_middleware.errors import (
    CallerLeft,
    ConnectionTerminated,
    HeadTimeout,
    PayloadTooLarge,
    ProtocolViolation,
    ReadTimeout,
    ResponseTruncated,
    WriteTimeout,
)
from proxy_middleware.models import Timeouts
from proxy_middleware.upstream.threads import ThreadsUpstream
from tests.upstream.blocking import (
    BIG,
    PIECE,
    UNFINISHED,
    FakeBody,
    MakeEngine,
    doing,
    making_engines,
    never,
    read_all,
    request,
    sending,
    until,
    waiting,
)
from tests.upstreams import WAIT, Exchange, ScriptedUpstream, response
from tests.wire import chunked


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Makes engines that are closed in the end."""
    with making_engines() as make:
        yield make


@pytest.fixture
def engine(make_engine: MakeEngine) -> ThreadsUpstream:
    """An engine with the usual limits."""
    return make_engine()


class TestRequests:
    def test_request_goes_out_as_it_is(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """Request line and fields are sent byte for byte, and status, reason, fields and body come back."""
        upstream.answer(response(207, ((b"X-A", b"1"), (b"X-A", b"2")), b"body", reason=b"Many things"))
        answer = engine.send(request(upstream, b"get", b"/a%2Fb/../c?q"))
        assert (answer.status, answer.reason, read_all(answer)) == (207, b"Many things", b"body")
        assert answer.fields == [(b"X-A", b"1"), (b"X-A", b"2"), (b"Content-Length", b"4")]
        assert answer.at_end
        assert not answer.retried
        port = upstream.address[1]
        assert upstream.requests[0].head == b"get /a%%2Fb/../c?q HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n\r\n" % port

    def test_chunked_upload(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """Each piece of a body without a length is a chunk."""
        engine.send(request(upstream, b"POST", body=FakeBody(b"one", b"three", b"")))
        assert upstream.requests[0].raw_body == chunked(b"one", b"three")

    def test_large_upload_with_length(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """A body with a length arrives whole, however little the upstream takes at a time."""
        plain = request(upstream, b"PUT", body=FakeBody(*BIG), chunked=False)
        plain.fields.append((b"content-length", b"%d" % (len(BIG) * len(PIECE))))
        taken: list[int] = []

        @upstream.script
        def _(exchange: Exchange) -> None:
            taken.append(exchange.discard_body())
            exchange.send(response())

        assert engine.send(plain).status == 200
        assert taken == [len(BIG) * len(PIECE)]

    @pytest.mark.parametrize("error", [CallerLeft(), PayloadTooLarge()])
    def test_body_that_fails(self, engine: ThreadsUpstream, upstream: ScriptedUpstream, error: Exception) -> None:
        """What the caller's body raises comes out, and the upstream gets no whole request."""
        with pytest.raises(type(error)):
            engine.send(request(upstream, b"POST", body=FakeBody(b"one", error)))
        assert not upstream.wait_for_requests(1)[0].wait_ended()

    def test_body_is_read_first(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """No connection is opened for a caller whose body fails at once."""
        with pytest.raises(CallerLeft):
            engine.send(request(upstream, b"POST", body=FakeBody(CallerLeft())))
        assert upstream.connections == 0


class TestResponses:
    @pytest.mark.parametrize(
        ("answer", "body"),
        [
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"one", b"two"), b"onetwo"),
            (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
            (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(body=b"final"), b"final"),
            (response(body=PIECE * 20), PIECE * 20),
            (response(body=b"ok", fields=((b"Connection", b"close"),)), b"ok"),
        ],
        ids=["chunked", "close-delimited", "interim", "large", "close"],
    )
    def test_bodies(self, engine: ThreadsUpstream, upstream: ScriptedUpstream, answer: bytes, body: bytes) -> None:
        """Bodies are whole, however they are delimited, and the next request is served, too."""
        upstream.answer(answer)
        for _ in range(2):
            assert read_all(engine.send(request(upstream))) == body

    @pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
    def test_bodiless(self, engine: ThreadsUpstream, upstream: ScriptedUpstream, method: bytes, status: int) -> None:
        """Responses that have no body end with their head, and leave the connection usable."""
        upstream.answer(b"HTTP/1.1 %d OK\r\nContent-Length: 5\r\n\r\n" % status)
        for _ in range(2):
            answer = engine.send(request(upstream, method))
            assert (answer.status, answer.at_end, answer.read()) == (status, True, b"")
        assert upstream.connections == 1

    @pytest.mark.parametrize("ending", [Exchange.close, Exchange.reset])
    @pytest.mark.parametrize("start", [UNFINISHED, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab"])
    def test_truncated(
        self, engine: ThreadsUpstream, upstream: ScriptedUpstream, start: bytes, ending: Callable[[Exchange], None]
    ) -> None:
        """A body that breaks off is an error, never an end, and stays one."""
        read = threading.Event()
        upstream.script(doing(sending(start), waiting(read), ending))
        answer = engine.send(request(upstream))
        assert answer.read() == b"ab"
        read.set()
        for _ in range(2):
            with pytest.raises(ResponseTruncated):
                answer.read()
        assert not answer.at_end

    def test_reset_close_delimited(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """A reset is no end of a body that the connection's end delimits."""
        read = threading.Event()
        start = b"HTTP/1.1 200 OK\r\n\r\nab"
        upstream.script(doing(sending(start), waiting(read), Exchange.reset))
        answer = engine.send(request(upstream))
        assert answer.read() == b"ab"
        read.set()
        with pytest.raises(ResponseTruncated):
            answer.read()

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + response(),
            response(fields=((b"X", b"y" * 5000),)),
        ],
        ids=["garbage", "upgrade", "interim", "large"],
    )
    def test_violations(self, make_engine: MakeEngine, upstream: ScriptedUpstream, answer: bytes) -> None:
        """What is no proper response is an error, and its connection is closed."""
        closed = []
        upstream.script(doing(sending(answer), lambda exchange: closed.append(exchange.wait_closed(WAIT))))
        with pytest.raises(ProtocolViolation):
            make_engine(response_head=4096).send(request(upstream))
        until(lambda: closed == [True])

    def test_abandoned(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """A response that is given up closes its connection, however often it is given up."""
        closed = []
        upstream.script(doing(sending(UNFINISHED), lambda exchange: closed.append(exchange.wait_closed(WAIT))))
        answer = engine.send(request(upstream))
        answer.abort()
        answer.close()
        until(lambda: closed == [True])
        with pytest.raises(ResponseTruncated):
            read_all(answer)


class TestDuplex:
    def test_echo(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """An upstream may answer while it is still being sent to."""
        pieces = BIG[:32]

        @upstream.script
        def _(exchange: Exchange) -> None:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % sum(map(len, pieces)))
            for number, piece in enumerate(pieces, 1):
                exchange.read(number * len(piece))
                exchange.send(piece)

        answer = engine.send(request(upstream, b"POST", body=FakeBody(*pieces)))
        assert read_all(answer) == b"".join(pieces)

    @pytest.mark.parametrize("ending", [Exchange.close, Exchange.reset])
    def test_early_answer(
        self, engine: ThreadsUpstream, upstream: ScriptedUpstream, ending: Callable[[Exchange], None]
    ) -> None:
        """A complete answer ends the upload, and its connection is not used again."""
        refused = response(413, body=b"too large")
        upstream.script(doing(lambda exchange: exchange.read(10), sending(refused), ending))
        for _ in range(2):
            body = FakeBody(*BIG)
            answer = engine.send(request(upstream, b"POST", body=body))
            assert (answer.status, read_all(answer), body.at_end) == (413, b"too large", False)
        assert upstream.connections == 2

    def test_upstream_stops_reading(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """A response that has begun goes on where the upstream takes nothing more of the request."""
        reading = threading.Event()

        @upstream.script
        def _(exchange: Exchange) -> None:
            exchange.send(UNFINISHED)
            exchange.wait(reading)
            exchange.send(b"cd")
            exchange.reset()

        answer = engine.send(request(upstream, b"POST", body=FakeBody(*BIG)))
        assert answer.read() == b"ab"
        reading.set()
        assert read_all(answer) == b"cd"

    def test_body_fails_after_head(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """What the caller's body raises after the head comes out of reading the response."""
        upstream.script(doing(sending(UNFINISHED), lambda exchange: exchange.wait_closed(WAIT)))
        body = FakeBody(b"one", *BIG, CallerLeft())
        answer = engine.send(request(upstream, b"POST", body=body))
        with pytest.raises(CallerLeft):
            read_all(answer)


class TestStaleConnections:
    @pytest.fixture
    def dying(self, upstream: ScriptedUpstream) -> ScriptedUpstream:
        """An upstream whose first connection serves one request, and dies of the second."""

        @upstream.script
        def _(exchange: Exchange) -> None:
            exchange.read(None)
            if exchange.connection_number == 1 and len(upstream.requests) > 1:
                exchange.send({b"/partial": b"HTTP/1.1 2", b"/": b""}[exchange.request.target])
                exchange.close()
            else:
                exchange.send(response(body=exchange.body))

        return upstream

    @pytest.mark.parametrize("body", [None, FakeBody(b"one", b"two", replayable=True)])
    def test_retried_once(self, engine: ThreadsUpstream, dying: ScriptedUpstream, body: FakeBody | None) -> None:
        """A request that met a dead connection is sent once more over a fresh one, its body from the start."""
        engine.send(request(dying))
        answer = engine.send(request(dying, b"PUT", body=body, keep=True))
        assert (answer.status, answer.retried) == (200, True)
        assert read_all(answer) == (b"onetwo" if body else b"")
        assert dying.connections == 2

    @pytest.mark.parametrize(
        "changes",
        [{"method": b"POST"}, {"method": b"PUT", "body": FakeBody(b"once")}, {"target": b"/partial"}],
        ids=["not idempotent", "body gone", "half answered"],
    )
    def test_not_retried(self, engine: ThreadsUpstream, dying: ScriptedUpstream, changes: dict[str, Any]) -> None:
        """A POST, a body that is gone, and a request that was answered, however little, are never sent twice."""
        engine.send(request(dying))
        with pytest.raises(ConnectionTerminated):
            engine.send(request(dying, **changes))
        assert len(dying.requests) == 2

    def test_others_are_suspect(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """A retry trusts no other idle connection of the origin, and closes them all."""
        finish = threading.Event()
        upstream.route(b"/held", doing(sending(UNFINISHED), waiting(finish), sending(b"cd")))
        held = [engine.send(request(upstream, target=b"/held")) for _ in range(3)]
        finish.set()
        assert [read_all(answer) for answer in held] == [b"abcd"] * 3
        upstream.script(
            lambda exchange: exchange.close() if exchange.connection_number <= 3 else exchange.send(response())
        )
        assert engine.send(request(upstream)).retried
        assert len(upstream.requests) == 5
        assert len(engine._pool._open) == 1

    def test_fresh_connection_is_not_retried(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """A fresh connection that closes is the upstream's answer to this request."""
        upstream.script(Exchange.close)
        with pytest.raises(ConnectionTerminated):
            engine.send(request(upstream))
        assert len(upstream.requests) == 1


class TestTimeouts:
    def test_head(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """Interim responses do not extend the deadline for the head."""
        closed = threading.Event()

        @upstream.script
        def _(exchange: Exchange) -> None:
            while not exchange.wait_closed(0.05):
                exchange.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            closed.set()

        with pytest.raises(HeadTimeout):
            engine.send(request(upstream, timeouts=Timeouts(head=0.2)))
        assert closed.wait(WAIT)

    def test_read(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """A response body that stands still is an error."""
        upstream.script(doing(sending(UNFINISHED), never))
        answer = engine.send(request(upstream, timeouts=Timeouts(idle=0.1)))
        with pytest.raises(ReadTimeout):
            read_all(answer)

    def test_events_may_be_far_apart(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """An event stream may stand still for as long as it likes, and each event arrives by itself."""
        second = threading.Event()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

        @upstream.script
        def _(exchange: Exchange) -> None:
            exchange.send(head + b"data: 1\n\n")
            exchange.wait(second)
            exchange.send(b"data: 2\n\n")
            exchange.close()

        answer = engine.send(request(upstream, timeouts=Timeouts(idle=0.05)))
        assert answer.read() == b"data: 1\n\n"
        timer = threading.Timer(0.2, second.set)
        timer.start()
        assert read_all(answer) == b"data: 2\n\n"
        timer.join()

    def test_write(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """A request body that the upstream does not take is an error."""
        upstream.script(never)
        with pytest.raises(WriteTimeout):
            engine.send(request(upstream, b"POST", body=FakeBody(*BIG), timeouts=Timeouts(idle=0.2)))


class TestCaller:
    @pytest.fixture
    def caller(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """The server's end of the caller's connection, and the caller's."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield ours, theirs

    @pytest.mark.parametrize("start", [b"", UNFINISHED], ids=["before the head", "in the body"])
    @pytest.mark.parametrize("rudely", [False, True], ids=["end", "reset"])
    def test_leaves(
        self,
        engine: ThreadsUpstream,
        upstream: ScriptedUpstream,
        caller: tuple[socket.socket, socket.socket],
        start: bytes,
        rudely: bool,
    ) -> None:
        """When the caller leaves, the upstream connection is closed."""
        closed = threading.Event()
        ours, theirs = caller

        @upstream.script
        def _(exchange: Exchange) -> None:
            exchange.send(start)
            if rudely:
                ours.sendall(b"unread, so that closing resets")
            theirs.close()
            if exchange.wait_closed(WAIT):
                closed.set()

        handle = FakeBody()
        handle.caller = ours
        with pytest.raises(CallerLeft):
            read_all(engine.send(request(upstream, handle=handle)))
        assert closed.wait(WAIT)

    def test_pipelines(
        self, engine: ThreadsUpstream, upstream: ScriptedUpstream, caller: tuple[socket.socket, socket.socket]
    ) -> None:
        """A caller that has sent its next request already is still there, also as the one that a body knows."""
        finish = threading.Event()
        upstream.script(doing(lambda exchange: exchange.read(None), waiting(finish), sending(response())))
        body = FakeBody(b"one")
        body.caller, theirs = caller
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        timer = threading.Timer(0.5, finish.set)
        timer.start()
        assert engine.send(request(upstream, b"POST", body=body)).status == 200
        timer.join()
        assert body.caller.recv(3) == b"GET"
