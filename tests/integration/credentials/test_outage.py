"""The store's server stops and comes back under load: what is known goes on, the rest is refused, then all works."""

import time
from collections.abc import Iterator

import pytest

from tests.callers import call
from tests.integration.asking import check_problem
from tests.integration.credentials.load import FINE, REJECTED, Load, asked, kind
from tests.integration.credentials.site import Site
from tests.servers import RunningServer
from tests.services import Service

WORKERS = 2
# So that a test can see what follows a failure, and that the store is asked all the time.
HASTY = {"credential_ttl": 0.2, "refresh_backoff": 0.5}
KINDS = [
    pytest.param("postgresql", "postgres", "gunicorn-gthread", id="postgresql"),
    pytest.param("redis", "redis_server", "uvicorn-httptools", id="redis"),
]


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """The server that the store is on; it runs again afterwards."""
    running: Service = request.getfixturevalue(request.param)
    yield running
    running.start()


@pytest.mark.parametrize(("site", "service", "server"), KINDS, indirect=["site", "service"])
def test_store_stops_and_comes_back(site: Site, service: Service, server: str) -> None:
    """A cached token that runs goes on, and nothing else; once the store is back all works, in the same processes."""
    endpoint = site.connect("crm")
    site.connect("unused")
    (running,) = site.start(server, workers=WORKERS, limits=HASTY)
    with Load(running.address, "crm", WORKERS) as load:
        assert load.settle() == {FINE}
        service.stop()
        began = time.monotonic()
        while time.monotonic() < began + 2 * HASTY["credential_ttl"]:  # Each process looks for the tokens, in vain.
            assert load.settle() == {FINE}
        _check_refused(running, "unused")

        endpoint.expire_access_tokens()
        # Nothing but the original answer is right for a token that may live on.
        assert load.wait_for(REJECTED) <= {FINE, REJECTED}
        assert load.settle() == {REJECTED}
        assert site.counts("crm")["token calls"] == 0

        service.start()
        _check_recovery(site, load, calls=1)
        assert kind(call(running.address, asked("unused"))) == FINE

        _stop_during_a_refresh(site, service, load)
        _check_recovery(site, load, calls=2)


def _check_refused(running: RunningServer, connection_id: str) -> None:
    answer = call(running.address, asked(connection_id))
    check_problem(answer, 424, "connection", "access_token_expired", "proxy_configuration_error")


def _check_recovery(site: Site, load: Load, calls: int) -> None:
    assert load.wait_for(FINE) <= {REJECTED, FINE}
    assert load.settle() == {FINE}
    counts = site.counts("crm")
    assert (counts["token calls"], counts["reuses"], site.stored("crm").version) == (calls, 0, calls + 1)


def _stop_during_a_refresh(site: Site, service: Service, load: Load) -> None:
    """Has one of the processes come by new tokens while it cannot store them."""
    endpoint = site.endpoints["crm"]
    endpoint.misbehave("hold", times=1)
    endpoint.expire_access_tokens()
    endpoint.wait_for("token calls", 2)
    service.stop()
    endpoint.release()
    endpoint.wait_for("token answers", 2)
    # Within the lease: after that another process might come first, with the token that is spent.
    service.start()
    assert load.settle() <= {FINE, REJECTED}
