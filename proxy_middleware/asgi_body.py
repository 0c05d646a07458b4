"""The request body under ASGI: read from `receive`, counted, and kept while it may be needed again."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio.to_thread

from proxy_middleware._loops import asyncio_loop
from proxy_middleware._spool import Spool
from proxy_middleware._trail import Ending
from proxy_middleware.errors import CallerLeft, InvalidRequest, PayloadTooLarge
from proxy_middleware.models import Replay

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class RequestBody(Ending):
    """A request body as the engine reads it.

    `receive` has one owner at a time. A pending `receive` is never cancelled, since some servers would lose its chunk:
    once a body does not come at once, each pull is a task of its own, which the next reader finds if the one before
    has been cancelled.

    Attributes:
        at_end: Whether everything has been read.
        ended: Whether everything has come.
        answered: Whether the last of the response is on its way.
        loop: The running event loop, where it is asyncio's.
        sending_since: Since when the server has been taking a piece of the response, by the monotonic clock.
    """

    # Defaults stand in the class, so that making one per request costs little.
    at_end = False
    ended = False
    answered = False
    sending_since: float | None = None
    loop: asyncio.AbstractEventLoop | None = None
    _length: int | None = None
    _size = 0
    _spool: Spool | None = None
    _position: int | None = None  # Where in the spool to read on, while replaying.
    _pending: asyncio.Task[tuple[bytes, bool]] | None = None
    _pushed_back: bytes | None = None

    def __init__(self, receive: Receive, limit: int | None, replay: Replay) -> None:
        self._receive = receive
        self._limit = limit
        self._replay = replay

    def expect(self, length: int | None) -> None:
        """So many bytes will come; None where only the end tells."""
        self._length = length
        self.at_end = self.ended = length == 0

    def keep(self) -> None:
        """From the start, keep what is read, so that it can be sent again."""
        if self._spool is None and not self._size:
            self._spool = Spool(self._replay)
        elif self._spool is None and self._pushed_back is not None:
            self._spool = Spool(self._replay)
            self._spool.add(self._pushed_back)

    @property
    def replayable(self) -> bool:
        """Whether the body can be read again from its start."""
        return self._spool is not None and not self._spool.overflown

    def rewind(self) -> None:
        """Starts over; only where it is replayable."""
        self._position = 0
        self._pushed_back = None
        self.at_end = self.ended and not self._size

    async def probe(self) -> bool:
        """Whether there is a body at all."""
        data = await self.read()
        if data:
            self._pushed_back, self.at_end = data, False
        return bool(data)

    async def collect(self, limit: int) -> bytes:
        """The whole body; raises PayloadTooLarge if it is longer than `limit` bytes."""
        self.keep()
        if self._size and self._pushed_back is None:
            self.rewind()
        pieces = []
        while not self.at_end:
            pieces.append(await self.read())
            if self._size > limit:
                raise PayloadTooLarge("The request body is too large to be signed")
        return b"".join(pieces)

    async def read(self) -> bytes:
        """The next piece, waiting for it; nothing only at the end.

        Raises:
            CallerLeft: The caller closed its connection before the end.
            InvalidRequest: More came than was announced.
            PayloadTooLarge: More came than is allowed.
        """
        if self._pushed_back is not None:
            data, self._pushed_back = self._pushed_back, None
        elif self._position is None:
            data = await self._next()
        else:
            data = await self._read_again(self._position)
        self.at_end = self.ended and self._position is None
        return data

    async def _next(self) -> bytes:
        loop = asyncio_loop() if self._size else None
        if loop is None:
            # Nobody else reads yet, or nobody cancels readers.
            return (await self._pull())[0]
        if self._pending is None:
            self._pending = loop.create_task(self._pull())
        data, _ = await asyncio.shield(self._pending)
        self._pending = None
        return data

    async def _read_again(self, position: int) -> bytes:
        spool = self._spool
        assert spool is not None
        if position < spool.size:
            data = await _on_disk(spool.read, position) if spool.uses_disk() else spool.read(position)
            position += len(data)
            self._position = None if self.ended and position == spool.size and not spool.overflown else position
            return data
        if self._pending is not None:
            data, kept = await asyncio.shield(self._pending)
            self._pending = None
            if kept:
                # It is in the spool, where it may have been read before its pull was done.
                return await self._read_again(position)
            self._position = None
            return data
        self._position = None
        return b"" if self.ended else await self._next()

    async def _pull(self) -> tuple[bytes, bool]:
        """The next piece from the server, and whether it has been kept."""
        data, more = b"", True
        while more and not data:
            message = await self._receive()
            if message["type"] != "http.request":
                raise CallerLeft
            data, more = message.get("body", b""), message.get("more_body", False)
        self._count(len(data), more)
        spool = self._spool
        if spool is not None and not spool.overflown:
            if spool.uses_disk(len(data)):
                await _on_disk(spool.add, data)
            else:
                spool.add(data)
        # Not before: a replay that reads meanwhile would take what has been kept so far for the whole.
        self.ended = not more or self._size == self._length
        return data, spool is not None and not spool.overflown

    def _count(self, size: int, more: bool) -> None:
        self._size += size
        if self._limit is not None and self._size > self._limit:
            raise PayloadTooLarge
        if self._length is not None and self._size > self._length:
            raise InvalidRequest("The body is longer than its Content-Length")
        if not more and self._length is not None and self._size < self._length:
            raise CallerLeft

    def watch(self) -> None:
        """The response turns out to stream: from now on somebody should notice when the caller leaves."""

    async def wait_left(self) -> bool:
        """Returns True when the caller has left, False where `receive` cannot tell; only once the body has ended."""
        # A body that ended by its length, or never was, may still have an empty message to come. Whoever goes on
        # giving messages at once (middleware that replays a body does) would keep the event loop busy for ever.
        for _ in range(3):
            if (await self._receive())["type"] == "http.disconnect":
                return True
        return False

    def cancelled(self) -> bool:
        """Whether a cancellation of the request was this body's doing."""
        return False

    def close(self) -> None:
        """Forgets the body: the request is over."""
        self.over(self._size)
        pending = self._pending
        if pending is not None and not pending.cancel() and not pending.cancelled():
            pending.exception()  # Seen, so that asyncio does not report it as lost.
        if self._spool is not None:
            self._spool.close()


async def _on_disk(function: Callable[..., Any], argument: Any) -> Any:
    return await anyio.to_thread.run_sync(function, argument)
