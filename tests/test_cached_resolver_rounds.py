"""`CachedResolver` asked by many at once: in threads, on event loops, and when things go wrong in between."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from proxy_middleware import Connection, ConnectionNotFound, ProxyRequest
from proxy_middleware._plugins import asettled, settled
from proxy_middleware.resolvers import CachedResolver
from tests.test_cached_resolver import TTL, asked, by_tenant
from tests.test_single_flight import Clock
from tests.upstream.blocking import until
from tests.upstreams import WAIT

KEY = ("acme", "crm")
FOUND = Connection("found", "https://api.example.com")
LATER = Connection("later", "https://api.example.com")
THREADS = 32
LOOPS = ["asyncio", "trio"]


class Hasty(CachedResolver):
    """Waits for others only for a moment."""

    ROUND_SECONDS = 0.1


class Held:
    """Gives one answer after the other; the first of them when it is let go."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.let_go = threading.Event()
        self._lock = threading.Lock()

    def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """The next answer; the last one again and again."""
        with self._lock:
            self.calls += 1
            first, answer = self.calls == 1, self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if first:
            assert self.let_go.wait(WAIT)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Connection)
        return answer


class HeldLater(Held):
    """The same, on the event loop that asks."""

    async def resolve(self, selector: str, request: ProxyRequest) -> Connection:  # type: ignore[override]
        """The next answer, and the first of them when it is let go."""
        self.calls += 1
        first, answer = self.calls == 1, self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        while first and not self.let_go.is_set():  # noqa: ASYNC110 -- it is set in another thread
            await anyio.sleep(0.002)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Connection)
        return answer


def in_thread(cached: CachedResolver) -> Connection:
    """What a thread is given."""
    found = settled(cached.resolve("crm", asked()))
    assert isinstance(found, Connection)
    return found


def on_loop(loop: str, cached: CachedResolver, count: int) -> list[Any]:
    """What so many tasks of one event loop are given, or what is raised for them."""
    outcomes: list[Any] = []

    async def one() -> None:
        try:
            outcomes.append(await asettled(cached.resolve("crm", asked(colour=loop))))
        except Exception as error:
            outcomes.append(error)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(one)

    anyio.run(main, backend=loop)
    return outcomes


def waiting(cached: CachedResolver) -> int:
    """How many wait for the one who asks."""
    return sum(len(round_.wakers) for round_ in tuple(cached._rounds.values()))


Submit = Callable[..., "Future[Any]"]


@pytest.fixture
def submit() -> Iterator[Submit]:
    """Does something in a thread."""
    with ThreadPoolExecutor(THREADS + 4) as threads:
        yield threads.submit


@pytest.mark.parametrize("kind", [Held, HeldLater])
def test_one_call_for_threads_and_loops(kind: type[Held], submit: Submit) -> None:
    """Threads, tasks on asyncio and tasks on trio that ask together cause one call, whoever was the first."""
    resolver = kind(FOUND)
    cached = CachedResolver(resolver, TTL, by_tenant)
    threads = [submit(in_thread, cached) for _ in range(THREADS)]
    loops = [submit(on_loop, loop, cached, 100) for loop in LOOPS]
    until(lambda: waiting(cached) == THREADS + 200 - 1)
    resolver.let_go.set()
    assert [thread.result(WAIT) for thread in threads] == [FOUND] * THREADS
    assert [loop.result(WAIT) for loop in loops] == [[FOUND] * 100] * 2
    assert (resolver.calls, cached._rounds) == (1, {})


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", [Held, HeldLater])
def test_one_call_for_a_loop(kind: type[Held], loop: str, submit: Submit) -> None:
    """Tasks of one event loop that ask together cause one call, and the loop is not held up."""
    resolver = kind(FOUND)
    cached = CachedResolver(resolver, TTL, by_tenant)
    outcomes = submit(on_loop, loop, cached, 200)
    until(lambda: waiting(cached) == 199)
    resolver.let_go.set()
    assert outcomes.result(WAIT) == [FOUND] * 200
    assert resolver.calls == 1


