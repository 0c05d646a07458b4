"""Refresh rounds among threads: who leads, who waits, for how long, and what is kept in the end."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from proxy_middleware import Connection, Credential, RefreshFailed
from proxy_middleware._single_flight import CredentialCache
from proxy_middleware.errors import AccessDenied, CredentialUnavailable, StoreUnavailable
from tests.script import CONNECTION, NEW, OLD
from tests.test_single_flight import Clock
from tests.upstream.blocking import until
from tests.upstreams import WAIT

THREADS = 64
NEWEST = Credential.bearer("newest")


class Hasty(CredentialCache):
    """Waits for no round longer than it takes to see that it is waited for."""

    ROUND_SECONDS = 0.05
    GRACE_SECONDS = 0.15


class Held:
    """A provider that answers when it is let go, and counts its calls."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.calls = 0
        self.called = threading.Event()
        self.let_go = threading.Event()

    def __call__(self) -> Any:
        self.calls += 1
        self.called.set()
        assert self.let_go.wait(WAIT)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


Ask = Callable[..., "Future[Credential]"]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Asks in a thread."""
    with ThreadPoolExecutor(THREADS + 8) as threads:
        yield threads.submit


def waiting(cache: CredentialCache, connection_id: str = "c") -> list[int]:
    """How many wait for each round of a connection."""
    return [len(round_.wakers) for round_ in tuple(cache._rounds.get(connection_id, ()))]


def never() -> Credential:
    """A provider that must not be called."""
    raise AssertionError


@pytest.mark.parametrize("question", ["obtain", "refresh"])
def test_one_call_for_all(question: str, ask: Ask) -> None:
    """64 threads that ask together cause one call, and all get what it gave."""
    cache, provider = CredentialCache(), Held(NEW)
    args = (CONNECTION, OLD) if question == "refresh" else (CONNECTION,)
    answers = [ask(getattr(cache, question), *args, provider) for _ in range(THREADS)]
    until(lambda: waiting(cache) == [THREADS - 1])
    provider.let_go.set()
    assert [answer.result(WAIT) for answer in answers] == [NEW] * THREADS
    assert provider.calls == 1
    assert cache.get(CONNECTION) is NEW
    assert cache._rounds == {}


@pytest.mark.parametrize("question", ["obtain", "refresh"])
def test_one_failure_for_all(question: str, ask: Ask) -> None:
    """Those waiting share a failure as well, each with an exception of their own, which has no past."""
    cache, provider = CredentialCache(), Held(RefreshFailed("gone"))
    args = (CONNECTION, OLD) if question == "refresh" else (CONNECTION,)
    answers = [ask(getattr(cache, question), *args, provider) for _ in range(THREADS)]
    until(lambda: waiting(cache) == [THREADS - 1])
    provider.let_go.set()
    errors = [answer.exception(WAIT) for answer in answers]
    assert [type(error) for error in errors] == [RefreshFailed] * THREADS
    assert len(set(map(id, errors))) == THREADS
    assert all(error and error.__context__ is None for error in errors)
    assert provider.calls == 1


def test_one_verdict_for_all(ask: Ask) -> None:
    """A verdict of `obtain` reaches all as what it is."""
    cache, provider = CredentialCache(), Held(AccessDenied("Not you"))
    answers = [ask(cache.obtain, CONNECTION, provider) for _ in range(8)]
    until(lambda: waiting(cache) == [7])
    provider.let_go.set()
    assert {str(answer.exception(WAIT)) for answer in answers} == {"Not you"}
    assert provider.calls == 1


def test_connections_do_not_wait_for_each_other(ask: Ask) -> None:
    """A provider that hangs for one connection holds up no other, nor another tenant's of the same id."""
    cache, provider = CredentialCache(), Held(NEW)
    answer = ask(cache.obtain, CONNECTION, provider)
    assert provider.called.wait(WAIT)
    assert cache.obtain(Connection("d", CONNECTION.base_url), lambda: OLD) is OLD
    assert cache.obtain(replace(CONNECTION, attributes={"tenant": "b"}), lambda: OLD) is OLD
    provider.let_go.set()
    assert answer.result(WAIT) is NEW


# Different questions at one time


def test_obtaining_while_a_refresh_is_under_way(ask: Ask) -> None:
    """Who obtains waits for the refresh, and gets the newer credential."""
    cache, provider = CredentialCache(), Held(NEW)
    refreshing = ask(cache.refresh, CONNECTION, OLD, provider)
    assert provider.called.wait(WAIT)
    obtaining = ask(cache.obtain, CONNECTION, never)
    until(lambda: waiting(cache) == [1])
    provider.let_go.set()
    assert obtaining.result(WAIT) is refreshing.result(WAIT) is NEW


