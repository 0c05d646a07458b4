"""Transports over the proxy: bodies that stream, break off, or are left."""

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from proxy_middleware import Connection, Event, Limits, StaticResolver, Timeouts
from proxy_middleware.transport import ProxyTransport
from tests.client.colours import Colour
from tests.in_process import proxy_to
from tests.transport.through import through
from tests.upstreams import Exchange, ScriptedUpstream, response

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
URL = "http://crm.invalid/x"


def test_pieces_come_when_they_are_sent(each: Colour, upstream: ScriptedUpstream) -> None:
    """The first piece is read before the second is sent."""
    seen = threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(CHUNKED + b"3\r\none\r\n")
        exchange.wait(seen)
        exchange.send(b"3\r\ntwo\r\n0\r\n\r\n")

    with each.entered(through(each, proxy_to(upstream)).stream("GET", URL)) as got:
        pieces = each.pieces(got)
        assert next(pieces) == b"one"
        seen.set()
        assert list(pieces) == [b"two"]


def test_bodies_are_sent_as_they_are_made(colour: Colour, upstream: ScriptedUpstream) -> None:
    """The first piece of a request arrives before the second is made; large ones arrive whole."""
    seen = threading.Event()
    large = bytes(range(256)) * 1024

    @upstream.script
    def script(exchange: Exchange) -> None:
        assert exchange.read(3) == b"abc"
        seen.set()
        assert exchange.body == b"abc" + large
        exchange.send(response(body=b"ok"))

    def make() -> Iterator[bytes]:
        yield b"abc"
        assert colour.run(threading.Event.wait, seen, 5) if colour.blocking else seen.wait(5)
        yield large

    assert colour.run(through(colour, proxy_to(upstream)).post, URL, content=colour.content(make())).text == "ok"
    assert upstream.requests[0].header(b"transfer-encoding") == b"chunked"


def test_bodies_are_decoded_by_the_client(each: Colour, upstream: ScriptedUpstream) -> None:
    """What comes compressed stays so on its way, and the client decodes it."""
    packed = gzip.compress(b"hello" * 1000)
    upstream.answer(response(200, ((b"Content-Encoding", b"gzip"),), packed))
    got = each.run(through(each, proxy_to(upstream)).get, URL)
    assert (got.text, got.num_bytes_downloaded) == ("hello" * 1000, len(packed))


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_responses_without_a_body(colour: Colour, upstream: ScriptedUpstream, method: str) -> None:
    """A response to HEAD keeps its length, and a 204 has no body."""
    upstream.answer(response(200, body=b"hello").removesuffix(b"hello" * (method == "HEAD")))
    if method == "GET":
        upstream.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
    got = colour.run(through(colour, proxy_to(upstream)).request, method, URL)
    assert (got.content, got.headers.get("content-length")) == (b"", "5" if method == "HEAD" else None)


@pytest.mark.parametrize("head", [CHUNKED + b"3\r\none\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\none"])
def test_responses_that_break_off(each: Colour, upstream: ScriptedUpstream, head: bytes) -> None:
    """A response that breaks off is the library's own error, after what had come; observers are told."""
    told: list[Event] = []

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(head)
        exchange.close()

    client = through(each, proxy_to(upstream, observers=[told.append]))
    with each.entered(client.stream("GET", URL)) as got:
        pieces = each.pieces(got)
        assert next(pieces) == b"one"
        with pytest.raises(each.library.RemoteProtocolError) as raised:
            next(pieces)
    assert raised.value.request.url == URL
    assert (told[-1].kind, told[-1].error, told[-1].sent) == ("finished", "http_response_incomplete", 3)
    with pytest.raises(each.library.RemoteProtocolError):
        each.run(client.get, URL)


