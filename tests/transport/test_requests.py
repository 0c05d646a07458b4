"""Transports over the proxy: where requests go, who is calling, and what the proxy itself answers."""

import threading
from typing import Any

import httpx
import pytest

from proxy_middleware import (
    Connection,
    ConnectionNotFound,
    Event,
    Limits,
    Proxy,
    ProxyRequest,
    StaticCredentials,
    StaticResolver,
    anyone,
)
from proxy_middleware._problem import problem
from proxy_middleware._steps import Forward
from proxy_middleware.client.errors import error_of
from proxy_middleware.transport import ProxyTransport
from proxy_middleware.upstream.threads import ThreadsUpstream
from tests.client.colours import Colour
from tests.host_plugins import UPSTREAM_SECRET, NumberedTokens
from tests.in_process import proxy_to
from tests.transport.through import through
from tests.upstreams import Exchange, ScriptedUpstream, response

# Where requests go.


def test_requests_go_to_the_connection(each: Colour, upstream: ScriptedUpstream) -> None:
    """A request of the library arrives with the connection's credential, and its response is the library's own."""
    upstream.answer(response(418, ((b"X-Two", b"1"), (b"X-Two", b"2")), b"body", reason=b"Teapot"))
    client = through(each, proxy_to(upstream))
    got = each.run(client.post, f"{upstream.url}/a%2Fb//c?x=1", json={"a": 1}, headers={"authorization": "Bearer own"})
    assert isinstance(got, each.library.Response)
    assert (got.status_code, got.reason_phrase, got.text) == (418, "Teapot", "body")
    assert got.headers.get_list("x-two") == ["1", "2"]
    sent = upstream.requests[0]
    assert (sent.method, sent.target, sent.body) == (b"POST", b"/a%2Fb//c?x=1", b'{"a":1}')
    assert sent.values(b"authorization") == [b"Bearer secret"]
    assert sent.header(b"host") == upstream.url.removeprefix("http://").encode()


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("{base}/v1/x?y", b"/v1/x?y"),
        ("{base}/elsewhere", b"/elsewhere"),
        ("http://crm.invalid/x%2Fy?z", b"/v1/x%2Fy?z"),
        ("https://any.thing.invalid:81/", b"/v1/"),
        ("http://crm.invalid/{base}/v2", b"/v2"),
        ("http://localhost:{port}/files", b"/files"),
    ],
)
def test_urls(colour: Colour, upstream: ScriptedUpstream, url: str, target: bytes) -> None:
    """A URL of the connection's own or an allowed origin is called as it is; one below .invalid is a path."""
    connection = Connection("crm", f"{upstream.url}/v1", allowed_origins=[f"http://localhost:{upstream.address[1]}"])
    client = through(colour, proxy_to(upstream, resolver=StaticResolver([connection])))
    asked = url.format(base=upstream.url, port=upstream.address[1])
    assert colour.run(client.get, asked).text == "ok"
    assert upstream.requests[0].target == target


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://elsewhere.example/", 403),
        ("http://crm.invalid.example/", 403),
        ("http://notinvalid/", 403),
        ("http://crm.invalid/https://elsewhere.example/", 403),
        ("ftp://127.0.0.1/", 400),
        ("https://127.0.0.1:99/", 403),
    ],
)
def test_urls_of_others(colour: Colour, upstream: ScriptedUpstream, url: str, status: int) -> None:
    """Any other origin is refused, and what is no HTTP is malformed; nothing is sent."""
    client = through(colour, proxy_to(upstream))
    assert colour.run(client.get, url).status_code == status
    assert upstream.requests == []


def test_exact_targets(colour: Colour, upstream: ScriptedUpstream) -> None:
    """The extension with which the libraries' own transports send a target as it is does so here, too."""
    client = through(colour, proxy_to(upstream))
    request = colour.library.Request("GET", "http://crm.invalid/", extensions={"target": b"/a%2Fb/`{}`?x={}"})
    assert colour.run(client.send, request).status_code == 200
    for wrong in (b"*", b"/a b", b"@elsewhere.example/", b"/../x"):
        request = colour.library.Request("GET", upstream.url, extensions={"target": wrong})
        assert colour.run(client.send, request).status_code == 400
    assert [request.target for request in upstream.requests] == [b"/a%2Fb/`{}`?x={}"]


