"""The fake clock, and credentials that go by it."""

import ast
import time
from pathlib import Path
from typing import Any

import pytest

import proxy_middleware
from proxy_middleware import Connection, EgressPolicy, StaticResolver, _providers, anyone, proxy
from proxy_middleware.testing import ExpiringCredentials, FakeClock, FakeUpstream
from proxy_middleware.testing.clock import FUNCTIONS, MODULES
from tests.in_process import Call, proxy_to

pytestmark = pytest.mark.anyio

PACKAGE = Path(proxy_middleware.__file__).parent
# Readings of the wall clock that are not the fake one's: its own, a library's, the default of what it replaces.
OTHERS = {"testing.clock", "_admission", "stores.database", "_single_flight"}


def settings(upstream: FakeUpstream, credentials: ExpiringCredentials) -> dict[str, Any]:
    """Those of a proxy in front of the upstream."""
    upstream.demand(credentials.accepts)
    return {
        "resolver": StaticResolver([Connection("crm", upstream.url)]),
        "credentials": credentials,
        "authenticate": anyone,
        "egress": EgressPolicy(allow=("127.0.0.0/8",)),
    }


def test_stands_still() -> None:
    """It shows what it was set to, goes on when it is told to, and never back."""
    clock = FakeClock(1000)
    assert (clock(), clock()) == (1000, 1000)
    clock.advance(1.5)
    assert clock() == 1001.5
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
    assert abs(FakeClock()() - time.time()) < 60


async def test_proxies_go_by_it() -> None:
    """A credential about to expire by the clock is refreshed before it is used."""
    credentials = ExpiringCredentials(lifetime=3600)
    with FakeClock().installed() as clock, FakeUpstream() as upstream:
        engine = proxy_to(upstream, **settings(upstream, credentials))  # type: ignore[arg-type]
        for seconds in (0, 3500, 80, 3500):
            clock.advance(seconds)
            assert (await Call().through(engine)).statuses == [200]
        await engine.aclose()
    assert credentials.refreshed == 1
    assert [request.header("authorization") for request in upstream.requests] == [
        "Bearer token-1",
        "Bearer token-1",
        "Bearer token-2",
        "Bearer token-2",
    ]


async def test_expired_without_a_refresh() -> None:
    """A credential that cannot be refreshed is used until it has expired by the clock; then the answer is a 424."""
    credentials = ExpiringCredentials(lifetime=3600, fail_refresh=True)
    with FakeClock().installed() as clock, FakeUpstream() as upstream:
        engine = proxy_to(upstream, **settings(upstream, credentials))  # type: ignore[arg-type]
        statuses = []
        for seconds in (0, 3590, 20):
            clock.advance(seconds)
            statuses += (await Call().through(engine)).statuses
        await engine.aclose()
    assert statuses == [200, 200, 424]


async def test_rejected_and_refreshed() -> None:
    """Tokens that were expired are rejected by the upstream, and the next one is accepted."""
    credentials = ExpiringCredentials()
    with FakeUpstream() as upstream:
        engine = proxy_to(upstream, **settings(upstream, credentials))  # type: ignore[arg-type]
        assert (await Call().through(engine)).statuses == [200]
        credentials.expire()
        assert (await Call().through(engine)).statuses == [200]
        credentials.expire()
        credentials.fail_refresh = True
        assert (await Call().through(engine)).statuses == [401]
        await engine.aclose()
    assert (credentials.obtained, credentials.refreshed) == (1, 2)
    assert credentials.tokens == ["token-1", "token-2"]
    assert "token-" not in repr(credentials)


def test_is_taken_away_again() -> None:
    """After the block the package has its own clock again."""
    before = vars(_providers)["time"], vars(proxy)["CredentialCache"]
    with FakeClock(1000).installed() as clock:
        assert vars(_providers)["time"] is clock
        assert vars(proxy)["CredentialCache"] is not before[1]
    assert (vars(_providers)["time"], vars(proxy)["CredentialCache"]) == before


def wall_clocks() -> set[str]:
    """The modules that read Unix time, by themselves or through the module `time`."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = (
                isinstance(node, ast.ImportFrom) and node.module == "time" and "time" in ast.unparse(node).split()[3:]
            )
            if imported or (isinstance(node, ast.Attribute) and ast.unparse(node) == "time.time"):
                found.add(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    return found


def test_every_wall_clock_is_known() -> None:
    """Wherever the package reads Unix time, it reads the fake clock, or is known not to."""
    assert wall_clocks() == {*FUNCTIONS, *MODULES, *OTHERS}
