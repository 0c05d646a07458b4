"""Worker processes that share a store: one refresh per expiry among all of them, and nobody notices."""

import time
from contextlib import ExitStack

import pytest

from tests.integration.credentials.load import FINE, Load
from tests.integration.credentials.site import Site

EXPIRIES = 20
# Two groups of processes, and both doors.
SERVERS = ("uvicorn-httptools", "gunicorn-gthread")
STORES = ["sqlite", "postgresql", "redis"]


def _loads(site: Site, workers: int, stack: ExitStack) -> list[Load]:
    running = site.start(*SERVERS, workers=workers)
    return [stack.enter_context(Load(server.address, "crm", workers)) for server in running]


def _check_grants(site: Site, calls: int) -> None:
    """Asserts that the endpoint was asked so often, was never shown a spent token, and that all is stored."""
    counts = site.counts("crm")
    assert (counts["token calls"], counts["refresh_token"], counts["reuses"]) == (calls, calls, 0)
    assert site.stored("crm").version == 1 + calls


@pytest.mark.parametrize("site", STORES, indirect=True)
def test_one_refresh_per_expiry(site: Site) -> None:
    """Each time the API rejects the token of all processes at once, one of them refreshes; every answer is a 200."""
    endpoint = site.connect("crm")
    with ExitStack() as stack:
        loads = _loads(site, 2, stack)
        assert [load.settle() for load in loads] == [{FINE}] * len(loads)
        for calls in range(EXPIRIES):
            _check_grants(site, calls)
            endpoint.expire_access_tokens()
            assert [load.settle() for load in loads] == [{FINE}] * len(loads)
        _check_grants(site, EXPIRIES)
    assert site.counts("crm")["api rejected"] >= EXPIRIES


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_one_refresh_before_each_expiry(site: Site) -> None:
    """A token whose expiry is known is refreshed at half of a short life, once for all; the API rejects nothing."""
    life = 4  # Seconds.
    endpoint = site.connect("crm", expires_in=life)
    with ExitStack() as stack:
        loads = _loads(site, 1, stack)
        began, early = time.monotonic(), site.counts("crm")["token calls"]
        endpoint.wait_for("refresh_token", early + 3)
        assert [load.settle() for load in loads] == [{FINE}] * len(loads)
    calls = site.counts("crm")["token calls"]
    # Who finds a token in the store does not know how long its life was, and refreshes it before it is used.
    assert calls - early <= len(SERVERS) + (time.monotonic() - began) / (life / 2)
    _check_grants(site, calls)
    assert site.counts("crm")["api rejected"] == 0
