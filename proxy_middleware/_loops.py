"""What differs between event loops: asyncio's, whoever made it, and trio's."""

import asyncio
import contextvars
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
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
    # Whom trio runs has imported it; another thread may be in the middle of that.
    in_trio_task = getattr(sys.modules.get("trio.lowlevel"), "in_trio_task", None)
    return in_trio_task is not None and in_trio_task()


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


async def read_apart(body: Any) -> bytes:
    """The next piece of a request's body, for readers whom a transport may cancel while the request goes on.

    Who waits in `receive` must not be: where the loop is asyncio's, that is a task of its own, for which the next
    reader waits.
    """
    loop = asyncio_loop()
    if loop is None:
        return await body.read()  # type: ignore[no-any-return]
    reading: asyncio.Task[bytes] = loop.create_task(body.read())
    reading.add_done_callback(_see)
    await asyncio.wait([reading])
    return reading.result()


def _see(task: "asyncio.Task[Any]") -> None:
    """The error of a task that nobody may be waiting for any more; the body keeps it for its next reader."""
    if not task.cancelled():
        task.exception()


class OneTask:
    """An iterator that is read in one task, from its first piece to its last, whoever asks for them.

    The engine reads a request's body from several tasks in turn. Time-outs, cancel scopes and context variables that a
    generator holds over a `yield` belong to the task in which they began.
    """

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._asked: asyncio.Queue[None] = asyncio.Queue()
        self._given: asyncio.Queue[tuple[bytes | None, BaseException | None]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def next(self) -> tuple[bytes | None, BaseException | None]:
        """The next piece, None at the end; or what the iterator has raised, its own cancellation included."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read())
        self._asked.put_nowait(None)
        return await self._given.get()

    async def _read(self) -> None:
        piece: bytes | None = b""
        try:
            while piece is not None:
                await self._asked.get()
                piece = await anext(self._pieces, None)
                self._given.put_nowait((piece, None))
        except BaseException as error:
            # Given to whoever waits; there is nobody where `cancel` is what has happened.
            self._given.put_nowait((None, error))

    def cancel(self) -> None:
        """Nobody reads on."""
        if self._task is not None:
            self._task.cancel()
