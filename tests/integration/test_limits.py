"""Limits of a connection: how many requests at once, and how many in a stretch of time."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.callers import OpenCall, open_call
from tests.conftest import StartProxy
from tests.integration.asking import FOUR, ask, asked, check_problem
from tests.upstreams import Exchange, ScriptedUpstream, response
from tests.wire import Address

REFUSED = 429, "bad_request", "rate_limit_exceeded", "http_request_denied"


@pytest.fixture
def release(shared_upstream: ScriptedUpstream) -> Iterator[threading.Event]:
    """Has the upstream answer `/held`, and every request after it."""
    free = threading.Event()

    def held(exchange: Exchange) -> None:
        assert free.wait(10)
        exchange.send(response(body=b"held"))

    shared_upstream.route(b"/held", held)
    shared_upstream.route(b"/ok", response(body=b"ok"))
    yield free
    free.set()


@contextmanager
def holding(address: Address, upstream: ScriptedUpstream, count: int) -> Iterator[list[OpenCall]]:
    """So many requests to `one` that the upstream has, and does not answer yet."""
    with ExitStack() as stack:
        before = len(upstream.requests)
        calls = [stack.enter_context(open_call(address, asked("one/proxy/held"))) for _ in range(count)]
        upstream.wait_for_requests(before + count)
        yield calls


def until(condition: Callable[[], bool]) -> None:
    """Waits until it holds; fails after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def limited(start_proxy: StartProxy) -> Callable[[str], Address]:
    """Starts a host whose connections get two requests at once."""
    return lambda server: (
        start_proxy(server, limits={"per_connection_concurrency": 2}, connections={"one": {}, "two": {}}).address
    )


@pytest.mark.parametrize("server", [*FOUR, "hypercorn"])
class TestConcurrency:
    def test_one_too_many(
        self,
        server: str,
        limited: Callable[[str], Address],
        shared_upstream: ScriptedUpstream,
        release: threading.Event,
    ) -> None:
        """A third request is a 429 at once; other connections go on; when the two are done, there is room again."""
        address = limited(server)
        with holding(address, shared_upstream, 2) as calls:
            refused = ask(address, "one/proxy/ok")
            check_problem(refused, *REFUSED)
            assert refused.header(b"retry-after") == b"1"
            assert ask(address, "two/proxy/ok").body == b"ok"
            release.set()
            assert [call.read_rest().body for call in calls] == [b"held", b"held"]
        until(lambda: ask(address, "one/proxy/ok").status == 200)

    def test_callers_that_leave(
        self,
        server: str,
        limited: Callable[[str], Address],
        shared_upstream: ScriptedUpstream,
        release: threading.Event,
    ) -> None:
        """Who leaves makes room, as does who was refused or failed."""
        address = limited(server)
        for _ in range(3):
            assert ask(address, "one/proxy/../x").status == 400
            assert ask(address, "one/proxy/https://foreign.example/").status == 403
        with holding(address, shared_upstream, 2):
            check_problem(ask(address, "one/proxy/ok"), *REFUSED)
        release.set()
        until(lambda: ask(address, "one/proxy/ok").status == 200)


@pytest.mark.parametrize("server", [*FOUR, "hypercorn"])
def test_rate(server: str, start_proxy: StartProxy, shared_upstream: ScriptedUpstream) -> None:
    """What is beyond the rate is a 429 that says when to come again; other connections are not concerned."""
    shared_upstream.route(b"/ok", response(body=b"ok"))
    address = start_proxy(server, limits={"rate": "2/hour"}, connections={"one": {}, "two": {}}).address
    statuses = [ask(address, "one/proxy/ok").status for _ in range(3)]
    # The server may have been started for a test before.
    assert statuses in ([200, 200, 429], [429, 429, 429])
    refused = ask(address, "one/proxy/ok")
    check_problem(refused, *REFUSED)
    assert 3000 < int(refused.header(b"retry-after") or 0) <= 3601
    assert ask(address, "two/proxy/ok").status in (200, 429)
