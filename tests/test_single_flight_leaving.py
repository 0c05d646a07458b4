"""Refresh rounds whose callers leave, and whose event loops end."""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from proxy_middleware import Credential, RefreshFailed
from proxy_middleware._single_flight import CredentialCache
from tests.script import CONNECTION, NEW, OLD
from tests.test_single_flight import Clock
from tests.test_single_flight_loops import LOOPS, Provider, every_loop, never, run, until
from tests.test_single_flight_threads import Held, waiting
from tests.upstream.blocking import until as until_in_thread
from tests.upstreams import WAIT

# Callers who leave


@every_loop
def test_leader_who_leaves(loop: str) -> None:
    """The call goes on without who began it: the others get the result, and it is kept."""
    cache, provider = CredentialCache(), Provider(NEW)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as leading:
                    leading.start_soon(cache.arefresh, CONNECTION, OLD, provider)
                    await until(lambda: waiting(cache) == [1])
                    scope.cancel()
            outcomes: list[Credential] = []

            async def waiter() -> None:
                outcomes.append(await cache.arefresh(CONNECTION, OLD, never))

            group.start_soon(waiter)
            await until(lambda: waiting(cache) == [2])
            gc.collect()
            provider.let_go.set()
        assert outcomes == [NEW]

    run(loop, main)
    assert provider.calls == 1
    assert cache.get(CONNECTION) is NEW


@every_loop
def test_everybody_leaves(loop: str) -> None:
    """The call goes on although nobody waits any more, and its result is kept."""
    cache, provider = CredentialCache(), Provider(NEW)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(cache.arefresh, CONNECTION, OLD, provider)
            await until(lambda: waiting(cache) == [3])
            group.cancel_scope.cancel()
        gc.collect()
        provider.let_go.set()
        await until(lambda: cache.get(CONNECTION) is NEW)

    run(loop, main)
    assert not provider.cancelled


@every_loop
def test_waiter_who_leaves(loop: str) -> None:
    """One who stops waiting takes neither the leader nor the other waiters along."""
    cache, provider = CredentialCache(), Provider(NEW)

    async def main() -> None:
        outcomes: list[Credential] = []

        async def asking() -> None:
            outcomes.append(await cache.arefresh(CONNECTION, OLD, provider))

        async with anyio.create_task_group() as group:
            group.start_soon(asking)
            await until(lambda: waiting(cache) == [1])
            async with anyio.create_task_group() as leaving:
                leaving.start_soon(asking)
                await until(lambda: waiting(cache) == [2])
                leaving.cancel_scope.cancel()
            group.start_soon(asking)
            await until(lambda: waiting(cache) == [3])
            provider.let_go.set()
        assert outcomes == [NEW, NEW]

    run(loop, main)


# Event loops that end


def test_loop_that_starts_no_task() -> None:
    """If the loop refuses a task for the call, the caller is told so, and nobody waits for it."""

    def refuse(loop: object, coroutine: Any, **options: object) -> Any:
        coroutine.close()
        raise RuntimeError("closing")

    cache = CredentialCache()

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(refuse)
        with pytest.raises(RuntimeError, match="closing"):
            await cache.arefresh(CONNECTION, OLD, never)
        asyncio.get_running_loop().set_task_factory(None)

    asyncio.run(main())
    assert cache._rounds == {}
    assert cache.refresh(CONNECTION, OLD, lambda: NEW) is NEW


@every_loop
def test_loop_that_ends_in_the_middle(loop: str) -> None:
    """Who waits elsewhere gets RefreshFailed at once, and the next one may try: it was no failure of the provider."""
    cache, provider = CredentialCache(), Provider(NEW)
    with ThreadPoolExecutor(1) as threads:

        async def main() -> Any:
            with anyio.move_on_after(0):
                await cache.arefresh(CONNECTION, OLD, provider)
            await until(lambda: provider.calls)
            waiter = threads.submit(cache.refresh, CONNECTION, OLD, Held(NEW))
            await until(lambda: sum(waiting(cache)) == 2)
            return waiter

        waiter = run(loop, main)
        assert isinstance(waiter.exception(WAIT), RefreshFailed)
    assert cache._rounds == {}
    assert cache.refresh(CONNECTION, OLD, lambda: NEW) is NEW


def test_waiter_whose_loop_ends(caplog: pytest.LogCaptureFixture) -> None:
    """A round ends as it should although a loop on which somebody waited is no more."""
    cache, held = CredentialCache(), Held(NEW)
    with ThreadPoolExecutor(1) as threads:
        leader = threads.submit(cache.refresh, CONNECTION, OLD, held)
        assert held.called.wait(WAIT)
        for kind in LOOPS:

            async def main() -> None:
                with anyio.move_on_after(0.01):
                    await cache.arefresh(CONNECTION, OLD, never)

            run(kind, main)
        assert waiting(cache) == [2]
        held.let_go.set()
        assert leader.result(WAIT) is NEW
    assert caplog.records == []


def test_loop_that_is_closed_without_a_word() -> None:
    """A loop that is closed with its tasks uncancelled: the next caller notices, and those who wait are told."""
    cache, provider = CredentialCache(), Provider(NEW)
    loop = asyncio.new_event_loop()
    task = loop.create_task(cache.arefresh(CONNECTION, OLD, provider))
    loop.run_until_complete(until(lambda: provider.calls))
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(cache.refresh, CONNECTION, OLD, Held(NEW))
        until_in_thread(lambda: waiting(cache) == [2])
        loop.close()
        assert cache.refresh(CONNECTION, OLD, lambda: NEW) is NEW
        assert isinstance(waiter.exception(WAIT), RefreshFailed)
    assert cache._rounds == {}
    del task
    gc.collect()
    assert cache.get(CONNECTION) is NEW


def test_running_credential_outlasts_the_loop() -> None:
    """What was known is used on by those who wait when the loop that obtains ends."""
    clock = Clock(1000)
    cache, provider = CredentialCache(clock=clock), Provider(NEW)
    cache.obtain(CONNECTION, lambda: OLD)
    clock.time += 60
    with ThreadPoolExecutor(1) as threads:

        async def main() -> Any:
            with anyio.move_on_after(0):
                await cache.aobtain(CONNECTION, provider)
            await until(lambda: provider.calls)
            waiter = threads.submit(cache.obtain, CONNECTION, Held(NEW))
            await until(lambda: sum(waiting(cache)) == 2)
            return waiter

        assert run("asyncio", main).result(WAIT) is OLD
