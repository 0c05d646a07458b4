"""One Node.js process for a session, and the host application under a server of each kind."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.node.sdks import HERE, SDKS, Node, Sdk, install, token
from tests.servers import ASGI_SERVERS, ServerFactory
from tests.upstreams import ScriptedUpstream


@pytest.fixture(scope="session")
def sdk_folder(pytestconfig: pytest.Config) -> Path:
    """Where the SDKs are installed: with pytest's cache, which is no part of the source tree."""
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = pytestconfig.cache.mkdir(f"sdks-{digest}")
    install(folder)
    return folder


@pytest.fixture(scope="session")
def node(sdk_folder: Path) -> Iterator[Node]:
    """A process that has both SDKs."""
    with Node(sdk_folder) as running:
        yield running


@pytest.fixture(params=["uvicorn-httptools", "gunicorn-gthread"])
def api_uri(
    request: pytest.FixtureRequest,
    node: Node,
    server_factory: ServerFactory,
    shared_upstream: ScriptedUpstream,
    closed_port: int,
) -> str:
    """The origin of the host application, under both kinds of server."""
    app = "asgi_app" if request.param in ASGI_SERVERS else "wsgi_app"
    env = {"UPSTREAM_URL": shared_upstream.url, "CLOSED_PORT": str(closed_port)}
    running = server_factory(request.param, f"tests.integration.node.host:{app}", env)
    return f"http://{running.address[0]}:{running.address[1]}"


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest, api_uri: str, node: Node) -> Sdk:
    """Each of the SDKs, for the tenant alice."""
    return Sdk(request.param, api_uri, node, token())
