"""A wall clock that jumps by hours, as after a suspended machine or a first answer of a time server.

Only the wall clock jumps: what is timed is timed by the monotonic one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from proxy_middleware import Connection, Credential, Timeouts, _drive, _providers
from proxy_middleware._single_flight import CredentialCache
from tests.callers import RawResponse, call, request
from tests.in_process import proxy_to
from tests.integration.asking import check_problem
from tests.integration.faults.doors import DOORS, serve
from tests.upstreams import Exchange, ScriptedUpstream, response
from tests.wire import Address

HOUR = 3600.0
JUMPS = {"forward": 5 * HOUR, "backward": -5 * HOUR}


class Wall:
    """The wall clock of the proxy, which jumps when it is told to."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead

    def jump(self, seconds: float) -> None:
        """From now on it is so much later."""
        self._ahead += seconds


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """The clock that whatever is made from now on looks at."""
    clock = Wall()
    monkeypatch.setattr(_drive, "time", clock)
    monkeypatch.setattr(_providers, "time", clock)
    monkeypatch.setitem(CredentialCache.__init__.__kwdefaults__ or {}, "now", clock)
    return clock


class Tokens:
    """A provider of numbered tokens that live for an hour by a clock; it keeps the last of them, as a store does."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._token = self._new()
        self.refreshed: list[Credential] = []

    def _new(self) -> Credential:
        return Credential.bearer(f"token-{uuid4()}", expires_at=self._clock() + HOUR)

    def obtain(self, connection: Connection) -> Credential:
        """The last one."""
        return self._token

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The next one."""
        with self._lock:
            self.refreshed.append(rejected)
            self._token = self._new()
            return self._token


@contextmanager
def served(door: str, upstream: ScriptedUpstream, tokens: Tokens, **settings: Any) -> Iterator[Address]:
    """A real server with this provider, which has answered once."""
    proxy = proxy_to(upstream, credentials=tokens, **settings)
    with serve(door, proxy) as address:
        assert ask(address).status == 200
        yield address
    proxy.close()


def ask(address: Address) -> RawResponse:
    """The answer to a request."""
    return call(address, request("GET", "/connections/crm/proxy/x", [("Connection", "close")]))


def crowd(address: Address) -> set[int]:
    """The statuses of requests that come one after the other, and then together."""
    alone = {ask(address).status for _ in range(10)}
    with ThreadPoolExecutor(10) as threads:
        return alone | {answer.status for answer in threads.map(ask, [address] * 20)}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("way", JUMPS)
def test_tokens_by_the_same_clock(door: str, way: str, wall: Wall, upstream: ScriptedUpstream) -> None:
    """A token whose time was jumped over is refreshed once; one whose time comes later now is not refreshed at all."""
    tokens = Tokens(wall)
    with served(door, upstream, tokens) as address:
        first = tokens.obtain(Connection("crm", upstream.url))
        wall.jump(JUMPS[way])
        assert crowd(address) == {200}
    assert tokens.refreshed == ([first] if way == "forward" else [])


@pytest.mark.parametrize("door", DOORS)
def test_tokens_by_a_clock_that_stays(door: str, wall: Wall, upstream: ScriptedUpstream) -> None:
    """Where every token looks expired, as it is our clock that is wrong, it is not refreshed for each request."""
    tokens = Tokens(time.time)
    with served(door, upstream, tokens) as address:
        wall.jump(5 * HOUR)
        assert crowd(address) == {200}
    assert 1 <= len(tokens.refreshed) <= 2


@pytest.mark.parametrize("door", DOORS)
def test_token_that_expired_unseen(door: str, wall: Wall, upstream: ScriptedUpstream) -> None:
    """Where a clock that jumped back hides that a token has expired, the upstream's word counts."""
    tokens = Tokens(wall)
    with served(door, upstream, tokens) as address:
        wall.jump(-5 * HOUR)
        old = upstream.requests[0].header(b"authorization")
        upstream.script(lambda exchange: exchange.send(response(401 if _is(exchange, old) else 200)))
        assert crowd(address) == {200}
    assert len(tokens.refreshed) == 1


def _is(exchange: Exchange, credential: bytes | None) -> bool:
    return exchange.request.header(b"authorization") == credential


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("way", JUMPS)
def test_time_outs_and_idle_connections(door: str, way: str, wall: Wall, upstream: ScriptedUpstream) -> None:
    """A jump while a request waits neither ends its wait nor prolongs it, and idle connections stay good."""
    with served(door, upstream, Tokens(wall), timeouts=Timeouts(head=0.5)) as address:
        wall.jump(JUMPS[way])
        assert ask(address).status == 200
        assert upstream.connections == 1

        @upstream.script
        def silent(exchange: Exchange) -> None:
            wall.jump(JUMPS[way])
            assert exchange.wait_closed(10)

        begun = time.monotonic()
        check_problem(ask(address), 504, "connection", "upstream_timeout", "http_response_timeout")
        assert 0.4 < time.monotonic() - begun < 5