@pytest.mark.parametrize("selector", ["", "a/b", "ü", "a" * 257])
def test_what_is_no_selector(upstream: ScriptedUpstream, selector: str) -> None:
    """What no connection can be called is a ValueError when the transport is made."""
    with pytest.raises(ValueError, match="A selector is"):
        ProxyTransport(proxy_to(upstream), selector, "anyone")


# Who is calling.


def test_the_caller_is_believed(each: Colour, upstream: ScriptedUpstream) -> None:
    """The authenticator is not asked; the resolver is, and sees the caller and the client's fields."""
    seen: list[ProxyRequest] = []

    class Resolver:
        def resolve(self, selector: str, request: ProxyRequest) -> Connection:
            seen.append(request)
            return Connection("crm", upstream.url)

    def nobody(request: ProxyRequest) -> None:
        raise AssertionError("nobody asks")

    client = through(each, proxy_to(upstream, resolver=Resolver(), authenticate=nobody), "my crm", caller := object())
    assert each.run(client.get, "http://crm.invalid/x?y", headers={"X-Own": "1", "Authorization": "key"}).text == "ok"
    request = seen[0]
    assert (request.selector, request.method, request.target) == ("my crm", "GET", b"/x?y")
    assert request.caller is caller
    assert (request.header("x-own"), request.header("authorization")) == ("1", "key")
    assert all(name == name.lower() for name, _ in request.fields)
    assert (request.scope, request.environ, request.client) == (None, None, None)


def test_nobody_is_refused(colour: Colour, upstream: ScriptedUpstream) -> None:
    """A caller that turns out to be None is not let in."""
    client = through(colour, proxy_to(upstream), caller=None)
    assert colour.run(client.get, "http://crm.invalid/").status_code == 401
    assert upstream.requests == []


def test_no_browser_is_behind_it(colour: Colour, upstream: ScriptedUpstream) -> None:
    """Fields that a browser sends make nobody one; cookies go nowhere, as ever."""
    upstream.answer(response(200, ((b"Set-Cookie", b"a=1"), (b"Access-Control-Allow-Origin", b"*"))))
    client = through(colour, proxy_to(upstream))
    fields = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site", "Cookie": "b=2", "Referer": "x"}
    got = colour.run(client.get, "http://crm.invalid/", headers=fields)
    assert (got.status_code, got.headers["set-cookie"]) == (200, "a=1")
    assert ("vary" in got.headers, "access-control-allow-origin" in got.headers) == (False, True)
    assert upstream.requests[0].values(b"cookie") == []


# What the proxy answers.


def test_own_answers_are_those_of_the_wire(each: Colour, upstream: ScriptedUpstream) -> None:
    """What the proxy itself answers is a response with the very fields and body that callers get."""
    client = through(each, proxy_to(upstream), "unknown")
    got = each.run(client.get, "http://crm.invalid/")
    fields, content = problem(ConnectionNotFound())
    assert (got.status_code, got.headers.raw, got.content) == (404, fields, content)
    assert error_of(got) == "http_request_error"


def test_failures_of_the_upstream(colour: Colour, upstream: ScriptedUpstream, closed_port: int) -> None:
    """An upstream that cannot be reached, or that may not be dialled, is an answer and no exception."""
    connections = [Connection("closed", f"http://127.0.0.1:{closed_port}"), Connection("private", "http://10.0.0.1")]
    credentials = StaticCredentials({"closed": NumberedTokens(), "private": NumberedTokens()})
    proxy = proxy_to(upstream, resolver=StaticResolver(connections), credentials=credentials)
    for selector, status, error in (
        ("closed", 502, "connection_refused"),
        ("private", 403, "destination_ip_prohibited"),
    ):
        got = colour.run(through(colour, proxy, selector).get, "http://crm.invalid/")
        assert (got.status_code, error_of(got)) == (status, error)


def test_time_outs_of_the_client(colour: Colour, upstream: ScriptedUpstream) -> None:
    """A client that waits less than the proxy has its time-out kept."""

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.wait_closed(5)

    client = through(colour, proxy_to(upstream))
    got = colour.run(client.get, "http://crm.invalid/", timeout=0.2)
    assert (got.status_code, error_of(got)) == (504, "http_response_timeout")


def test_rejected_credentials_are_refreshed(each: Colour, upstream: ScriptedUpstream) -> None:
    """After a 401 the request is sent once more with a newer credential, its streamed body included."""
    upstream.answer(response(401), response(body=b"fine"))
    proxy = proxy_to(upstream, credentials=StaticCredentials({"crm": NumberedTokens()}))
    content = each.content(iter([b"abc", b"def"]))
    assert each.run(through(each, proxy).post, "http://crm.invalid/x", content=content).text == "fine"
    one, two = upstream.requests
    assert (one.body, two.body) == (b"abcdef", b"abcdef")
    assert (one.header(b"authorization"), two.header(b"authorization")) == (
        f"Bearer {UPSTREAM_SECRET}-1".encode(),
        f"Bearer {UPSTREAM_SECRET}-2".encode(),
    )


