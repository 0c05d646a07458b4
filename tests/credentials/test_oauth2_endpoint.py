"""One call to a token endpoint: its deadline, TLS, and the addresses it dials."""

import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest

from proxy_middleware import EgressPolicy
from proxy_middleware.credentials._token_endpoint import Granted, Outage, Refused
from proxy_middleware.credentials._token_endpoint import TokenEndpoint as Asked
from proxy_middleware.upstream.httpx_library import library_of
from tests.credentials.oauth2 import LOOPBACK
from tests.token_endpoint import TokenEndpoint
from tests.upstreams import Exchange, ScriptedUpstream, response

TOKEN = response(200, ((b"Content-Type", b"application/json"),), b'{"access_token": "new", "token_type": "bearer"}')
SOON = 20.0


@pytest.fixture(autouse=True, params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The library that calls of our own are made with."""
    own = library_of(request.param.Headers())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxy_middleware.credentials._token_endpoint.own_library", lambda: own)
        yield request.param


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """A token endpoint of this test's own."""
    with TokenEndpoint() as running:
        yield running


def ask(url: str, seconds: float = SOON, **options: Any) -> Granted | Refused | Outage:
    """What comes of one call; loopback may be dialled."""
    settings = {"egress": LOOPBACK, "ssl_context": None, "transport": None, **options}
    return Asked(url, **settings).ask({}, "grant_type=x", time.monotonic() + seconds)


@pytest.mark.parametrize("options", [{"kind": "drip"}, {"kind": "drip", "body": True}, {"kind": "hold"}])
def test_deadline(endpoint: TokenEndpoint, options: dict[str, Any]) -> None:
    """An answer that comes byte by byte, in its head or body, outlasts the deadline no more than silence does."""
    endpoint.misbehave(**options)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # To load authorities would take from the time.
    began = time.monotonic()
    assert ask(endpoint.token_url, 1, ssl_context=tls) == Outage("no answer (ReadTimeout)")
    assert time.monotonic() - began < SOON


def test_deadline_of_a_given_transport(endpoint: TokenEndpoint, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given transport keeps the deadline, but for the time that is left to a late answer."""
    monkeypatch.setattr("proxy_middleware.credentials._token_endpoint.LATE", 0.5)
    endpoint.misbehave("drip", body=True)
    with library.HTTPTransport() as transport:
        failed = ask(endpoint.token_url, 1, egress=None, transport=transport)
    assert failed == Outage("no answer (ReadTimeout)")


def test_deadline_of_connecting(stalled_port: int) -> None:
    """A connection that does not come about is given up at the deadline."""
    assert ask(f"http://127.0.0.1:{stalled_port}/", 0.4) == Outage("no answer (ConnectTimeout)")


def test_deadline_that_has_passed(endpoint: TokenEndpoint) -> None:
    """Nothing is sent once it is too late."""
    assert ask(endpoint.token_url, -1) == Outage("no answer (ConnectTimeout)")
    assert endpoint.state() == {}


def test_deadline_of_tls(endpoint: TokenEndpoint, trusting_context: ssl.SSLContext, upstream: ScriptedUpstream) -> None:
    """A peer that never answers the TLS handshake is given up at the deadline."""
    failed = ask(upstream.url.replace("http:", "https:"), 0.4, ssl_context=trusting_context)
    assert isinstance(failed, Outage)


def test_tls(tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext) -> None:
    """The certificate is verified, for the name as well as for the address."""
    tls_upstream.answer(TOKEN, TOKEN)
    for host in ("127.0.0.1", "localhost"):
        given = ask(tls_upstream.url.replace("127.0.0.1", host), ssl_context=trusting_context)
        assert isinstance(given, Granted)
        assert given.access_token == "new"


def test_tls_of_strangers(tls_upstream: ScriptedUpstream) -> None:
    """A certificate that nobody vouches for ends the call before anything secret is sent."""
    assert ask(tls_upstream.url) == Outage("no answer (ConnectError)")
    assert tls_upstream.requests == []


def test_several_addresses(upstream: ScriptedUpstream) -> None:
    """A name with an address that does not answer, or may not be dialled, is reached at another one."""
    upstream.answer(TOKEN, TOKEN)
    url = upstream.url.replace("127.0.0.1", "localhost")
    for policy in (LOOPBACK, EgressPolicy(allow=["127.0.0.0/8", "::1/128"])):
        assert isinstance(ask(url, egress=policy), Granted)


def test_name_that_does_not_exist() -> None:
    """A name without an address fails the call, as soon as that is known and no later than the deadline."""
    failed = ask("http://nowhere.invalid/token", 1.0)
    assert failed in (Outage("no answer (ConnectError)"), Outage("no answer (ConnectTimeout)"))


def test_answer_cut_short(upstream: ScriptedUpstream) -> None:
    """A body that ends before its length is no answer, even if what came is whole JSON."""
    longer = TOKEN.replace(b"Content-Length: ", b"Content-Length: 9")

    def break_off(exchange: Exchange) -> None:
        exchange.send(longer)
        exchange.close()

    upstream.script(break_off)
    assert ask(upstream.url) == Outage("no answer (RemoteProtocolError)")


def test_what_is_sent(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is a form and nothing else; the environment has no say, and no connection is kept."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    upstream.answer(TOKEN, TOKEN)
    for _ in range(2):
        assert isinstance(ask(upstream.url + "/token?a=%2F"), Granted)
    first, second = upstream.wait_for_requests(2)
    assert (first.method, first.target, first.body) == (b"POST", b"/token?a=%2F", b"grant_type=x")
    assert sorted(name.lower() for name, _ in first.fields) == [
        *(b"accept", b"accept-encoding", b"content-length", b"content-type", b"host", b"user-agent")
    ]
    assert first.connection_number != second.connection_number
