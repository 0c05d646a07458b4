"""Who holds the lease is killed, or sleeps through it, in the middle of a refresh: the others go on."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.callers import RawResponse, call
from tests.integration.credentials.load import FINE, REJECTED, SOON, UNUSABLE, Load, asked, kind, until
from tests.integration.credentials.site import Site
from tests.servers import RunningServer

# So that a test can see what follows a failure.
HASTY = {"credential_ttl": 0.5, "refresh_backoff": 0.5}
WORKERS = 2
# Seconds that one waits for a lease, less the last pause: longer than a lease lasts.
GIVE_UP = 5.7


class Holder(NamedTuple):
    """A server of one process that is in the middle of refreshes, and what its callers get in the end."""

    server: RunningServer
    answers: dict[str, Future[RawResponse]]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for callers of the holder."""
    with ThreadPoolExecutor() as pool:
        yield pool


def _hold(site: Site, server: RunningServer, steps: dict[str, str], threads: ThreadPoolExecutor) -> Holder:
    """Has every connection's token expire, and the server hold the lease of each, at the step that was prepared."""
    for endpoint in site.endpoints.values():
        endpoint.expire_access_tokens()
    calls = {name: threads.submit(call, server.address, asked(name), timeout=SOON) for name in site.endpoints}
    for name, endpoint in site.endpoints.items():
        if name in steps:
            until((site.folder / name).exists)
        else:
            endpoint.wait_for("token calls")
    return Holder(server, calls)


def _loads(site: Site, others: RunningServer, stack: ExitStack) -> dict[str, Load]:
    """Callers of the others, of whom each has been rejected by the API, and waits."""
    loads = {name: stack.enter_context(Load(others.address, name, WORKERS)) for name in site.endpoints}
    for load, endpoint in zip(loads.values(), site.endpoints.values(), strict=True):
        endpoint.wait_for("api rejected", 1 + load.callers)
    return loads


def _check_counts(site: Site, name: str, calls: int, reuses: int = 0) -> None:
    counts = site.counts(name)
    assert (counts["token calls"], counts["reuses"]) == (calls, reuses), name


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_killed(site: Site, threads: ThreadPoolExecutor) -> None:
    """Once the lease has run out, another process refreshes; only a token that was spent and not saved is lost."""
    steps = {"leased": "leased", "granted": "granted"}
    for name in ("leased", "granted", "asked", "spent"):
        site.connect(name)
    site.endpoints["asked"].misbehave("hold", times=1)
    site.endpoints["spent"].misbehave("late", times=1)
    (server,), (others,) = (
        site.start("uvicorn-httptools", limits=HASTY, steps=steps),
        site.start("gunicorn-gthread", workers=WORKERS, limits=HASTY),
    )
    holder = _hold(site, server, steps, threads)
    site.endpoints["spent"].wait_for("token answers")
    os.kill(server.pid, signal.SIGKILL)
    killed = time.monotonic()
    with ExitStack() as stack:
        loads = _loads(site, others, stack)
        # The endpoint has not taken the request, or will never deal with it.
        for name in ("leased", "asked"):
            # Who waits for a lease gives up a second after it has run out: on a slow machine that may be too early.
            seen = loads[name].wait_for(FINE)
            assert seen == {FINE} or (seen == {FINE, REJECTED} and time.monotonic() - killed > GIVE_UP)
            assert loads[name].settle() == {FINE}
        _check_counts(site, "leased", calls=1)
        _check_counts(site, "asked", calls=2)
        for name in ("spent", "granted"):
            _check_lost(site, name, loads[name])
    for answer in holder.answers.values():
        assert isinstance(answer.exception(), ConnectionError)


def _check_lost(site: Site, name: str, load: Load) -> None:
    """Asserts that a strict endpoint takes the second use for theft, once, and that a new consent mends all."""
    assert load.wait_for(UNUSABLE) == {REJECTED, UNUSABLE}
    assert site.stored(name).dead
    _check_counts(site, name, calls=2, reuses=1)
    site.connect(name)
    load.wait_for(FINE)
    assert load.settle() == {FINE}
    _check_counts(site, name, calls=2, reuses=1)


@pytest.mark.parametrize("site", ["postgresql"], indirect=True)
def test_sleeper_overwrites_nothing(site: Site, threads: ThreadPoolExecutor) -> None:
    """A process that was stopped for longer than its lease keeps nothing of its own, and uses what others stored."""
    steps = {"leased": "leased", "granted": "granted"}
    site.connect("leased")
    site.connect("granted")
    # Only an endpoint that does not rotate lets two refresh with the same token.
    site.connect("asked", rotate=False).misbehave("late", times=1)
    (server,), (others,) = (
        site.start("uvicorn-httptools", steps=steps),
        site.start("gunicorn-gthread", workers=WORKERS),
    )
    holder = _hold(site, server, steps, threads)
    with ExitStack() as stack:
        stack.callback(os.kill, server.pid, signal.SIGCONT)
        os.kill(server.pid, signal.SIGSTOP)
        loads = _loads(site, others, stack)
        site.connect("granted")
        for load in loads.values():
            assert load.settle() == {FINE}
        records = {name: site.stored(name) for name in site.endpoints}
        assert {name: record.version for name, record in records.items()} == dict.fromkeys(site.endpoints, 2)

        os.kill(server.pid, signal.SIGCONT)
        (site.folder / "go").touch()
        site.endpoints["asked"].release()
        for answer in holder.answers.values():
            assert kind(answer.result(SOON)) == FINE
        assert {name: site.stored(name) for name in site.endpoints} == records
        for load in loads.values():
            assert load.settle() == {FINE}
    _check_counts(site, "leased", calls=1)
    _check_counts(site, "granted", calls=1)
    _check_counts(site, "asked", calls=2)


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_killed_while_waited_for(site: Site) -> None:
    """Others who wait when the holder is killed go on once its lease has run out, not after a back-off."""
    site.connect("asked").misbehave("hold", times=1)
    (server,) = site.start("uvicorn-httptools")
    (others,) = site.start("gunicorn-gthread", workers=WORKERS)
    with ThreadPoolExecutor() as threads, ExitStack() as stack:
        _hold(site, server, {}, threads)
        (load,) = _loads(site, others, stack).values()
        time.sleep(2)  # The endpoint is slow.
        os.kill(server.pid, signal.SIGKILL)
        assert isinstance(load, Load)
        load.wait_for(FINE)  # 20 s, at the most.
