"""One host with both doors, and one upstream, for all SDKs."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Protocol

import pytest

from proxy_middleware import EgressPolicy, Proxy, StaticCredentials, StaticResolver, bearer_tokens
from tests.credentials.proxied import wsgi_host
from tests.in_process import host
from tests.integration.sdk.apis import APIS
from tests.integration.sdk.documented import documented
from tests.integration.sdk.stand_in import CALLER_TOKEN, CREDENTIALS, StandIn
from tests.servers import serve_asgi, serve_wsgi
from tests.upstreams import ScriptedUpstream


class SDK(Protocol):
    """Gives what examples/SDKS.md has for a library."""

    def __call__(self, library: str, url: str = "") -> dict[str, Any]:
        """The names that the library's block defines; the application is at the URL, or else where it is."""
        ...


@pytest.fixture(scope="session")
def running() -> Iterator[tuple[StandIn, dict[str, str]]]:
    """The upstream, and the host's URL under uvicorn and under werkzeug."""
    with ScriptedUpstream() as upstream:
        apis = StandIn(upstream, APIS)
        proxy = Proxy(
            resolver=StaticResolver(apis.connections()),
            credentials=StaticCredentials(CREDENTIALS),
            authenticate=bearer_tokens({CALLER_TOKEN: "alice"}),
            egress=EgressPolicy(allow=("127.0.0.0/8",)),
        )
        asgi, wsgi = serve_asgi(proxy.asgi(host)), serve_wsgi(proxy.wsgi(wsgi_host))
        with closing(proxy), asgi as one, wsgi as other:
            # By a name, since clients treat addresses differently.
            yield apis, {"uvicorn": f"http://localhost:{one[1]}", "werkzeug": f"http://localhost:{other[1]}"}


@pytest.fixture
def apis(running: tuple[StandIn, dict[str, str]]) -> Iterator[StandIn]:
    """The upstream, with a clean slate; nobody but the stored account has called it."""
    stand_in, _ = running
    stand_in.asked.clear()
    yield stand_in
    refused, stand_in.refused = stand_in.refused, 0
    assert refused == 0


@pytest.fixture
def door() -> str:
    """The server in front; tests may ask for another one, or for both."""
    return "uvicorn"


@pytest.fixture
def url(running: tuple[StandIn, dict[str, str]], door: str) -> str:
    """The host's URL."""
    return running[1][door]


@pytest.fixture
def sdk(apis: StandIn, url: str, monkeypatch: pytest.MonkeyPatch) -> SDK:
    """What examples/SDKS.md has for a library, pointed at the host."""
    monkeypatch.setenv("CALLER_TOKEN", CALLER_TOKEN)
    monkeypatch.setenv("NO_PROXY", "*")  # Most SDKs take proxies from the environment.
    here = url
    return lambda library, url="": documented(library, url or here, apis.url)
