"""Where a refresh comes to nothing, the upstream's first answer is returned, byte for byte, and nothing is resent."""

import hashlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait

import pytest

from tests.callers import RawResponse
from tests.host_plugins import UPSTREAM_SECRET
from tests.integration.asking import check_clean, check_problem
from tests.integration.auth_calls import (
    DOORS,
    HASTY_BACKOFF,
    HASTY_TTL,
    JSON,
    Host,
    StartHost,
    api_calls,
    bearer_api,
    selector_of,
    strict_grants,
    token_calls,
    token_of,
)
from tests.integration.bulk import MIB
from tests.integration.traits import TRAITS
from tests.servers import WSGI_SERVERS
from tests.upstreams import Exchange, Script, ScriptedUpstream, response
from tests.wire import Fields, chunked

FIELDS = (
    (b"WWW-Authenticate", b'Bearer realm="a, b", error="invalid_token"'),
    (b"Set-Cookie", b"a=1; Path=/"),
    (b"x-MiXed", b""),
    (b"Set-Cookie", b"b=2"),
    (b"Content-Encoding", b"made-up"),
)
LARGE = hashlib.shake_256(b"original").digest(10 * MIB)
CROWD = 100


each_door = pytest.mark.parametrize("server", DOORS)


def original(body: bytes, framing: str) -> bytes:
    """A 401 with this body."""
    head = [b"HTTP/1.1 401 Nope", *(b"%b: %b" % pair for pair in FIELDS)]
    if framing == "length":
        head.append(b"Content-Length: %d" % len(body))
    if framing == "chunked":
        head.append(b"Transfer-Encoding: chunked")
        body = chunked(*(body[at : at + 100_003] for at in range(0, len(body), 100_003)))
    return b"\r\n".join([*head, b"", body])


def check_original(server: str, answer: RawResponse, body: bytes, framing: str = "length") -> None:
    """Asserts that this is the whole first answer, and nothing but that."""
    traits = TRAITS[server]
    length: Fields = ((b"Content-Length", b"%d" % len(body)),) if framing == "length" else ()
    expected = traits.delivered((*FIELDS, *length))
    assert (answer.status, answer.complete, len(answer.body)) == (401, True, len(body))
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()
    assert traits.without_own(answer.fields, expected) == expected
    assert not traits.keeps_reason or answer.reason == b"Nope"
    check_clean(answer)


FAILURES = [
    "raises",
    "raises-refresh-failed",
    "raises-unavailable",
    "raises-outage",
    "raises-timeout",
    "raises-stop",
    "raises-cancelled",
    "same",
    "gives-none",
    "gives-text",
    "gives-class",
]


# And on trio's event loop, where nothing raises asyncio's CancelledError.
EVERYWHERE = [(server, kind) for server in DOORS for kind in FAILURES]
EVERYWHERE += [("hypercorn-trio", kind) for kind in FAILURES if kind != "raises-cancelled"]


@pytest.mark.parametrize(("server", "kind"), EVERYWHERE)
def test_provider_that_fails(host: Host, kind: str, shared_upstream: ScriptedUpstream) -> None:
    """Whatever a refresh raises or gives instead of a newer credential: the first answer, and no second request."""
    shared_upstream.answer(original(b"expired\r\n\r\n", "length"), response(body=b"second"))
    selector = selector_of(kind)
    check_original(host.server, host.ask(selector, "POST", body=b"{}"), b"expired\r\n\r\n")
    assert len(shared_upstream.requests) == 1
    # Nor does it end what serves the requests, or show what was raised.
    assert host.ask(selector).body == b"second"
    assert UPSTREAM_SECRET not in host.running.log()


def lost(exchange: Exchange) -> None:
    """A token endpoint that closes the connection once it has the request."""
    exchange.read(None)
    exchange.close()


