"""A crowd in one process that is rejected at one time: one refresh, and everyone gets their answer."""

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest

from proxy_middleware import Connection, Proxy, StaticCredentials, StaticResolver, anyone
from proxy_middleware.credentials import OAuth2
from proxy_middleware.stores import Tokens
from tests.callers import call
from tests.credentials.oauth2 import LOOPBACK
from tests.in_process import Call, host
from tests.integration.credentials.load import FINE, SOON, asked, kind
from tests.servers import serve_wsgi
from tests.token_endpoint import TokenEndpoint

THREADS = 64
REQUESTS = 1000


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """A token endpoint whose first call waits for `release`, and an API that accepts nothing given before that."""
    with TokenEndpoint() as running:
        running.misbehave("hold", times=1)
        yield running


@pytest.fixture
def proxy(endpoint: TokenEndpoint) -> Proxy:
    """A proxy with the connection "crm" to that API, whose token has expired, which nobody has noticed yet."""
    oauth2 = OAuth2(endpoint.token_url, "client", "secret", egress=LOOPBACK)
    given = endpoint.connect()
    oauth2.store.put("crm", Tokens(given["access_token"], given["refresh_token"]))
    endpoint.expire_access_tokens()
    return Proxy(
        resolver=StaticResolver([Connection("crm", endpoint.api_url)]),
        credentials=StaticCredentials({"crm": oauth2}),
        authenticate=anyone,
        egress=LOOPBACK,
    )


def _let_go(endpoint: TokenEndpoint, callers: int) -> None:
    """Ends the refresh when everyone has been rejected."""
    endpoint.wait_for("api rejected", callers)
    endpoint.release()


def _check_counts(endpoint: TokenEndpoint, callers: int) -> None:
    counts = endpoint.state()
    names = ("token calls", "refresh_token", "api rejected", "api accepted")
    assert [counts[name] for name in names] == [1, 1, callers, callers]
    assert "reuses" not in counts


def _nobody(environ: Any, start_response: Any) -> NoReturn:
    raise AssertionError("it is the proxy's")


def test_threads(endpoint: TokenEndpoint, proxy: Proxy) -> None:
    """64 threads of one WSGI server that are rejected together: one refreshes, all are answered with a 200."""
    with serve_wsgi(proxy.wsgi(_nobody)) as address, ThreadPoolExecutor(THREADS) as pool:
        answers = [pool.submit(call, address, asked("crm"), timeout=SOON) for _ in range(THREADS)]
        _let_go(endpoint, THREADS)
        assert [kind(answer.result()) for answer in answers] == [FINE] * THREADS
    _check_counts(endpoint, THREADS)
    proxy.close()


@pytest.mark.anyio
async def test_tasks(endpoint: TokenEndpoint, proxy: Proxy) -> None:
    """1,000 requests on one event loop that are rejected together: one refreshes, all are answered with a 200."""
    door = proxy.asgi(host)
    calls = [asyncio.create_task(Call().at(door)) for _ in range(REQUESTS)]
    await asyncio.to_thread(_let_go, endpoint, REQUESTS)
    answers: Iterable[Call] = await asyncio.gather(*calls)
    assert [answer.statuses for answer in answers] == [[200]] * REQUESTS
    assert all(answer.ended for answer in answers)
    _check_counts(endpoint, REQUESTS)
    await proxy.aclose()
