"""A resolver around another one, which is asked once for all who want the same at the same time.

A connection that is known is given at once, in either door: no thread, no coroutine. Else those who want the same key
make a round, as for credentials: one of them leads, which is to ask the resolver, the others wait, and all get what it
found. That no connection was found is told to the leader alone, since whoever came later may have one by now.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, ClassVar

import anyio

from proxy_middleware._forks import tell_after_fork
from proxy_middleware._loops import call_soon, on_loop
from proxy_middleware._plugins import asettled, for_asgi, settled
from proxy_middleware.models import Connection, ProxyRequest
from proxy_middleware.protocols import ConnectionResolver, nonblocking

__all__ = ["CachedResolver"]


@dataclass(slots=True, eq=False)
class Round:
    """One call of the resolver, and all who wait for it.

    Attributes:
        began: When it was asked, by the cache's clock.
        wakers: Called, from any thread, when it is done.
        done: Whether it is over.
        found: What it found.
        failed: Whether it raised something; a round that is done without either was broken off.
    """

    began: float = 0.0
    wakers: list[Callable[[], object]] = field(default_factory=list)
    done: bool = False
    found: Connection | None = None
    failed: bool = False


class CachedResolver:
    """Keeps for a while what another resolver found.

    **The key is what keeps tenants apart.** Whoever has the same key is given the same connection, and the resolver
    does not see their request: a key without the caller would show one tenant's connection to another. It holds all
    that the resolver goes by, mostly `(request.caller.tenant, selector)`, as values, not as objects that each request
    makes anew.

    A change of the stored record shows after `ttl` seconds at the latest, or after `forget` at once, in this process.
    What the resolver raises is not kept, so that a new connection is found at once. All who miss the same key at the
    same time, in whatever thread or event loop, cause one call.

    Args:
        resolver: Any resolver, whose `resolve` may be `def` or `async def`.
        ttl: Seconds for which a connection is used, from when the resolver was asked for it.
        key: `key(selector, request)`, a plain `def` that does not block, gives the key: any hashable value, or None
            for what is not to be kept.
        capacity: So many keys are kept; then the least recently used one is dropped.
        clock: A monotonic clock, in seconds.

    Attributes:
        ROUND_SECONDS: Nobody waits for the call of another for longer; then the resolver is asked once more.

    Raises:
        TypeError: The resolver has no `resolve`, or the key is not a plain function.
        ValueError: `ttl` is not above zero, or `capacity` below one.
    """

    ROUND_SECONDS: ClassVar[float] = 5.0

    def __init__(
        self,
        resolver: ConnectionResolver,
        ttl: float,
        key: Callable[[str, ProxyRequest], Hashable | None],
        *,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not callable(getattr(resolver, "resolve", None)):
            raise TypeError("CachedResolver: the resolver needs a `resolve` method")
        if not callable(key) or iscoroutinefunction(key):
            raise TypeError("CachedResolver: key is a plain function of selector and request, and includes the caller")
        if not ttl > 0 or not capacity >= 1:
            raise ValueError(f"CachedResolver: ttl is above zero and capacity at least one, not {ttl!r}, {capacity!r}")
        self._in_thread, self._on_loop = resolver.resolve, for_asgi(resolver.resolve)
        self._ttl, self._key, self._capacity, self._clock = ttl, key, capacity, clock
        self._entries: OrderedDict[Hashable, tuple[Connection, float]] = OrderedDict()
        self._rounds: dict[Hashable, Round] = {}
        # Reentrant, since the garbage collector ends what waited on a lost event loop wherever it happens to run.
        self._lock = threading.RLock()
        tell_after_fork(self)

    @nonblocking
    def resolve(self, selector: str, request: ProxyRequest) -> Connection | Awaitable[Connection]:
        """The connection, or, on an event loop, what is awaited for it where the resolver has to be asked.

        Raises:
            TypeError: The key is not hashable.
            Exception: Whatever the resolver raises.
        """
        key = self._key(selector, request)
        if key is not None and (known := self._known(key)) is not None:
            return known
        threaded = not on_loop()
        if key is None:
            return self._in_thread(selector, request) if threaded else self._on_loop(selector, request)
        return self._find(key, selector, request) if threaded else self._afind(key, selector, request)

    def forget(self, key: Hashable) -> None:
        """Drops what is kept under this key; what is being asked at this moment will not be kept."""
        with self._lock:
            self._entries.pop(key, None)
            self._rounds.pop(key, None)

    def clear(self) -> None:
        """Does that for every key."""
        with self._lock:
            self._entries.clear()
            self._rounds.clear()

    def _known(self, key: Hashable) -> Connection | None:
        try:
            with self._lock:
                found, until = self._entries.get(key, _NOTHING)
                if self._clock() >= until:
                    return None
                self._entries.move_to_end(key)
                return found
        except TypeError:
            _check_hashable(key)
            raise

    # Asking, in two colours. Everyone brings a round of their own, and leads it if there is none to join.

    def _find(self, key: Hashable, selector: str, request: ProxyRequest) -> Connection:
        own = Round()
        while (step := self._next(key, own)) is not own:
            if isinstance(step, Connection):
                return step
            event = threading.Event()
            if self._notify(step, event.set):
                event.wait(self._patience(step))
            if step.found is not None:
                return step.found
            if step.failed:
                return _checked(settled(self._in_thread(selector, request)))
        with self._leading(key, own):
            own.found = found = _checked(settled(self._in_thread(selector, request)))
        return found

    async def _afind(self, key: Hashable, selector: str, request: ProxyRequest) -> Connection:
        own = Round()
        while (step := self._next(key, own)) is not own:
            if isinstance(step, Connection):
                return step
            event = anyio.Event()
            if self._notify(step, partial(call_soon(), event.set)):
                with anyio.move_on_after(self._patience(step)):
                    await event.wait()
            if step.found is not None:
                return step.found
            if step.failed:
                return _checked(await asettled(self._on_loop(selector, request)))
        with self._leading(key, own):
            own.found = found = _checked(await asettled(self._on_loop(selector, request)))
        return found

    def _next(self, key: Hashable, own: Round) -> Connection | Round:
        """What is known by now, or else the round to wait for, or to lead if it is the caller's own."""
        with self._lock:
            known, now = self._known(key), self._clock()
            if known is not None:
                return known
            round_ = self._rounds.get(key)
            if round_ is not None and now - round_.began < self.ROUND_SECONDS:
                return round_
            own.began, self._rounds[key] = now, own
            return own

    def _notify(self, round_: Round, waker: Callable[[], object]) -> bool:
        with self._lock:
            if not round_.done:
                round_.wakers.append(waker)
            return not round_.done

    def _patience(self, round_: Round) -> float:
        return round_.began + self.ROUND_SECONDS - self._clock()

    @contextmanager
    def _leading(self, key: Hashable, own: Round) -> Iterator[None]:
        try:
            yield
        except Exception:
            own.failed = True
            raise
        finally:
            self._end(key, own)

    def _end(self, key: Hashable, own: Round) -> None:
        with self._lock:
            own.done = True
            if self._rounds.get(key) is own:  # Else it was forgotten, or is too old to count.
                del self._rounds[key]
                if own.found is not None:
                    self._keep(key, own.found, own.began + self._ttl)
            for wake in own.wakers:
                with suppress(RuntimeError):  # That event loop has ended, and who waited there with it.
                    wake()

    def _keep(self, key: Hashable, found: Connection, until: float) -> None:
        self._entries[key] = found, until
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def after_fork(self) -> None:
        """No round goes on in the child: neither its leader nor who waits for it is there."""
        self._lock = threading.RLock()
        self._rounds = {}


_NOTHING: tuple[None, float] = None, float("-inf")


def _check_hashable(key: object) -> None:
    try:
        hash(key)
    except TypeError:
        kind = type(key).__name__
        raise TypeError(f"CachedResolver: key gave a {kind}, which is not hashable; give a tuple of values") from None


def _checked(found: Any) -> Connection:
    if not isinstance(found, Connection):
        raise TypeError(f"the resolver gave {type(found).__name__}, not Connection")
    return found
