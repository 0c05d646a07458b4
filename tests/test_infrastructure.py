"""Proves the raw caller, the scripted upstream and the server starters with trivial apps, without the package."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.callers import NoResponse, call, open_call, request
from tests.servers import ASGI_SERVERS, WSGI_SERVERS, ServerFactory, serve_asgi, serve_wsgi
from tests.upstreams import Exchange, ScriptedUpstream, response
from tests.wire import chunked

HEAD_ONLY = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


async def echo_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answer with method, path and body, in pieces as they come."""
    assert scope["type"] == "http"
    print(f"echo sees {scope['path']}")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-method", scope["method"].encode())]})
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


def echo_wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer with method, path and body."""
    print(f"echo sees {environ['PATH_INFO']}", flush=True)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("X-Method", environ["REQUEST_METHOD"]), ("Content-Length", str(len(body)))])
    return [body]


def test_upstream_records_the_exact_bytes_of_a_request(upstream: ScriptedUpstream) -> None:
    """Head, decoded body and framed body of a chunked request are kept as they came."""
    head = b"POST /a%2Fb?x HTTP/1.1\r\nhOST: u\r\nX-Dup: 1\r\nX-Dup:2\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"3;ext=1\r\nabc\r\n02\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
    assert call(upstream.address, head + body).body == b"ok"
    (seen,) = upstream.requests
    assert (seen.head, seen.raw_body, seen.body, seen.complete) == (head, body, b"abcde", True)
    assert (seen.method, seen.target, seen.values(b"x-dup")) == (b"POST", b"/a%2Fb?x", [b"1", b"2"])


def test_upstream_answers_in_turn_and_by_path(upstream: ScriptedUpstream) -> None:
    """A list of answers is sent in turn, the last one repeatedly; a route has its own."""
    upstream.answer(response(401), response(200, ((b"X-N", b"2"),), b"second"))
    upstream.route(b"/route", response(404))
    statuses = [call(upstream.address, request("GET", path)).status for path in ("/", "/route?q", "/", "/")]
    assert statuses == [401, 404, 200, 200]
    assert upstream.connections == 4


def test_connection_is_reused_and_numbered(upstream: ScriptedUpstream) -> None:
    """Requests on one connection carry its number, and one connection is counted."""
    with open_call(upstream.address) as opened:
        for method in ("HEAD", "GET"):
            opened.send(request(method, "/"))
            assert opened.read_rest().complete
    assert [seen.connection_number for seen in upstream.wait_for_requests(2)] == [1, 1]
    assert upstream.connections == 1


def test_script_can_answer_before_the_body_has_come(upstream: ScriptedUpstream) -> None:
    """The body is read only when the script asks for it."""

    @upstream.script
    def early(exchange: Exchange) -> None:
        exchange.send(response(413))
        assert exchange.body == b"later"

    with open_call(upstream.address, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n") as opened:
        assert opened.read_head().status == 413
        opened.send(b"later")
        assert upstream.requests[0].wait_ended()


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_broken_answer_is_not_complete(upstream: ScriptedUpstream, ending: str) -> None:
    """A body that breaks off, by FIN or RST, is reported as incomplete, whatever its framing."""

    def broken(exchange: Exchange) -> None:
        exchange.send(HEAD_ONLY + b"abc")
        exchange.wait(seen)
        getattr(exchange, ending)()

    upstream.script(broken)
    seen = threading.Event()
    with open_call(upstream.address, request("GET", "/")) as opened:
        assert opened.read(3) == b"abc"
        seen.set()
        rest = opened.read_rest()
    assert (rest.complete, rest.framing, rest.body) == (False, "length", b"")


@pytest.mark.parametrize(
    ("answer", "framing", "complete"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"ab", b"c"), "chunked", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n", "chunked", False),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc", "close", True),
    ],
)
def test_caller_knows_how_a_body_ended(upstream: ScriptedUpstream, answer: bytes, framing: str, complete: bool) -> None:
    """Every framing is decoded, and its proper end recognised."""

    @upstream.script
    def answer_and_close(exchange: Exchange) -> None:
        exchange.send(answer)
        exchange.close()

    seen = call(upstream.address, request("GET", "/"))
    assert (seen.framing, seen.complete, seen.body) == (framing, complete, b"abc")
    assert len(seen.interim) == answer.count(b" 103 ")


def test_script_notices_that_the_caller_leaves(upstream: ScriptedUpstream) -> None:
    """`wait_closed` is false while the caller stays, and true when it has gone with RST."""
    closed = [threading.Event(), threading.Event()]

    @upstream.script
    def watch(exchange: Exchange) -> None:
        if not exchange.wait_closed(0.05):
            closed[0].set()
        if exchange.wait_closed(5):
            closed[1].set()

    with open_call(upstream.address, request("GET", "/")) as opened:
        assert closed[0].wait(5)
        opened.abandon()
        assert closed[1].wait(5)


def test_upstream_that_sends_nothing_is_no_response(upstream: ScriptedUpstream) -> None:
    """A connection closed without a head raises `NoResponse`."""
    upstream.script(Exchange.close)
    with pytest.raises(NoResponse):
        call(upstream.address, request("GET", "/"))


def test_failing_script_fails_the_test() -> None:
    """What a script raises comes out when the upstream is stopped."""

    def failing(exchange: Exchange) -> None:
        raise AssertionError("not what the script expected")

    with pytest.RaisesGroup(AssertionError), ScriptedUpstream() as scripted:
        scripted.script(failing)
        with pytest.raises(NoResponse):
            call(scripted.address, request("GET", "/"))


def test_forgetting_keeps_idle_connections_and_ends_busy_ones(upstream: ScriptedUpstream) -> None:
    """Between tests a shared upstream drops hanging exchanges, and a pooled connection stays usable."""
    never = threading.Event()
    upstream.route(b"/hang", lambda exchange: exchange.wait(never))
    with open_call(upstream.address) as idle, open_call(upstream.address, request("GET", "/hang")) as hanging:
        idle.send(request("GET", "/"))
        assert idle.read_rest().body == b"ok"
        upstream.wait_for_requests(2)
        upstream.forget()
        assert hanging.closes_within(5)
        idle.send(request("GET", "/again"))
        assert idle.read_rest().body == b"ok"
    assert [seen.target for seen in upstream.requests] == [b"/again"]


def test_tls_upstream_is_trusted_through_its_ca_only(
    tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext
) -> None:
    """The certificate verifies against the test's authority, and not against the system's."""
    assert call(tls_upstream.address, request("GET", "/"), ssl_context=trusting_context).body == b"ok"
    with pytest.raises(ssl.SSLCertVerificationError):
        call(tls_upstream.address, request("GET", "/"), ssl_context=ssl.create_default_context())


def test_tls_body_without_length_ends_with_close_notify(
    tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext
) -> None:
    """Under TLS, too, a body delimited by the connection's end is whole."""
    tls_upstream.answer(b"HTTP/1.1 200 OK\r\n\r\nabc")
    seen = call(tls_upstream.address, request("GET", "/"), ssl_context=trusting_context)
    assert (seen.framing, seen.complete, seen.body) == ("close", True, b"abc")


