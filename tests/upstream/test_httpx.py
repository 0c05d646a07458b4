"""httpx and httpx2 transports as upstream: requests out, responses in, on asyncio, on trio and blocking."""

import gzip
import subprocess
import sys
import threading
import time
from typing import Any

import anyio
import pytest
import trio

from proxy_middleware import errors
from proxy_middleware.models import EgressPolicy, Limits, Timeouts
from proxy_middleware.upstream.httpx import AsyncTransportUpstream, PerLoopUpstream, TransportUpstream
from tests.upstream.httpx_driver import Driver, forward_to
from tests.upstreams import Exchange, ScriptedUpstream, response

EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


# The request.


def test_request_is_on_the_wire_as_it_was_given(driver: Driver, upstream: ScriptedUpstream) -> None:
    """Method, target and fields arrive byte for byte, in order, with duplicates, and nothing is added."""
    target = b"/a%2Fb/./c/../d//%2e;x=1?x=%zz&y='\"<>`{}|^[]\\"
    fields = [(b"X-B", b"2"), (b"x-a", b"1"), (b"X-B", b"\xe9"), (b"accept", b"")]
    assert driver.send(forward_to(upstream, target, *fields, method=b"pAtch")).read_all() == b"ok"
    head = b"pAtch " + target + b" HTTP/1.1\r\nhost: api.example\r\nX-B: 2\r\nx-a: 1\r\nX-B: \xe9\r\naccept: \r\n\r\n"
    assert upstream.requests[0].head == head


def test_bodies_are_framed_once_and_streamed(driver: Driver, upstream: ScriptedUpstream) -> None:
    """A piece goes up before the caller has sent the next; chunked stays chunked, a length stays a length."""
    seen = threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        assert exchange.read(3) == b"abc"
        seen.set()
        assert exchange.body == b"abcdef"
        exchange.send(response(body=b"ok"))

    driver.send(forward_to(upstream, method=b"POST", body=driver.body(b"abc", seen, b"def")))
    length = (b"content-length", b"6")
    seen.clear()
    driver.send(forward_to(upstream, b"/", length, method=b"POST", body=driver.body(b"abc", seen, b"def")))
    one, two = upstream.requests
    assert one.raw_body == b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    assert one.fields == ((b"host", b"api.example"), (b"transfer-encoding", b"chunked"))
    assert (two.raw_body, two.fields) == (b"abcdef", ((b"host", b"api.example"), length))


def test_body_is_kept_and_sent_again(driver: Driver, upstream: ScriptedUpstream) -> None:
    """The first time the body is told to keep what is read, the second time to start over."""
    body = driver.body(b"abc")
    driver.send(forward_to(upstream, method=b"PUT", body=body, keep=True))
    driver.send(forward_to(upstream, method=b"PUT", body=body, again=True))
    assert body.calls == ["keep", "rewind"]
    assert [request.body for request in upstream.requests] == [b"abc", b"abc"]


@pytest.mark.parametrize("error", [errors.CallerLeft(), errors.InvalidRequest("x"), errors.PayloadTooLarge()])
def test_what_the_body_raises_comes_out_as_it_is(driver: Driver, upstream: ScriptedUpstream, error: Exception) -> None:
    """A body that fails aborts the request, which never looks whole, and its error is not changed."""
    with pytest.raises(type(error)) as caught:
        driver.send(forward_to(upstream, method=b"POST", body=driver.body(b"abc", error)))
    assert caught.value is error
    assert upstream.wait_for_requests(1)[0].wait_ended() is False


def test_a_body_is_read_once_only(driver: Driver) -> None:
    """A transport that reads the body again would send a part for the whole, and fails."""

    async def read_again(request: Any) -> Any:
        content.append([data async for data in request.stream])
        content.append([data async for data in request.stream])

    def read_again_blocking(request: Any) -> Any:
        content.extend([list(request.stream), list(request.stream)])

    content: list[Any] = []
    transport = driver.library.MockTransport(print)
    transport.handle_request, transport.handle_async_request = read_again_blocking, read_again
    with pytest.raises(RuntimeError, match="second time"):
        driver.send(forward_to(80, method=b"POST", body=driver.body(b"abc", b"def")), driver.upstream(transport))


