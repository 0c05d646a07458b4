"""The clients through real servers, to a real upstream."""

import gzip
import threading
from typing import Any

import httpx
import pytest

from proxy_middleware import client as errors
from tests.client.colours import Colour, coloured
from tests.conftest import StartProxy
from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET
from tests.upstreams import Exchange, ScriptedUpstream, response
from tests.wire import Address

doors = pytest.mark.parametrize("server", ["uvicorn-httptools", "gunicorn-gthread"])


def url(address: Address) -> str:
    """Where a server is."""
    return f"http://{address[0]}:{address[1]}"


def connected(colour: Colour, address: Address, selector: str = "crm", token: str | None = CALLER_TOKEN) -> Any:
    """The calls of a connection."""
    return colour.proxy_client(url(address), token).connection(selector).proxy


def blocking(address: Address, token: str | None) -> errors.ProxyClient:
    """A blocking client on httpx."""
    return errors.ProxyClient(url(address), token, transport=httpx.HTTPTransport(verify=False))


@doors
def test_requests_and_responses(
    each: Colour, server: str, start_proxy: StartProxy, shared_upstream: ScriptedUpstream
) -> None:
    """Path, query, fields and payload arrive; status, fields and decoded body come back, errors and redirects too."""
    answer = response(
        404, ((b"Content-Encoding", b"gzip"), (b"X-Two", b"1"), (b"Location", b"/y")), gzip.compress(b"{}")
    )
    shared_upstream.answer(answer)
    proxy = connected(each, start_proxy(server).address)
    got = each.run(proxy.post, "/a%2Fb//c;x?y=%7e", {"name": "Ünal"}, params={"z": "1 2"}, headers={"X-A": "b"})
    assert (got.status_code, got.json(), got.headers["x-two"]) == (404, {}, "1")
    sent = shared_upstream.requests[0]
    assert (sent.method, sent.target) == (b"POST", b"/base/a%2Fb//c;x?y=%7e&z=1+2")
    assert (sent.body, sent.header(b"x-a")) == ('{"name":"Ünal"}'.encode(), b"b")
    assert sent.header(b"authorization") == f"Bearer {UPSTREAM_SECRET}".encode()


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@doors
def test_streams(colour: Colour, server: str, start_proxy: StartProxy, shared_upstream: ScriptedUpstream) -> None:
    """A stream is read while it comes, and a body sent while it is made."""
    seen = threading.Event()

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        assert exchange.body == b"abcdef"
        exchange.send(EVENTS + b"3\r\none\r\n")
        exchange.wait(seen)
        exchange.send(b"3\r\ntwo\r\n0\r\n\r\n")

    proxy = connected(colour, start_proxy(server).address, "root")
    content = colour.content(iter([b"abc", b"def"]))
    with colour.entered(proxy.stream("POST", "/events", content=content)) as got:
        pieces = colour.pieces(got)
        assert next(pieces) == b"one"
        seen.set()
        assert list(pieces) == [b"two"]


@pytest.mark.parametrize("name", ["blocking", "asyncio"])
def test_streams_that_are_left(name: str, start_proxy: StartProxy, shared_upstream: ScriptedUpstream) -> None:
    """What has not been read at the end of the block is given up, all the way to the upstream."""
    left = threading.Event()

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(EVENTS + b"3\r\none\r\n")
        if exchange.wait_closed(5):
            left.set()

    with coloured(httpx, name) as colour:
        proxy = connected(colour, start_proxy("uvicorn-httptools").address, "root")
        with colour.entered(proxy.stream("GET", "/events")) as got:
            pieces = colour.pieces(got)
            assert next(pieces) == b"one"
        assert left.wait(5)
        pieces.close()


@doors
def test_streams_that_break_off(
    colour: Colour, server: str, start_proxy: StartProxy, shared_upstream: ScriptedUpstream
) -> None:
    """A response that breaks off on its way from the upstream does not look whole."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        exchange.close()

    proxy = connected(colour, start_proxy(server).address, "root")
    with pytest.raises(httpx.RemoteProtocolError):
        colour.run(proxy.get, "/x")


FAILURES = [
    ("crm", "nobody", errors.NotAuthenticated, "not_authenticated", "http_request_denied"),
    ("crm", None, errors.NotAuthenticated, "not_authenticated", "http_request_denied"),
    ("unknown", CALLER_TOKEN, errors.ConnectionNotFound, "not_found", "http_request_error"),
    ("dup", CALLER_TOKEN, errors.AmbiguousSelector, "ambiguous_selector", "http_request_error"),
    ("private", CALLER_TOKEN, errors.AccessDenied, "access_denied", "destination_ip_prohibited"),
    ("nocred", CALLER_TOKEN, errors.CredentialUnavailable, "access_token_expired", "proxy_configuration_error"),
    ("provider-fails", CALLER_TOKEN, errors.InternalError, "internal", "proxy_internal_error"),
    ("closed", CALLER_TOKEN, errors.UpstreamError, "upstream_unreachable", "connection_refused"),
]


@doors
@pytest.mark.parametrize(("selector", "token", "kind", "key", "error"), FAILURES, ids=[case[3] for case in FAILURES])
def test_failures(
    start_proxy: StartProxy,
    server: str,
    selector: str,
    token: str | None,
    kind: type[errors.ProxyFailed],
    key: str,
    error: str,
) -> None:
    """What the proxy answers is raised, with what its body says; of a HEAD, by its head alone."""
    with blocking(start_proxy(server).address, token) as client:
        proxy = client.connection(selector).proxy
        with pytest.raises(errors.ProxyFailed) as raised:
            proxy.get("/x")
        assert (type(raised.value), raised.value.key, raised.value.error) == (kind, key, error)
        with pytest.raises(kind) as raised, proxy.stream("HEAD", "/x"):
            pass
        assert (raised.value.error, raised.value.key) == (error, "")


@doors
def test_full_urls(start_proxy: StartProxy, server: str, shared_upstream: ScriptedUpstream) -> None:
    """A full URL of the connection's origin is called as it is, and any other is denied."""
    with blocking(start_proxy(server).address, CALLER_TOKEN) as client:
        proxy = client.connection("crm").proxy
        assert proxy.get(f"{shared_upstream.url}/elsewhere?x").text == "ok"
        with pytest.raises(errors.AccessDenied):
            proxy.get("https://elsewhere.example/")
    assert [request.target for request in shared_upstream.requests] == [b"/elsewhere?x"]


def test_proxies_that_are_not_there(each: Colour, closed_port: int) -> None:
    """A proxy that cannot be reached is the library's own error."""
    with pytest.raises(each.library.ConnectError):
        each.run(connected(each, ("127.0.0.1", closed_port)).get, "/x")


def test_context_managers(each: Colour) -> None:
    """A client closes its transport at the end of its block."""
    closed: list[bool] = []

    def answer(request: Any) -> Any:
        return each.library.Response(200)

    transport = each.library.MockTransport(answer)

    def close() -> None:
        closed.append(True)

    async def aclose() -> None:
        closed.append(True)

    transport.close, transport.aclose = close, aclose
    kind = errors.ProxyClient if each.blocking else errors.AsyncProxyClient
    client = kind("http://app.example", transport=transport)
    with each.entered(client) as entered:
        assert each.run(entered.connection("crm").proxy.get, "/x").status_code == 200
        assert not closed
    assert closed == [True]