def test_limits_hold(colour: Colour, upstream: ScriptedUpstream) -> None:
    """A connection gets only so many requests at once; whoever closes its response makes room, read or not."""
    proxy = proxy_to(upstream, limits=Limits(per_connection_concurrency=1, request_body=5))
    client = through(colour, proxy)
    assert colour.run(client.post, "http://crm.invalid/", content=b"abcdef").status_code == 413
    with colour.entered(client.stream("GET", "http://crm.invalid/")) as held:
        assert held.status_code == 200
        assert colour.run(client.get, "http://crm.invalid/").status_code == 429
    assert colour.run(client.get, "http://crm.invalid/").status_code == 200
    assert colour.run(client.get, "http://crm.invalid/").status_code == 200


def test_observers_are_told(colour: Colour, upstream: ScriptedUpstream) -> None:
    """Observers see a request as they see those of the doors."""
    told: list[Event] = []
    client = through(colour, proxy_to(upstream, observers=[told.append]))
    colour.run(client.post, "http://crm.invalid/x?key=1", content=b"abc")
    colour.run(client.get, "http://elsewhere.example/")
    kinds = [event.kind for event in told]
    assert kinds[:5] == ["matched", "resolved", "attempt", "response_started", "finished"]
    assert kinds[5:] == ["matched", "resolved", "denied", "finished"]
    finished, refused = told[4], told[-1]
    assert (finished.status, finished.error, finished.received, finished.sent) == (200, None, 3, 2)
    assert (refused.status, refused.error) == (403, "http_request_denied")


# Whose connections they are.


def test_pools_are_the_proxys(each: Colour, upstream: ScriptedUpstream) -> None:
    """Transports share the proxy's connections, and leave them open when they are closed."""
    proxy = proxy_to(upstream)
    for _ in range(2):
        with each.entered(through(each, proxy)) as client:
            assert each.run(client.get, "http://crm.invalid/").text == "ok"
        with each.entered(ProxyTransport(proxy, "crm", "anyone")):
            pass
        each.run(client.close if each.blocking else client.aclose)
    # Under trio the upstream is a transport that keeps none.
    assert upstream.connections == (2 if each.name == "trio" else 1)


def test_another_transport_as_upstream(each: Colour) -> None:
    """A proxy whose upstream is a transport itself serves clients of either library."""

    def answer(request: Any) -> Any:
        return httpx.Response(200, content=b"%b %b" % (request.url.raw_path, request.content))

    proxy = Proxy(
        resolver=StaticResolver([Connection("crm", "https://api.example.com")]),
        credentials=StaticCredentials({"crm": NumberedTokens()}),
        authenticate=anyone,
        upstream=httpx.MockTransport(answer),
    )
    client = through(each, proxy)
    assert each.run(client.post, "https://api.example.com/x", content=b"abc").content == b"/x abc"


def test_proxies_make_transports(each: Colour, upstream: ScriptedUpstream) -> None:
    """`Proxy.transport` makes one for a selector, and anyone or the caller that is given."""
    seen: list[object] = []

    class Resolver:
        def resolve(self, selector: str, request: ProxyRequest) -> Connection:
            seen.append((selector, request.caller))
            return Connection("crm", upstream.url)

    proxy = proxy_to(upstream, resolver=Resolver())
    for transport in (proxy.transport("one"), proxy.transport("two", caller="alice")):
        assert each.run(each.http(transport).get, "http://crm.invalid/").text == "ok"
    each.closing(proxy.close if each.blocking else proxy.aclose)
    assert seen == [("one", "anyone"), ("two", "alice")]


def test_engines_are_made_once(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transports that are first used in several threads at once share one pool, which the proxy closes."""
    together = threading.Barrier(2)

    class Met(ThreadsUpstream):
        def __init__(self, *settings: Any) -> None:
            together.wait(5)
            super().__init__(*settings)

    monkeypatch.setattr("proxy_middleware.upstream.threads.ThreadsUpstream", Met)
    proxy = proxy_to(upstream)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(proxy.wsgi_performers()[Forward])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert found[0].__self__ is found[1].__self__