def test_egress_proxy_is_not_told_the_target(driver: Driver, upstream: ScriptedUpstream) -> None:
    """CONNECT names the authority alone; through a plain proxy the target goes in absolute form, unchanged."""
    upstream.answer(response(403), response(body=b"ok"))
    through = driver.upstream(proxy=upstream.url)
    with pytest.raises(errors.UpstreamError):
        driver.send(forward_to(443, b"/?key=%zz", scheme="https"), through)
    assert driver.send(forward_to(80, b"/?key=%zz"), through).read_all() == b"ok"
    assert [request.target for request in upstream.requests] == [b"127.0.0.1:443", b"http://127.0.0.1/?key=%zz"]


# The response.


def test_response_is_relayed_as_sent(driver: Driver, upstream: ScriptedUpstream) -> None:
    """Status, reason and fields are the upstream's, and a compressed body stays compressed."""
    packed = gzip.compress(b"hello")
    fields = ((b"Content-Encoding", b"gzip"), (b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"))
    upstream.answer(response(418, fields, packed, reason=b"I'm a teapot"))
    got = driver.send(forward_to(upstream))
    assert (got.status, got.reason, got.retried) == (418, b"I'm a teapot", False)
    assert got.fields == [*fields, (b"Content-Length", b"%d" % len(packed))]
    assert got.read_all() == packed


def test_pieces_come_when_they_are_sent(driver: Driver, upstream: ScriptedUpstream) -> None:
    """The first event is read before the second is sent, idle for longer than other responses may be."""
    seen = threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(EVENT_STREAM + b"3\r\none\r\n")
        exchange.wait(seen)
        time.sleep(0.3)
        exchange.send(b"3\r\ntwo\r\n0\r\n\r\n")

    got = driver.send(forward_to(upstream, timeouts=Timeouts(5, 5, 5, 0.1)))
    assert (got.read(), got.at_end) == (b"one", False)
    seen.set()
    assert (got.read(), got.read(), got.at_end, got.read()) == (b"two", b"", True, b"")


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (b"GET", response(body=b"hello")),
    ],
)
def test_end_is_known_at_once(driver: Driver, upstream: ScriptedUpstream, method: bytes, answer: bytes) -> None:
    """Without a body the head is the end, with a length its last byte is; the connection is free from then on."""
    upstream.script(lambda exchange: exchange.send(answer))
    through = driver.upstream()
    for _ in range(2):
        got = driver.send(forward_to(upstream, method=method), through)
        if answer.endswith(b"hello"):
            assert (got.at_end, got.read()) == (False, b"hello")
        assert (got.at_end, got.ready, got.read()) == (True, True, b"")
    assert upstream.connections == 1


