"""Calling what the application plugged in, in the colour of the door: a thread's, or an event loop's."""

import asyncio
import logging
import os
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import Any, NamedTuple

import anyio.to_thread
from anyio.lowlevel import RunVar
from asgiref.sync import iscoroutinefunction, sync_to_async

from proxy_middleware._credential import Credential
from proxy_middleware._loops import asyncio_loop, within
from proxy_middleware.models import Connection
from proxy_middleware.protocols import Authenticator, ConnectionResolver, CredentialProvider, is_nonblocking

_logger = logging.getLogger("proxy_middleware")

# Threads in which blocking credential providers wait, for stores and token endpoints that may hang.
CREDENTIAL_THREADS = 64

Call = Callable[..., Any]
Find = Callable[[Connection], Credential | CredentialProvider]


class Plugins(NamedTuple):
    """What the application plugged in; `find` gives the credential or the provider of a connection."""

    authenticate: Authenticator
    resolver: ConnectionResolver
    find: Find


def log_failure(what: str, error: Exception) -> None:
    """Says in the log what a plugin raised, and where; its message is told to nobody, since it may hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    where = "\n".join(f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    _logger.error("%s failed with %s (message withheld)\n%s", what, type(error).__name__, where)


def for_wsgi(function: Call) -> Call:
    """The function as a thread may call it, which nobody cancels: a plugin that says so has failed."""

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except asyncio.CancelledError as error:
            raise RuntimeError("a plugin raised CancelledError") from error

    return call


def for_asgi(function: Call) -> Call:
    """The function as the event loop may call it: a plain `def` that may block runs in a worker thread."""
    if _never_blocks(function):
        return function
    guarded = _guarded(function)
    return _in_thread(guarded, sync_to_async(guarded, thread_sensitive=False), lambda: None)


def for_asgi_apart(function: Call) -> Call:
    """The same, in a thread of those that are kept for credential providers: others do not wait where one hangs."""
    if _never_blocks(function):
        return function
    guarded = _guarded(function)

    def on_asyncio(*args: Any) -> Awaitable[Any]:
        run = copy_context().run
        return asyncio.get_running_loop().run_in_executor(_credential_threads(), run, guarded, *args)

    return _in_thread(guarded, on_asyncio, _credential_limiter)


def _never_blocks(function: Call) -> bool:
    called = getattr(function, "__call__", None)  # noqa: B004
    return iscoroutinefunction(function) or iscoroutinefunction(called) or is_nonblocking(function)


def _in_thread(guarded: Call, on_asyncio: Call, limiter: Callable[[], anyio.CapacityLimiter | None]) -> Call:
    async def call(*args: Any) -> Any:
        if asyncio_loop() is not None:
            (value,) = await on_asyncio(*args)
        else:
            (value,) = await anyio.to_thread.run_sync(guarded, *args, limiter=limiter())
        return await value if hasattr(value, "__await__") else value

    return call


def _guarded(function: Call) -> Call:
    checked = for_wsgi(function)

    def call(*args: Any) -> Any:
        try:
            return (checked(*args),)  # In a tuple, since trio refuses to hand over a coroutine.
        except StopIteration as error:
            # A future cannot hold one: whoever waits for it would wait for ever.
            raise RuntimeError("a plugin raised StopIteration") from error

    return call


async def asettled(value: Any) -> Any:
    """What a function gave, awaited for as long as it is awaitable."""
    while hasattr(value, "__await__"):
        value = await value
    return value


def settled(value: Any, seconds: float | None = None) -> Any:
    """The same, in a thread: what is awaitable runs on the background loop, for so long at the most."""
    return background.run(asettled(value), seconds) if hasattr(value, "__await__") else value


class _BackgroundLoop:
    """One event loop in a daemon thread, on which WSGI runs `async def` plugins, so that their connections live."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, awaitable: Awaitable[Any], seconds: float | None = None) -> Any:
        """The awaitable's result; the calling thread waits for it. After so many seconds it is cancelled."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="proxy_middleware", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(within(seconds, awaitable), self._loop).result()


background = _BackgroundLoop()


@cache
def _credential_threads() -> Executor:
    return ThreadPoolExecutor(CREDENTIAL_THREADS, thread_name_prefix="proxy_middleware-credentials")


_limiter: RunVar[anyio.CapacityLimiter] = RunVar("proxy_middleware-credentials")


def _credential_limiter() -> anyio.CapacityLimiter:
    """The same number, of threads under trio, where the host's own calls have another limit."""
    try:
        return _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(CREDENTIAL_THREADS)
        _limiter.set(limiter)
        return limiter


def _after_fork() -> None:
    # The threads stayed with the parent.
    background.__init__()  # type: ignore[misc]
    _credential_threads.cache_clear()


os.register_at_fork(after_in_child=_after_fork)
