"""The token endpoint is dialled under the policy of the proxy, in either door, over real sockets."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from proxy_middleware import (
    Connection,
    CredentialProvider,
    EgressPolicy,
    Proxy,
    StaticCredentials,
    StaticResolver,
    anyone,
)
from proxy_middleware.credentials import OAuth2
from proxy_middleware.stores import Tokens
from tests.callers import call
from tests.credentials.oauth2 import LOOPBACK
from tests.credentials.proxied import wsgi_host
from tests.in_process import host
from tests.integration.credentials.load import FINE, REJECTED, UNUSABLE, Answer, asked, kind
from tests.servers import serve_asgi, serve_wsgi
from tests.token_endpoint import TokenEndpoint
from tests.wire import Address

DENYING = EgressPolicy(allow=["127.0.0.0/8"], deny=["127.0.0.2/32"])

Served = Callable[[Proxy], AbstractContextManager[Address]]


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """A token endpoint, and an API that accepts its tokens only."""
    with TokenEndpoint() as running:
        yield running


@pytest.fixture(params=["asgi", "wsgi"])
def served(request: pytest.FixtureRequest) -> Served:
    """Serves a proxy on a real server, in either door."""

    @contextmanager
    def serve(proxy: Proxy) -> Iterator[Address]:
        door = serve_asgi(proxy.asgi(host)) if request.param == "asgi" else serve_wsgi(proxy.wsgi(wsgi_host))
        with door as address:
            yield address
        proxy.close()

    return serve


@contextmanager
def listening() -> Iterator[tuple[str, Callable[[], bool]]]:
    """The URL of a token endpoint that never answers, on 127.0.0.2, and whether anybody has connected to it."""
    with socket.create_server(("127.0.0.2", 0)) as listener:
        listener.setblocking(False)

        def called() -> bool:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield f"http://127.0.0.2:{listener.getsockname()[1]}/token", called


def stale(endpoint: TokenEndpoint, token_url: str | None = None, **options: Any) -> OAuth2:
    """A provider for the connection "crm", whose access token has expired without anybody knowing."""
    oauth2 = OAuth2(token_url or endpoint.token_url, "client", "secret", **options)
    given = endpoint.connect()
    oauth2.store.put("crm", Tokens(given["access_token"], given["refresh_token"]))
    endpoint.expire_access_tokens()
    return oauth2


def answered(served: Served, endpoint: TokenEndpoint, credentials: CredentialProvider, **settings: Any) -> Answer:
    """What a request through the proxy is answered with."""
    connections = StaticResolver([Connection("crm", endpoint.api_url)])
    proxy = Proxy(resolver=connections, credentials=credentials, authenticate=anyone, **settings)
    with served(proxy) as address:
        return kind(call(address, asked("crm")))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_policy_of_the_proxy(served: Served, endpoint: TokenEndpoint, depth: int) -> None:
    """A token endpoint on an address that the proxy allows is asked, however deep its provider stands."""
    credentials: CredentialProvider = stale(endpoint)
    for _ in range(depth):
        credentials = StaticCredentials({"crm": credentials})
    assert answered(served, endpoint, credentials, egress=LOOPBACK) == FINE
    assert endpoint.state()["refresh_token"] == 1


def test_default_policy(served: Served, endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture) -> None:
    """Under the default policy nobody connects to a token endpoint on loopback, and the log says why."""
    caplog.set_level(logging.WARNING, "proxy_middleware")
    with listening() as (token_url, called):
        robot = OAuth2(token_url, "client", "secret", grant="client_credentials")
        assert answered(served, endpoint, StaticCredentials({"crm": robot})) == UNUSABLE
        assert not called()
    assert "the egress policy refuses its address" in caplog.text


def test_denied_by_the_proxy(served: Served, endpoint: TokenEndpoint) -> None:
    """Nobody connects to a token endpoint that the proxy denies, though its upstreams are beside it and reached."""
    with listening() as (token_url, called):
        assert answered(served, endpoint, stale(endpoint, token_url), egress=DENYING) == REJECTED
        assert not called()
    assert endpoint.state()["api rejected"] == 1


def test_own_policy_is_narrower(served: Served, endpoint: TokenEndpoint) -> None:
    """Nobody connects to a token endpoint that OAuth2's own policy refuses, whatever the proxy's allows."""
    with listening() as (token_url, called):
        credentials = stale(endpoint, token_url, egress=EgressPolicy())
        assert answered(served, endpoint, credentials, egress=LOOPBACK) == REJECTED
        assert not called()


def test_own_policy_is_wider(served: Served, endpoint: TokenEndpoint) -> None:
    """A token endpoint that OAuth2's own policy allows is asked, while the proxy's still holds for the upstream."""
    robot = OAuth2(endpoint.token_url, "client", "secret", grant="client_credentials", egress=LOOPBACK)
    assert answered(served, endpoint, robot) == (403, True)
    assert (endpoint.state()["token calls"], "api accepted" in endpoint.state()) == (1, False)
