"""An upstream that hangs and holds all of its places: its callers are told, and nobody else is concerned."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy_middleware import Connection, Credential, Limits, StaticCredentials, StaticResolver, Timeouts
from tests.callers import RawResponse, call, request
from tests.in_process import proxy_to
from tests.integration.asking import check_problem
from tests.integration.faults.doors import DOORS, serve
from tests.upstreams import Exchange, ScriptedUpstream, response
from tests.wire import Address

FULL = (503, "concurrency", "lock_timeout", "connection_limit_reached")
PLACES = 4


@pytest.fixture
def other() -> Iterator[ScriptedUpstream]:
    """Another upstream, which answers."""
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture(params=DOORS)
def address(request: pytest.FixtureRequest, upstream: ScriptedUpstream, other: ScriptedUpstream) -> Iterator[Address]:
    """A door that has four places to an origin; two connections lead to one, the third to another."""
    connections = [Connection("one", upstream.url), Connection("same", upstream.url), Connection("other", other.url)]
    proxy = proxy_to(
        upstream,
        resolver=StaticResolver(connections),
        credentials=StaticCredentials(dict.fromkeys((each.id for each in connections), Credential.bearer("secret"))),
        limits=Limits(connections_per_origin=PLACES),
        timeouts=Timeouts(pool=0.3),
    )
    with serve(request.param, proxy) as served:
        yield served
    proxy.close()


def ask(address: Address, selector: str, path: str = "x") -> RawResponse:
    """The answer to a request."""
    return call(address, request("GET", f"/connections/{selector}/proxy/{path}", [("Connection", "close")]))


@pytest.mark.parametrize("ending", ["answered", "broken off"])
def test_origin_that_hangs(ending: str, address: Address, upstream: ScriptedUpstream, other: ScriptedUpstream) -> None:
    """Its callers get a 503 that says when to come again, others an answer; when it moves, the places are free."""
    go_on = threading.Event()

    def hang(exchange: Exchange) -> None:
        exchange.wait(go_on)
        exchange.send(response(body=b"at last")) if ending == "answered" else exchange.reset()

    upstream.route(b"/hang", hang)
    with ThreadPoolExecutor(3 * PLACES) as threads:
        hanging = [threads.submit(ask, address, "one", "hang") for _ in range(PLACES)]
        upstream.wait_for_requests(PLACES)
        refused = [threads.submit(ask, address, selector) for selector in ("one", "same") * PLACES]
        served = [ask(address, "other").body for _ in range(2 * PLACES)]
        assert not any(each.done() for each in hanging)
        for each in refused:
            check_problem(each.result(), *FULL)
            assert each.result().header(b"retry-after") == b"1"
        go_on.set()
        ended = {each.result().status for each in hanging}
    assert served == [b"ok"] * 2 * PLACES
    assert ended == {200 if ending == "answered" else 502}
    assert len(upstream.requests) == PLACES  # GETs, but on new connections: none is sent again.
    with ThreadPoolExecutor(PLACES) as threads:
        answers = [each.body for each in threads.map(ask, [address] * 20, ["one", "same"] * 10)]
    assert answers == [b"ok"] * 20
    assert upstream.connections <= PLACES * (1 if ending == "answered" else 2)