@pytest.mark.parametrize(
    "sent",
    [b"Content-Length: 9\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"Content-Length: 3\r\n\r\n"],
)
def test_a_response_that_breaks_off_never_ends(driver: Driver, upstream: ScriptedUpstream, sent: bytes) -> None:
    """A truncated body raises, and raises again, and is never at its end."""

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n" + sent)
        exchange.close()

    got = driver.send(forward_to(upstream))
    with pytest.raises(errors.ResponseTruncated) as caught:
        got.read_all()
    assert caught.value.__context__ is None
    with pytest.raises(errors.ResponseTruncated):
        got.read()
    assert not got.at_end


@pytest.mark.parametrize("length", ["3", "9"])
def test_a_transport_that_does_not_count_is_counted(driver: Driver, length: str) -> None:
    """More or less than the announced length is an error, whether or not the transport has noticed."""
    upstream = driver.mock(lambda _: driver.library.Response(200, headers={"content-length": length}, content=b"hello"))
    got = driver.send(forward_to(80), upstream)
    with pytest.raises(errors.ProtocolViolation if length == "3" else errors.ResponseTruncated):
        got.read_all()
    assert not got.at_end


def test_giving_up_closes_the_connection(driver: Driver, upstream: ScriptedUpstream) -> None:
    """After `abort` the upstream sees the end, the place is free, and reading does not look complete."""
    left = threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(EVENT_STREAM + b"3\r\none\r\n3\r\ntwo\r\n")
        if exchange.wait_closed(5):
            left.set()

    through = driver.upstream(limits=driver.library.Limits(max_connections=1))
    got = driver.send(forward_to(upstream), through)
    got.read()
    got.abort()
    assert left.wait(5)
    with pytest.raises(errors.ResponseTruncated):
        got.read()
    again = driver.send(forward_to(upstream), through)
    assert again.read() == b"one"
    again.abort()


def test_a_mock_answers(driver: Driver) -> None:
    """A MockTransport serves as upstream; a body that it gives to HEAD is dropped."""

    def handler(request: Any) -> Any:
        return driver.library.Response(201, content=b"%b %b" % (request.url.raw_path, request.content))

    upstream = driver.mock(handler)
    assert (
        driver.send(forward_to(80, b"/%zz", method=b"POST", body=driver.body(b"x")), upstream).read_all() == b"/%zz x"
    )
    assert driver.send(forward_to(80, method=b"HEAD"), upstream).at_end


def test_what_is_no_transport_is_refused(library: Any) -> None:
    """A client, a transport of the other colour and a class are type errors that say what is needed."""
    for wrong in (library.Client, library.AsyncClient, library.HTTPTransport, library.AsyncHTTPTransport):
        blocking, instance = wrong.__name__ == "HTTPTransport", object.__new__(wrong)
        for kind, method in ((AsyncTransportUpstream, "handle_async_request"), (TransportUpstream, "handle_request")):
            if hasattr(instance, method) and blocking is (kind is TransportUpstream):
                instance = wrong
            with pytest.raises(TypeError, match=f"`{method}`.*{wrong.__name__}"):
                kind(instance)


def test_only_a_transport_made_here_is_closed(driver: Driver) -> None:
    """The application's own transport stays open."""
    closed: list[str] = []
    transport = driver.transport()
    name = "close" if driver.blocking else "aclose"
    upstream, close = driver.upstream(transport), getattr(transport, name)
    setattr(transport, name, lambda: closed.append(name))
    driver.call(getattr(upstream, name))
    setattr(transport, name, close)
    assert closed == []


def test_http2_ends_with_its_last_byte(own_driver: Driver) -> None:
    """Over HTTP/2 the end is not waited for once everything announced has come."""
    library = own_driver.library

    class Endless(library.AsyncByteStream):  # type: ignore[name-defined, misc]
        async def __aiter__(self) -> Any:
            yield b"hello"
            await anyio.sleep_forever()

    fields, extensions = {"content-length": "5"}, {"http_version": b"HTTP/2"}
    answer = library.Response(200, headers=fields, stream=Endless(), extensions=extensions)
    got = own_driver.send(forward_to(80), own_driver.mock(lambda _: answer))
    assert (got.read(), got.at_end) == (b"hello", True)


def test_each_proxy_has_a_transport_of_its_own(upstream: ScriptedUpstream) -> None:
    """Two proxies on one trio loop each dial by their own egress policy."""

    async def main() -> None:
        lenient, strict = (PerLoopUpstream(Limits(), EgressPolicy(allow=allow), None) for allow in (["127.0.0.1"], []))
        assert (await lenient.send(forward_to(upstream))).status == 200
        with pytest.raises(errors.AddressRefused):
            await strict.send(forward_to(upstream))
        await lenient.aclose()
        await strict.aclose()

    trio.run(main)
    assert len(upstream.requests) == 1


def test_httpx_is_imported_only_when_it_is_used() -> None:
    """The engine and the doors do not load httpx."""
    code = "import sys, proxy_middleware.asgi, proxy_middleware.upstream.asyncio; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