def test_obtaining_while_a_refresh_fails(ask: Ask) -> None:
    """That a refresh failed does not say that nothing can be obtained."""
    cache, provider = CredentialCache(), Held(RefreshFailed())
    refreshing = ask(cache.refresh, CONNECTION, OLD, provider)
    assert provider.called.wait(WAIT)
    obtaining = ask(cache.obtain, CONNECTION, lambda: OLD)
    until(lambda: waiting(cache) == [1])
    provider.let_go.set()
    assert obtaining.result(WAIT) is OLD
    assert isinstance(refreshing.exception(WAIT), RefreshFailed)


def test_refreshing_while_a_newer_one_is_obtained(ask: Ask) -> None:
    """Who refreshes waits for what is being obtained, and uses it if it is another than the rejected."""
    cache, provider = CredentialCache(), Held(NEW)
    obtaining = ask(cache.obtain, CONNECTION, provider)
    assert provider.called.wait(WAIT)
    refreshing = ask(cache.refresh, CONNECTION, OLD, never)
    until(lambda: waiting(cache) == [1])
    provider.let_go.set()
    assert refreshing.result(WAIT) is obtaining.result(WAIT) is NEW


@pytest.mark.parametrize("outcome", [OLD, CredentialUnavailable(), StoreUnavailable()], ids=repr)
def test_refreshing_while_no_newer_one_is_obtained(outcome: object, ask: Ask) -> None:
    """If the rejected one is obtained, or nothing, all who wait with it cause one refresh."""
    cache, obtainer, refresher = CredentialCache(), Held(outcome), Held(NEW)
    ask(cache.obtain, CONNECTION, obtainer)
    assert obtainer.called.wait(WAIT)
    refreshing = [ask(cache.refresh, CONNECTION, OLD, refresher) for _ in range(8)]
    until(lambda: waiting(cache) == [8])
    obtainer.let_go.set()
    until(lambda: waiting(cache) == [7])
    refresher.let_go.set()
    assert [answer.result(WAIT) for answer in refreshing] == [NEW] * 8
    assert refresher.calls == 1


def test_refresh_of_two_credentials_at_one_time(ask: Ask) -> None:
    """One after the other: what replaces the older one serves the other, too, unless that is what was rejected."""
    cache, first = CredentialCache(), Held(NEW)
    answers = [ask(cache.refresh, CONNECTION, OLD, first)]
    assert first.called.wait(WAIT)
    answers.append(ask(cache.refresh, CONNECTION, Credential.bearer("older"), never))
    answers.append(ask(cache.refresh, CONNECTION, NEW, lambda: NEWEST))
    until(lambda: waiting(cache) == [2])
    first.let_go.set()
    assert [answer.result(WAIT) for answer in answers] == [NEW, NEW, NEWEST]
    assert cache.get(CONNECTION) is NEWEST


# Forgetting


def test_forgotten_in_the_middle(ask: Ask) -> None:
    """A round from before `forget` answers those who wait, keeps nothing, and is joined by nobody."""
    cache, provider = CredentialCache(), Held(OLD)
    answers = [ask(cache.obtain, CONNECTION, provider) for _ in range(2)]
    until(lambda: waiting(cache) == [1])
    cache.forget(CONNECTION.id)
    assert cache.obtain(CONNECTION, lambda: NEW) is NEW
    provider.let_go.set()
    assert [answer.result(WAIT) for answer in answers] == [OLD, OLD]
    assert cache.get(CONNECTION) is NEW


def test_failure_forgotten_in_the_middle(ask: Ask) -> None:
    """A round from before `forget` that fails causes no back-off."""
    cache, provider = CredentialCache(), Held(RefreshFailed())
    answer = ask(cache.refresh, CONNECTION, OLD, provider)
    assert provider.called.wait(WAIT)
    cache.forget(CONNECTION.id)
    provider.let_go.set()
    assert isinstance(answer.exception(WAIT), RefreshFailed)
    assert cache.refresh(CONNECTION, OLD, lambda: NEW) is NEW


# Rounds that take too long


def test_waiting_ends(ask: Ask) -> None:
    """Who waits gives up after a time; the leader waits for its own call, whose late result is kept."""
    cache, provider = Hasty(), Held(NEW)
    leader = ask(cache.refresh, CONNECTION, OLD, provider)
    assert provider.called.wait(WAIT)
    with pytest.raises(RefreshFailed):
        cache.refresh(CONNECTION, OLD, never)
    assert not leader.done()
    provider.let_go.set()
    assert leader.result(WAIT) is NEW
    assert cache.get(CONNECTION) is NEW


def test_limits() -> None:
    """A round collects callers for 10 seconds, and they wait for 2 more at the most."""
    assert (CredentialCache.ROUND_SECONDS, CredentialCache.GRACE_SECONDS) == (10, 2)


def test_old_round_is_joined_by_nobody(ask: Ask) -> None:
    """Who comes after 10 seconds begins a round of their own; the late result of the old one does not replace its."""
    clock = Clock(1000)
    cache, provider = CredentialCache(clock=clock), Held(NEW)
    leader = ask(cache.refresh, CONNECTION, OLD, provider)
    assert provider.called.wait(WAIT)
    clock.time += 10
    assert cache.refresh(CONNECTION, OLD, lambda: NEWEST) is NEWEST
    provider.let_go.set()
    assert leader.result(WAIT) is NEW
    assert cache.get(CONNECTION) is NEWEST


