"""Each example on its server, started once, one after the other."""

from collections.abc import Iterator

import pytest

from tests.integration.frameworks.hosts import EXAMPLES, Example, Host, environment
from tests.servers import start
from tests.upstreams import ScriptedUpstream


@pytest.fixture(scope="package")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture(scope="package", params=EXAMPLES, ids=str)
def _host(request: pytest.FixtureRequest, _upstream: ScriptedUpstream) -> Iterator[Host]:
    example: Example = request.param
    running = start(example.server, f"examples.{example.app}", {**environment(_upstream.url), **example.env})
    try:
        yield Host.of(example, running.address)
    finally:
        running.kill()
        running.remove_log()


@pytest.fixture
def upstream(_upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """The upstream that the examples know, with a clean slate."""
    yield _upstream
    _upstream.forget()


@pytest.fixture
def host(_host: Host, upstream: ScriptedUpstream) -> Host:
    """Each example in turn."""
    return _host
