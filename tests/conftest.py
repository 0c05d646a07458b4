"""Fixtures for all tests: scripted upstreams, certificates, refusing ports, real servers."""

import gc
import json
import ssl
from collections.abc import Generator, Iterator
from typing import Any, Protocol

import pytest
import trustme

from tests.servers import ASGI_SERVERS, RunningServer, ServerFactory
from tests.upstreams import ScriptedUpstream
from tests.wire import closed_port as open_closed_port
from tests.wire import stalled_port as open_stalled_port


class StartProxy(Protocol):
    """Starts the proxied host app of `tests.hosts` under a real server."""

    def __call__(self, server: str, **options: Any) -> RunningServer:
        """Start it, or take the running one with the same options (they go into `PROXY_OPTIONS`)."""
        ...


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of one server run in one process, which starts it once."""
    from tests.groups import GroupScheduling  # Only who runs tests in parallel needs pytest-xdist.

    return GroupScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting tests makes stays; to look for garbage in it meanwhile takes a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Thousands of tests are no garbage: without this every collection of it would look at all of them."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Plugins that look at what there is find all of it again."""
    gc.unfreeze()


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of tests marked with anyio; a test may parametrize it with "trio"."""
    return "asyncio"


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted upstream of this test's own."""
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """A certificate authority that no system trusts."""
    return trustme.CA()


@pytest.fixture(scope="session")
def trusting_context(ca: trustme.CA) -> ssl.SSLContext:
    """A verifying client context that trusts `ca` and nobody else."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@pytest.fixture
def tls_upstream(ca: trustme.CA) -> Iterator[ScriptedUpstream]:
    """A scripted upstream behind TLS, with a certificate of `ca` for 127.0.0.1 and localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    with ScriptedUpstream(context) as scripted:
        yield scripted


@pytest.fixture(scope="session")
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections."""
    with open_closed_port() as port:
        yield port


@pytest.fixture
def stalled_port() -> Iterator[int]:
    """A port of 127.0.0.1 where connection attempts stay without an answer."""
    with open_stalled_port() as port:
        yield port


@pytest.fixture(scope="session")
def _session_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture
def shared_upstream(_session_upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """The scripted upstream that servers in subprocesses know, with a clean slate; its URL stays for the session."""
    yield _session_upstream
    _session_upstream.forget()


@pytest.fixture(scope="session")
def server_factory() -> Iterator[ServerFactory]:
    """Starts real servers, the same one only once in a session."""
    factory = ServerFactory()
    yield factory
    factory.stop()


@pytest.fixture
def start_proxy(server_factory: ServerFactory, shared_upstream: ScriptedUpstream, closed_port: int) -> StartProxy:
    """Starts the proxied host app under a real server, with `shared_upstream` behind it."""

    def start(server: str, **options: Any) -> RunningServer:
        env = {
            "UPSTREAM_URL": shared_upstream.url,
            "CLOSED_PORT": str(closed_port),
            "PROXY_OPTIONS": json.dumps(options, sort_keys=True),
        }
        app = "asgi_app" if server in ASGI_SERVERS else "wsgi_app"
        return server_factory(server, f"tests.hosts:{app}", env)

    return start
