"""Each framework passes on what ASGI servers say of start and end, so that the proxy's connections are closed."""

import importlib
import sys
from collections.abc import Iterator
from queue import Queue

import pytest

from tests.integration.frameworks.hosts import EXAMPLES, Example, Host, environment
from tests.servers import ASGI_SERVERS, ASGIApp, serve_asgi
from tests.upstreams import Exchange, ScriptedUpstream, response

# Another root path changes nothing in this.
ASGI = [example for example in EXAMPLES if example.server in ASGI_SERVERS and not example.env]


@pytest.fixture
def scripted() -> Iterator[ScriptedUpstream]:
    """An upstream that nobody else knows."""
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def app(example: Example, scripted: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> ASGIApp:
    """An example's application in this process, imported anew for this upstream."""
    for name, value in environment(scripted.url).items():
        monkeypatch.setenv(name, value)
    module, attribute = f"examples.{example.app}".split(":")
    monkeypatch.delitem(sys.modules, module, raising=False)
    found: ASGIApp = getattr(importlib.import_module(module), attribute)
    return found


@pytest.mark.parametrize("example", ASGI, ids=str)
def test_shutdown_closes_the_pool(example: Example, app: ASGIApp, scripted: ScriptedUpstream) -> None:
    """The upstream's idle connection is closed when the server ends, and not before."""
    closed: Queue[bool] = Queue()

    @scripted.script
    def script(exchange: Exchange) -> None:
        exchange.read(None)
        exchange.send(response(body=b"ok"))
        closed.put(exchange.wait_closed(10))
        exchange.ended = True

    with serve_asgi(app) as address:
        assert Host.of(example, address).ask("/x").body == b"ok"
        assert closed.empty()
    assert closed.get(timeout=10)