def test_late_refresh_replaces_what_it_refreshed(ask: Ask) -> None:
    """A late result is kept if nothing newer has come: the rejected credential, obtained again, is not newer."""
    clock = Clock(1000)
    cache, provider = CredentialCache(clock=clock), Held(NEW)
    leader = ask(cache.refresh, CONNECTION, OLD, provider)
    assert provider.called.wait(WAIT)
    clock.time += 10
    assert cache.obtain(CONNECTION, lambda: OLD) is OLD
    provider.let_go.set()
    assert leader.result(WAIT) is NEW
    assert cache.get(CONNECTION) is NEW


def test_age_counts_from_the_call(ask: Ask) -> None:
    """A round that began after its leader had waited for another one is as young as its call."""
    clock = Clock(1000)
    cache, obtainer, refresher = CredentialCache(clock=clock), Held(OLD), Held(NEW)
    ask(cache.obtain, CONNECTION, obtainer)
    assert obtainer.called.wait(WAIT)
    answers = [ask(cache.refresh, CONNECTION, OLD, refresher)]
    until(lambda: waiting(cache) == [1])
    clock.time += 9
    obtainer.let_go.set()
    assert refresher.called.wait(WAIT)
    clock.time += 2
    answers.append(ask(cache.refresh, CONNECTION, OLD, never))
    until(lambda: waiting(cache) == [1])
    refresher.let_go.set()
    assert [answer.result(WAIT) for answer in answers] == [NEW, NEW]


def test_waiting_for_one_round_after_the_other(ask: Ask) -> None:
    """The time that a caller waits is one, for however many rounds."""
    clock = Clock(1000)
    cache, first, second = CredentialCache(clock=clock), Held(RefreshFailed()), Held(NEW)
    ask(cache.refresh, CONNECTION, OLD, first)
    assert first.called.wait(WAIT)
    waiter = ask(cache.obtain, CONNECTION, never)
    until(lambda: waiting(cache) == [1])
    clock.time += 12
    ask(cache.refresh, CONNECTION, Credential.bearer("other"), second)
    assert second.called.wait(WAIT)
    first.let_go.set()
    assert isinstance(waiter.exception(WAIT), RefreshFailed)
    second.let_go.set()


@pytest.mark.parametrize("outcome", [RefreshFailed(), CredentialUnavailable()], ids=repr)
def test_late_failure_harms_nothing_newer(outcome: Exception, ask: Ask) -> None:
    """What fails late neither drops what came after it, nor begins a back-off."""
    clock = Clock(1000)
    cache, provider = CredentialCache(clock=clock), Held(outcome)
    leader = ask(cache.obtain, CONNECTION, provider)
    assert provider.called.wait(WAIT)
    clock.time += 10
    cache.obtain(CONNECTION, lambda: NEW)
    provider.let_go.set()
    leader.exception(WAIT)
    assert cache.get(CONNECTION) is NEW


def test_hanging_store_and_a_running_credential(ask: Ask) -> None:
    """Who waited in vain to obtain goes on with what was known, as long as it lives."""
    clock = Clock(1000)
    cache, provider = Hasty(clock=clock), Held(NEW)
    cache.obtain(CONNECTION, lambda: OLD)
    clock.time += 60
    leader = ask(cache.obtain, CONNECTION, provider)
    assert provider.called.wait(WAIT)
    assert cache.obtain(CONNECTION, never) is OLD
    assert cache.get(CONNECTION) is OLD
    provider.let_go.set()
    assert leader.result(WAIT) is NEW
    assert cache.get(CONNECTION) is NEW


# Forking

FORKING = """
import os, sys, threading
from proxy_middleware._single_flight import CredentialCache
from tests.script import CONNECTION, NEW, OLD
from tests.test_single_flight import Clock
from tests.test_single_flight_threads import Held, waiting
from tests.upstream.blocking import until

cache, provider = CredentialCache(), Held(NEW)
cache.obtain(CONNECTION, lambda: OLD)
threads = [threading.Thread(target=cache.refresh, args=(CONNECTION, OLD, provider)) for _ in range(2)]
for thread in threads:
    thread.start()
until(lambda: waiting(cache) == [1])
holding, held = threading.Event(), threading.Event()

def hold():
    with cache._lock:
        held.set()
        holding.wait()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if not child:
    known = cache.get(CONNECTION)
    os._exit(0 if known == OLD and cache.refresh(CONNECTION, OLD, lambda: NEW) == NEW else 1)
status = os.waitpid(child, 0)[1]
for event in (holding, provider.let_go):
    event.set()
for thread in (*threads, holder):
    thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_fork_in_the_middle_of_a_round() -> None:
    """A child knows what was known, waits for no round of its parent's, and for no lock that a thread there holds."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], timeout=30, check=False)
    assert done.returncode == 0
