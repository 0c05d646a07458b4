"""pytest fixtures, for `pytest_plugins = ["proxy_middleware.testing.fixtures"]` in the outermost `conftest.py`."""

from collections.abc import Iterator
from typing import Any

from proxy_middleware.access import anyone
from proxy_middleware.models import Connection, EgressPolicy
from proxy_middleware.resolvers import StaticResolver
from proxy_middleware.testing.clock import FakeClock
from proxy_middleware.testing.credentials import ExpiringCredentials
from proxy_middleware.testing.upstream import FakeUpstream

try:
    import pytest
except ImportError as error:
    raise ImportError('the fixtures need the extra "testing": pip install "proxy_middleware[testing]"') from error

__all__ = ["expiring_credentials", "fake_clock", "fake_upstream", "proxy_settings"]


@pytest.fixture
def fake_upstream() -> Iterator[FakeUpstream]:
    """A FakeUpstream that listens, and says "ok" until it is told otherwise."""
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def expiring_credentials() -> ExpiringCredentials:
    """ExpiringCredentials that have issued nothing yet."""
    return ExpiringCredentials()


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """A FakeClock that shows what it is now, installed as the package's clock. Make the application after it."""
    with FakeClock().installed() as clock:
        yield clock


@pytest.fixture
def proxy_settings(fake_upstream: FakeUpstream, expiring_credentials: ExpiringCredentials) -> dict[str, Any]:
    """Keywords for either door: the connection "fake" leads to `fake_upstream`, with `expiring_credentials`.

    The upstream accepts what these have issued last, anyone may call, and loopback may be dialled.
    """
    fake_upstream.demand(expiring_credentials.accepts)
    return {
        "resolver": StaticResolver([Connection("fake", fake_upstream.url)]),
        "credentials": expiring_credentials,
        "authenticate": anyone,
        "egress": EgressPolicy(allow=("127.0.0.0/8",)),
    }
