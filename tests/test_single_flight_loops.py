"""Refresh rounds among event loops: asyncio, trio, several at once, and threads between them."""

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio
import pytest

from proxy_middleware import Credential, RefreshFailed
from proxy_middleware._single_flight import CredentialCache
from proxy_middleware.errors import CredentialUnavailable, InternalError
from tests.script import CONNECTION, NEW, OLD
from tests.test_single_flight_threads import Held, waiting
from tests.upstream.blocking import until as until_in_thread
from tests.upstreams import WAIT

LOOPS = ["asyncio", "trio"]
every_loop = pytest.mark.parametrize("loop", LOOPS)
tenant: ContextVar[str] = ContextVar("tenant")


class Hasty(CredentialCache):
    """Gives calls up at once."""

    ROUND_SECONDS = 0.05
    GRACE_SECONDS = 0.05


class Provider:
    """Answers on the event loop when it is let go, from any thread, and counts its calls."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.calls = 0
        self.let_go = threading.Event()
        self.cancelled = False

    async def __call__(self) -> Any:
        self.calls += 1
        try:
            await until(self.let_go.is_set)
        except BaseException:
            self.cancelled = True
            raise
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


async def until(condition: Callable[[], object]) -> None:
    """Waits until the condition holds, on any event loop."""
    with anyio.fail_after(WAIT):
        while not condition():  # noqa: ASYNC110 -- it may become true in another thread
            await anyio.sleep(0.002)


async def gather(count: int, function: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What so many calls give or raise, all at one time."""
    outcomes: list[Any] = []

    async def one() -> None:
        try:
            outcomes.append(await function())
        except Exception as error:
            outcomes.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return outcomes


def run(loop: str, main: Callable[[], Awaitable[Any]]) -> Any:
    """Runs this on an event loop of this kind."""
    return anyio.run(main, backend=loop)


async def never() -> Credential:
    """A provider that must not be called."""
    raise AssertionError


async def newer() -> Credential:
    """A provider that answers at once."""
    return NEW


# One round


@every_loop
@pytest.mark.parametrize("question", ["obtain", "refresh"])
def test_one_call_for_all(question: str, loop: str) -> None:
    """1,000 who ask together cause one call, and all get what it gave."""
    cache, provider = CredentialCache(), Provider(NEW)
    args = (CONNECTION, OLD) if question == "refresh" else (CONNECTION,)

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def asking() -> None:
                ask = partial(getattr(cache, f"a{question}"), *args, provider)
                assert await gather(1000, ask) == [NEW] * 1000

            group.start_soon(asking)
            await until(lambda: waiting(cache) == [1000])
            provider.let_go.set()

    run(loop, main)
    assert provider.calls == 1
    assert cache.get(CONNECTION) is NEW
    assert cache._rounds == {}


@every_loop
@pytest.mark.parametrize(
    ("outcome", "kind"),
    [(RefreshFailed(), RefreshFailed), (CredentialUnavailable(), CredentialUnavailable), (OSError(), InternalError)],
)
def test_one_failure_for_all(outcome: Exception, kind: type[Exception], loop: str) -> None:
    """Those waiting share a failure as well, each with an exception of their own, which has no past."""
    cache, provider = CredentialCache(), Provider(outcome)
    provider.let_go.set()
    errors = run(loop, partial(gather, 100, partial(cache.aobtain, CONNECTION, provider)))
    assert [type(error) for error in errors] == [kind] * 100
    assert len(set(map(id, errors))) == 100
    assert all(error.__context__ is None for error in errors)
    assert provider.calls == 1


@every_loop
def test_back_off(loop: str) -> None:
    """After a failed refresh nobody calls again."""
    cache, provider = CredentialCache(), Provider(ValueError())
    provider.let_go.set()

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(RefreshFailed):
                await cache.arefresh(CONNECTION, OLD, provider)

    run(loop, main)
    assert provider.calls == 1