def test_closed_port_refuses_and_stalled_port_stays_silent(closed_port: int, stalled_port: int) -> None:
    """One port refuses connections, the other lets them time out."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", closed_port))
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", stalled_port), timeout=0.2)


@pytest.mark.parametrize("server", [*ASGI_SERVERS, *WSGI_SERVERS, "granian-wsgi"])
def test_every_server_serves_an_echo_app(server_factory: ServerFactory, server: str) -> None:
    """Each real server starts, answers, is started only once, and its output can be read."""
    app = "echo_asgi" if server in ASGI_SERVERS else "echo_wsgi"
    running = server_factory(server, f"tests.test_infrastructure:{app}", {"SOME": "setting"})
    seen = call(running.address, request("POST", f"/canary-{server}", body=b"hello"))
    assert (seen.status, seen.body, seen.complete, seen.header(b"x-method")) == (200, b"hello", True, b"POST")
    assert f"echo sees /canary-{server}" in running.log()
    assert running.peak_memory() > 1_000_000
    assert server_factory(server, f"tests.test_infrastructure:{app}", {"SOME": "setting"}) is running


def test_server_that_does_not_start_shows_why(server_factory: ServerFactory) -> None:
    """An app that cannot be imported is an error that holds the server's output."""
    with pytest.raises(RuntimeError, match="no_such_app"):
        server_factory("uvicorn-h11", "tests.test_infrastructure:no_such_app", {})


def test_stopped_server_is_gone(server_factory: ServerFactory) -> None:
    """After `kill` nothing listens on the port any more."""
    running = server_factory("granian", "tests.test_infrastructure:echo_asgi", {"TO_BE": "killed"})
    running.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(running.address)


def test_apps_are_served_in_process() -> None:
    """The in-process servers answer, too, and leave nothing open."""
    with serve_asgi(echo_asgi) as address:
        assert call(address, request("POST", "/", body=b"hello")).body == b"hello"
    with serve_wsgi(echo_wsgi) as address:
        assert call(address, request("POST", "/", body=b"hello")).body == b"hello"


@pytest.mark.anyio
async def test_async_tests_run_on_the_chosen_backend(anyio_backend: str) -> None:
    """Tests marked with anyio are run without a further plugin."""
    assert anyio_backend == "asyncio"