def test_responses_that_stand_still(each: Colour, upstream: ScriptedUpstream) -> None:
    """A body that stands still for too long is a ReadTimeout of the library's."""

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(CHUNKED + b"3\r\none\r\n")
        exchange.wait_closed(5)

    with pytest.raises(each.library.ReadTimeout):
        each.run(through(each, proxy_to(upstream, timeouts=Timeouts(idle=0.2))).get, URL)


def test_responses_that_are_left(each: Colour, upstream: ScriptedUpstream) -> None:
    """Closing a response that has not been read frees its connection, and its place."""
    told: list[Event] = []
    left = threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(CHUNKED + b"3\r\none\r\n")
        if exchange.wait_closed(5):
            left.set()

    client = through(each, proxy_to(upstream, observers=[told.append], limits=Limits(per_connection_concurrency=1)))
    with each.entered(client.stream("GET", URL)) as got:
        assert got.status_code == 200
    assert left.wait(5)
    assert (told[-1].kind, told[-1].error) == ("finished", "caller_left")
    upstream.answer(response(body=b"ok"))
    assert each.run(client.get, URL).text == "ok"


def test_event_streams_that_stand_still(each: Colour, upstream: ScriptedUpstream) -> None:
    """Events may be hours apart for the proxy; a client's own time-out holds for them nonetheless."""

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(CHUNKED.replace(b"\r\n", b"\r\nContent-Type: text/event-stream\r\n", 1) + b"3\r\none\r\n")
        exchange.wait_closed(5)
        exchange.close()

    with pytest.raises(each.library.ReadTimeout):
        each.run(through(each, proxy_to(upstream)).get, URL, timeout=0.2)


class BodyFailed(Exception):
    """What a client's own body raises."""


def test_bodies_that_fail(each: Colour, upstream: ScriptedUpstream) -> None:
    """What the client's own body raises comes out of the call, and the request never looks whole."""

    def make() -> Iterator[bytes]:
        yield b"abc"
        raise BodyFailed

    client = through(each, proxy_to(upstream, limits=Limits(per_connection_concurrency=1)))
    for _ in range(2):
        with pytest.raises(BodyFailed):
            each.run(client.post, URL, content=each.content(make()))
    assert [request.wait_ended() for request in upstream.wait_for_requests(2)] == [False, False]


async def _task_cancelled() -> AsyncIterator[bytes]:
    yield b"abc"
    waited = asyncio.create_task(asyncio.sleep(10))
    waited.cancel()
    await waited


async def _timed_out() -> AsyncIterator[bytes]:
    async with asyncio.timeout(0.1):
        yield b"abc"
        await asyncio.sleep(10)


async def _scoped() -> AsyncIterator[bytes]:
    mark = _MARK.set(1)
    with anyio.fail_after(10):
        yield b"abc"
        await asyncio.sleep(0)
        yield b"def"
        await asyncio.sleep(0)
    _MARK.reset(mark)


_MARK: ContextVar[int] = ContextVar("mark")


@pytest.mark.parametrize(
    ("make", "raised"), [(_task_cancelled, asyncio.CancelledError), (_timed_out, TimeoutError), (_scoped, None)]
)
def test_bodies_are_made_in_one_task(
    upstream: ScriptedUpstream, make: Callable[[], AsyncIterator[bytes]], raised: type[BaseException] | None
) -> None:
    """Time-outs, cancel scopes and context variables that a body holds over its pieces work as without the proxy."""

    async def main() -> None:
        proxy = proxy_to(upstream, timeouts=Timeouts(idle=5))
        transport: Any = ProxyTransport(proxy, "crm", "anyone")
        async with httpx.AsyncClient(transport=transport, timeout=None) as client:
            with pytest.raises(raised) if raised else nullcontext():
                assert (await client.post(URL, content=make())).text == "ok"
        await proxy.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(("length", "status"), [("9", 400), ("2", 400), ("3", 200)])