@every_loop
def test_known_without_a_call(loop: str) -> None:
    """What is known needs no round: neither a fresh credential, nor one newer than the rejected."""
    cache = CredentialCache()

    async def main() -> None:
        assert await cache.aobtain(CONNECTION, newer) is NEW
        assert await cache.aobtain(CONNECTION, never) is NEW
        assert await cache.arefresh(CONNECTION, OLD, never) is NEW

    run(loop, main)


@every_loop
def test_context_of_the_leader(loop: str) -> None:
    """The call sees the context variables of who leads."""

    async def obtain() -> Credential:
        return Credential.bearer(tenant.get())

    async def main() -> Credential:
        tenant.set("acme")
        return await CredentialCache().aobtain(CONNECTION, obtain)

    assert run(loop, main) == Credential.bearer("acme")


def test_all_kinds_of_callers_at_once() -> None:
    """Threads, asyncio loops and trio share one round, whoever leads it."""
    for leader in ("thread", *LOOPS):
        cache, call, held = CredentialCache(), Provider(NEW), Held(NEW)

        def ask(kind: str, cache: CredentialCache = cache, call: Provider = call, held: Held = held) -> list[Any]:
            if kind == "thread":
                return [cache.refresh(CONNECTION, OLD, held)]
            outcomes: list[Any] = run(kind, partial(gather, 20, partial(cache.arefresh, CONNECTION, OLD, call)))
            return outcomes

        with ThreadPoolExecutor(16) as threads:
            answers = [threads.submit(ask, leader)]
            until_in_thread(lambda cache=cache: waiting(cache))  # type: ignore[misc]
            leading = waiting(cache)
            answers += [threads.submit(ask, kind) for kind in ("thread", *LOOPS) * 4]
            others = 4 + 2 * 4 * 20
            led = 0 if leader == "thread" else 20
            until_in_thread(lambda cache=cache, total=others + led: waiting(cache) == [total])  # type: ignore[misc]
            call.let_go.set()
            held.let_go.set()
            assert {credential for answer in answers for credential in answer.result(WAIT)} == {NEW}
        assert leading
        assert call.calls + held.calls == 1
        assert cache._rounds == {}


# Calls that take too long


@every_loop
@pytest.mark.parametrize("question", ["obtain", "refresh"])
def test_call_is_given_up(question: str, loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """A call that hangs is cancelled, leader and waiters get RefreshFailed, and it counts as a failure."""
    cache, provider = Hasty(), Provider(NEW)
    args = (CONNECTION, OLD) if question == "refresh" else (CONNECTION,)

    async def main() -> None:
        ask = partial(getattr(cache, f"a{question}"), *args, provider)
        outcomes = await gather(5, ask)
        assert [type(outcome) for outcome in outcomes] == [RefreshFailed] * 5
        await until(lambda: not cache._rounds)
        with pytest.raises(RefreshFailed):
            await ask()

    run(loop, main)
    assert provider.cancelled
    assert provider.calls == 1
    assert "no answer within 0.1 seconds" in caplog.text


@every_loop
def test_time_out_of_the_providers_own(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """A TimeoutError of the provider's is its failure, told apart in the log."""
    cache, provider = CredentialCache(), Provider(TimeoutError())
    provider.let_go.set()
    (error,) = run(loop, partial(gather, 1, partial(cache.aobtain, CONNECTION, provider)))
    assert isinstance(error, InternalError)
    assert "Obtain failed with TimeoutError" in caplog.text


@every_loop
def test_waiting_ends_for_a_thread_that_hangs(loop: str) -> None:
    """A loop does not wait for ever for a round that a thread leads."""
    cache, held = Hasty(), Held(NEW)
    leader = threading.Thread(target=cache.refresh, args=(CONNECTION, OLD, held))
    leader.start()
    assert held.called.wait(WAIT)
    (error,) = run(loop, partial(gather, 1, partial(cache.arefresh, CONNECTION, OLD, never)))
    assert isinstance(error, RefreshFailed)
    held.let_go.set()
    leader.join(WAIT)
    assert cache.get(CONNECTION) is NEW
