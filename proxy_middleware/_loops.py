"""What differs between event loops: asyncio's, whoever made it, and trio's."""

import asyncio
import contextvars
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from proxy_middleware.errors import RefreshFailed

_logger = logging.getLogger("proxy_middleware")


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The running event loop; None where trio runs the calling coroutine, or nothing does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def on_loop() -> bool:
    """Whether an event loop runs the calling code, asyncio's or trio's."""
    if asyncio_loop() is not None:
        return True
    trio = sys.modules.get("trio")  # Whom it runs has imported it.
    return trio is not None and trio.lowlevel.in_trio_task()


def spawn(function: Callable[[], Any]) -> object:
    """Starts a task of its own, with the caller's context variables; whoever calls keeps a reference to it."""
    if (loop := asyncio_loop()) is not None:
        return loop.create_task(function())
    import trio

    return trio.lowlevel.spawn_system_task(function, context=contextvars.copy_context())


def call_soon() -> Callable[[Callable[[], object]], object]:
    """How any thread makes the running event loop call something."""
    if (loop := asyncio_loop()) is not None:
        return loop.call_soon_threadsafe
    import trio

    return trio.lowlevel.current_trio_token().run_sync_soon


async def within(seconds: float | None, awaitable: Awaitable[Any]) -> Any:
    """What a credential provider gives within so many seconds; None is no limit.

    Raises:
        RefreshFailed: It was not done in time, and has been cancelled.
    """
    if asyncio_loop() is None:
        with anyio.move_on_after(seconds):
            return await awaitable
    else:  # Not by anyio, which there cancels over and over whoever cleans up.
        try:
            async with asyncio.timeout(seconds) as limit:
                return await awaitable
        except TimeoutError:
            if not limit.expired():
                raise
    _logger.error("A credential provider gave no answer within %g seconds", seconds)
    raise RefreshFailed