def test_failure_is_the_leaders_alone(submit: Submit) -> None:
    """Who waited for a call that failed is not told so, but asks: a connection may have come about meanwhile."""
    resolver = Held(ConnectionNotFound(), FOUND)
    cached = CachedResolver(resolver, TTL, by_tenant)
    first = submit(in_thread, cached)
    until(lambda: resolver.calls == 1)
    threads = [submit(in_thread, cached) for _ in range(3)]
    loops = [submit(on_loop, loop, cached, 2) for loop in LOOPS]
    until(lambda: waiting(cached) == 7)
    resolver.let_go.set()
    assert isinstance(first.exception(WAIT), ConnectionNotFound)
    assert [thread.result(WAIT) for thread in threads] == [FOUND] * 3
    assert [loop.result(WAIT) for loop in loops] == [[FOUND] * 2] * 2
    assert resolver.calls == 8


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", [Held, HeldLater])
def test_leader_that_leaves(kind: type[Held], loop: str, submit: Submit) -> None:
    """When the caller who asks leaves, one of those who wait asks in their place."""
    resolver = kind(FOUND, LATER)
    cached = CachedResolver(resolver, TTL, by_tenant)

    async def leaving() -> None:
        async with anyio.create_task_group() as group:

            async def leader() -> None:
                await asettled(cached.resolve("crm", asked(colour=loop)))

            group.start_soon(leader)
            while waiting(cached) < 4:  # noqa: ASYNC110 -- some of them are in other threads
                await anyio.sleep(0.002)
            group.cancel_scope.cancel()
            resolver.let_go.set()  # A worker thread cannot be cancelled.

    first = submit(anyio.run, leaving, backend=loop)
    until(lambda: resolver.calls == 1)
    threads = [submit(in_thread, cached) for _ in range(2)]
    tasks = submit(on_loop, loop, cached, 2)
    first.result(WAIT)
    outcomes = [*(thread.result(WAIT) for thread in threads), *tasks.result(WAIT)]
    assert outcomes in ([LATER] * 4, [FOUND] * 4)  # trio waits for the thread, and so for what it has found
    assert resolver.calls <= 2
    assert cached._rounds == {}


def test_who_waits_too_long_asks(submit: Submit) -> None:
    """A call that hangs holds up its own caller alone, and what it finds in the end replaces nothing newer."""
    resolver = Held(FOUND, LATER)
    cached = Hasty(resolver, TTL, by_tenant)
    first = submit(in_thread, cached)
    until(lambda: resolver.calls == 1)
    others = [submit(in_thread, cached), submit(on_loop, "asyncio", cached, 3)]
    assert [others[0].result(WAIT), *others[1].result(WAIT)] == [LATER] * 4
    resolver.let_go.set()
    assert first.result(WAIT) is FOUND
    assert in_thread(cached) is LATER


def test_nobody_joins_an_old_call(submit: Submit) -> None:
    """Who comes when a call has taken long already does not wait for it."""
    clock, resolver = Clock(0.0), Held(FOUND, LATER)
    cached = CachedResolver(resolver, TTL, by_tenant, clock=clock)
    first = submit(in_thread, cached)
    until(lambda: resolver.calls == 1)
    clock.time = cached.ROUND_SECONDS
    assert in_thread(cached) is LATER
    resolver.let_go.set()
    assert first.result(WAIT) is FOUND


@pytest.mark.parametrize("forget", [lambda cached: cached.forget(KEY), lambda cached: cached.clear()])
def test_forgotten_in_the_middle(forget: Callable[[CachedResolver], None], submit: Submit) -> None:
    """What was being asked when it was forgotten is given to those who had asked, and to nobody who comes later."""
    resolver = Held(FOUND, LATER)
    cached = CachedResolver(resolver, TTL, by_tenant)
    before = [submit(in_thread, cached) for _ in range(2)]
    until(lambda: waiting(cached) == 1)
    forget(cached)
    assert in_thread(cached) is LATER
    resolver.let_go.set()
    assert [each.result(WAIT) for each in before] == [FOUND] * 2
    assert in_thread(cached) is LATER


def test_call_that_is_thrown_away(submit: Submit) -> None:
    """What was asked on an event loop that is gone, and collected with it, holds nobody up."""
    resolver = HeldLater(FOUND, LATER)
    cached = CachedResolver(resolver, TTL, by_tenant)

    async def main() -> "Future[Any]":
        call = asettled(cached.resolve("crm", asked(colour="asyncio")))
        call.send(None)
        waiter = submit(in_thread, cached)
        until(lambda: waiting(cached) == 1)
        call.close()
        return waiter

    assert asyncio.run(main()).result(WAIT) is LATER


FORKING = """
import os, sys, threading
from proxy_middleware.resolvers import CachedResolver
from tests.test_cached_resolver import TTL, asked, by_tenant
from tests.test_cached_resolver_rounds import FOUND, LATER, Held
from tests.upstream.blocking import until

resolver = Held(FOUND, LATER)
cached = CachedResolver(resolver, TTL, by_tenant)
thread = threading.Thread(target=cached.resolve, args=("crm", asked()))
thread.start()
until(lambda: resolver.calls)
held, holding = threading.Event(), threading.Event()

def hold():
    with cached._lock:
        held.set()
        holding.wait()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if not child:
    cached.ROUND_SECONDS = 1000.0
    os._exit(0 if cached.resolve("crm", asked()) is LATER else 1)
status = os.waitpid(child, 0)[1]
holding.set()
resolver.let_go.set()
thread.join()
holder.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_fork_in_the_middle_of_a_call() -> None:
    """A child waits neither for a call of its parent's nor for a lock that a thread there holds."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], timeout=30, check=False)
    assert done.returncode == 0