def test_announced_lengths(colour: Colour, upstream: ScriptedUpstream, length: str, status: int) -> None:
    """A body of another length than it announces is refused."""
    client = through(colour, proxy_to(upstream))
    content = colour.content(iter([b"ab", b"c"]))
    got = colour.run(client.post, URL, content=content, headers={"content-length": length})
    assert got.status_code == status
    assert status != 200 or upstream.requests[0].body == b"abc"


def test_bodies_without_framing(colour: Colour, upstream: ScriptedUpstream) -> None:
    """A stream whose request says nothing of a body is a body nonetheless."""
    stream = colour.library.ByteStream(b"abc")
    request = colour.library.Request("POST", URL, stream=stream)
    assert colour.run(through(colour, proxy_to(upstream)).send, request).status_code == 200
    assert upstream.requests[0].body == b"abc"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("before_head", [True, False])
def test_cancellation(upstream: ScriptedUpstream, backend: str, before_head: bool) -> None:
    """A call that is cancelled closes its upstream connection, and gives its place back."""
    begun, left = threading.Event(), threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.read(3)
        if not before_head:
            exchange.send(CHUNKED + b"3\r\none\r\n")
        begun.set()
        if exchange.wait_closed(5):
            left.set()

    async def endless() -> AsyncIterator[bytes]:
        yield b"abc"
        await anyio.sleep_forever()

    async def main() -> None:
        proxy = proxy_to(upstream, limits=Limits(per_connection_concurrency=1))
        transport: Any = ProxyTransport(proxy, "crm", "anyone")
        async with httpx.AsyncClient(transport=transport) as client, anyio.create_task_group() as group:
            if before_head:
                group.start_soon(lambda: client.post(URL, content=endless()))
            else:
                group.start_soon(client.get, URL)
            assert await anyio.to_thread.run_sync(begun.wait, 5)
            group.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(left.wait, 5)
        upstream.answer(response(body=b"ok"))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get(URL)).text == "ok"
        await proxy.aclose()

    anyio.run(main, backend=backend)


def test_openai(upstream: ScriptedUpstream) -> None:
    """The SDK of OpenAI works through it unchanged, answers and event streams, blocking and asynchronous."""
    openai = pytest.importorskip("openai")
    chunk = b'{"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, %b}]}'
    whole = (
        chunk.replace(b".chunk", b"") % b'"finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}'
    )
    events = [b"data: " + chunk % (b'"delta": {"content": "%b"}' % word) + b"\n\n" for word in (b"a", b"b")]
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in [*events, b"data: [DONE]\n\n"])

    def answer(exchange: Exchange) -> None:
        streams = b'"stream":true' in exchange.body
        exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (pieces + b"0\r\n\r\n")
            if streams
            else response(200, ((b"Content-Type", b"application/json"),), whole)
        )

    upstream.route(b"/v1/chat/completions", answer)
    # The origin is a stand-in for https://api.openai.com, the SDK's own default.
    proxy = proxy_to(upstream, resolver=StaticResolver([Connection("crm", f"{upstream.url}/v1")]))
    transport: Any = ProxyTransport(proxy, "crm", "alice")
    options: Any = {"api_key": "unused", "base_url": f"{upstream.url}/v1"}
    question: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    with openai.OpenAI(**options, http_client=httpx2.Client(transport=transport)) as client:
        assert client.chat.completions.create(**question).choices[0].message.content == "hi"
        stream = client.chat.completions.create(**question, stream=True)
        assert [event.choices[0].delta.content for event in stream] == ["a", "b"]

    async def main() -> None:
        async with openai.AsyncOpenAI(**options, http_client=httpx2.AsyncClient(transport=transport)) as client:
            assert (await client.chat.completions.create(**question)).choices[0].message.content == "hi"
            stream = await client.chat.completions.create(**question, stream=True)
            assert [event.choices[0].delta.content async for event in stream] == ["a", "b"]
        await proxy.aclose()

    anyio.run(main)
    proxy.close()
    assert {request.header(b"authorization") for request in upstream.requests} == {b"Bearer secret"}