GARBAGE: dict[str, bytes | Callable[[Exchange], None]] = {
    "no JSON": response(200, JSON, b"\xff<html>"),
    "cut JSON": response(200, JSON, b'{"access_token": "x"'),
    "deep JSON": response(200, JSON, b"[" * 100_000),
    "no object": response(200, JSON, b'["access_token"]'),
    "no token": response(200, JSON, b'{"token_type": "Bearer"}'),
    "token with a line break": response(200, JSON, b'{"access_token": "x\\r\\nX-Evil: 1"}'),
    "token of another type": response(200, JSON, b'{"access_token": "x", "token_type": "mac"}'),
    "too long": response(200, JSON, b'{"access_token": "x"}' + b" " * 2 * MIB),
    "redirect": response(307, ((b"Location", b"/x"),)),
    "refusal": response(400, JSON, b'{"error": "invalid_client"}'),
    "outage": response(503, (), b"busy"),
    "no HTTP": b"SSH-2.0-nothing here\r\n\r\n",
    "short body": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{",
    "lost": lost,
}


@each_door
@pytest.mark.parametrize("garbage", GARBAGE)
def test_token_endpoint_that_answers_garbage(host: Host, garbage: str, shared_upstream: ScriptedUpstream) -> None:
    """An answer of the token endpoint that gives no token leaves the caller with the upstream's first answer."""
    shared_upstream.route(b"/token", GARBAGE[garbage])
    shared_upstream.answer(original(b"expired", "length"), response(body=b"second"))
    selector = selector_of("oauth2")
    host.connect(selector, access_token="old", refresh_token="spent")
    check_original(host.server, host.ask(selector), b"expired")
    assert [token_of(seen) for seen in api_calls(shared_upstream)] == ["old"]
    assert len(token_calls(shared_upstream)) == 1


@each_door
@pytest.mark.parametrize("kind", ["raises", "same", "oauth2"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_large_answer(host: Host, kind: str, framing: str, shared_upstream: ScriptedUpstream) -> None:
    """10 MiB wait while the refresh fails, and come through whole, however their end is told."""
    shared_upstream.route(b"/token", response(500))
    answer = original(LARGE, framing)

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(answer)
        if framing == "close":
            exchange.close()

    selector = selector_of(kind)
    if kind == "oauth2":
        host.connect(selector, access_token="old", refresh_token="spent")
    check_original(host.server, host.ask(selector), LARGE, framing)
    assert len(api_calls(shared_upstream)) == 1


# Endpoints and providers that hang.


@pytest.mark.timeout(90)
def test_hanging_refresh(start_auth_host: StartHost, shared_upstream: ScriptedUpstream) -> None:
    """A refresh that hangs is given up after some seconds; a blocking provider keeps only the caller it works for."""
    let_go = threading.Event()
    shared_upstream.route(b"/token", hanging(let_go))
    shared_upstream.answer(original(b"expired", "length"))
    hosts = [start_auth_host(server) for server in DOORS]
    with ThreadPoolExecutor(16) as pool:
        calls = {(host, kind): two_callers(pool, host, kind) for host in hosts for kind in HANGING}
        deadline = time.monotonic() + 25
        for (host, kind), pair in calls.items():
            # In a thread, what has been called cannot be given up: one of the two waits for it.
            keeps = host.server in WSGI_SERVERS and kind == "hangs"
            until = FIRST_COMPLETED if keeps else ALL_COMPLETED
            assert len(wait(pair, deadline - time.monotonic(), until).done) >= (1 if keeps else 2), (host, kind)
        for host in hosts:
            host.tell("/let-go")
        let_go.set()
        for (host, _), pair in calls.items():
            for answer in pair:
                check_original(host.server, answer.result(), b"expired")
    assert len(token_calls(shared_upstream)) == 4


HANGING = ["hangs", "hangs-later", "silent", "dripping"]


def hanging(let_go: threading.Event) -> Script:
    """A token endpoint that says nothing; to a client that spends "dripping", an endless head, byte by byte."""

    def script(exchange: Exchange) -> None:
        if b"dripping" in exchange.body:
            exchange.send(b"HTTP/1.1 200 OK\r\nx-drip: ")
            while not let_go.wait(0.1):
                exchange.send(b" ")
        else:
            exchange.wait(let_go, 60)

    return script


def two_callers(pool: Executor, host: Host, kind: str) -> list[Future[RawResponse]]:
    """Two calls at a time for one connection; of the provider of this kind, or of OAuth2."""
    if kind.startswith("hangs"):
        selector = selector_of(kind)
    else:
        selector = selector_of("oauth2")
        host.connect(selector, access_token="old", refresh_token=kind)
    return [pool.submit(host.ask, selector, timeout=60) for _ in range(2)]


# Crowds.


def crowd(host: Host, selector: str, prefix: str = "/connections") -> list[RawResponse]:
    """What a hundred callers get who come at the same time."""
    with ThreadPoolExecutor(CROWD) as pool:
        return list(pool.map(lambda _: host.ask(selector, prefix=prefix), range(CROWD)))


def failures(host: Host, selector: str) -> int:
    """How often the token endpoint was asked in vain for a connection, by the log."""
    lines = host.running.log().splitlines()
    return sum("token endpoint" in line and repr(selector) in line for line in lines)


@each_door
def test_crowd_with_a_dead_grant(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """Of all callers whose grant was revoked, however many come, one asks the token endpoint; all get the 401."""
    grants = strict_grants(shared_upstream)
    shared_upstream.script(bearer_api(grants.accepts, bad=original(b"expired", "length")))
    selector = selector_of("oauth2")
    host.connect(selector, **grants.connect("basic"))
    assert host.ask(selector).body == b"welcome"
    grants.revoke()
    for _ in range(2):
        for answer in crowd(host, selector):
            check_original(host.server, answer, b"expired")
    assert (len(token_calls(shared_upstream)), failures(host, selector)) == (1, 1)


@each_door
def test_dead_grant_later(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """Once the provider is asked again, a dead grant is a 424, without another token call, until there is a new one."""
    grants = strict_grants(shared_upstream)
    shared_upstream.script(bearer_api(grants.accepts, bad=original(b"expired", "length")))
    selector = selector_of("oauth2")
    host.connect(selector, **grants.connect("basic"))
    grants.revoke()
    began = time.monotonic()
    while (answer := host.ask(selector, prefix="/hasty")).status == 401:
        check_original(host.server, answer, b"expired")
        assert time.monotonic() - began < 20
        time.sleep(0.05)
    assert time.monotonic() - began > HASTY_TTL
    for answer in crowd(host, selector, "/hasty"):
        check_problem(answer, 424, "connection", "access_token_expired", "proxy_configuration_error")
    assert failures(host, selector) == 1
    host.connect(selector, **grants.connect("basic"))
    assert host.ask(selector, prefix="/hasty").body == b"welcome"


@each_door
@pytest.mark.parametrize("kind", ["oauth2", "oauth2-refused"])
def test_crowd_with_an_endpoint_that_is_down(host: Host, kind: str, shared_upstream: ScriptedUpstream) -> None:
    """A token endpoint that is down is asked once per back-off, and all callers get the 401."""
    shared_upstream.route(b"/token", response(503))
    shared_upstream.answer(original(b"expired", "length"))
    selector = selector_of(kind)
    host.connect(selector, access_token="old", refresh_token="good")
    began = time.monotonic()
    answers = crowd(host, selector, "/hasty")
    asked_at_most(1 + (time.monotonic() - began) / HASTY_BACKOFF, host, selector)
    while failures(host, selector) < 2:
        answers.append(host.ask(selector, prefix="/hasty"))
        assert time.monotonic() - began < 20
        time.sleep(0.05)
    answers += crowd(host, selector, "/hasty")
    asked_at_most(1 + (time.monotonic() - began) / HASTY_BACKOFF, host, selector)
    for answer in answers:
        check_original(host.server, answer, b"expired")


def asked_at_most(times: float, host: Host, selector: str) -> None:
    """Asserts that the token endpoint was asked, and not more often."""
    assert 1 <= failures(host, selector) <= math.floor(times)


@each_door
def test_crowd_without_any_token(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """Where there is no token yet, and none to be had: a 424 for all, one call per back-off, and an end with it."""
    shared_upstream.route(b"/token", response(503))
    selector = selector_of("client-basic")
    began = time.monotonic()
    for answer in crowd(host, selector, "/hasty"):
        check_problem(answer, 424, "connection", "access_token_expired", "proxy_configuration_error")
    asked_at_most(1 + (time.monotonic() - began) / HASTY_BACKOFF, host, selector)
    assert not api_calls(shared_upstream)
    grants = strict_grants(shared_upstream)
    shared_upstream.script(bearer_api(grants.accepts))
    while (answer := host.ask(selector, prefix="/hasty")).status == 424:
        assert time.monotonic() - began < 20
        time.sleep(0.05)
    assert answer.body == b"welcome"
    assert time.monotonic() - began > HASTY_BACKOFF


@each_door
def test_early_refresh_that_fails(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """A token about to expire that cannot be refreshed is used as long as it lives; one that has expired is not."""
    shared_upstream.route(b"/token", response(503))
    dying, dead = selector_of("oauth2"), selector_of("oauth2")
    host.connect(dying, access_token="dying", refresh_token="good", expires_at=time.time() + 25)
    host.connect(dead, access_token="dead", refresh_token="good", expires_at=time.time() - 1)
    assert host.ask(dying).body == b"ok"
    check_problem(host.ask(dead), 424, "connection", "access_token_expired", "proxy_configuration_error")
    assert [token_of(seen) for seen in api_calls(shared_upstream)] == ["dying"]
    assert len(token_calls(shared_upstream)) == 2
