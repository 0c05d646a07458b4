"""The request body under ASGI: read from `receive`, counted, and kept while it may be needed again."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio.to_thread

from proxy_middleware._spool import Spool
from proxy_middleware._trail import Ending
from proxy_middleware.errors import CallerLeft, InternalError, InvalidRequest, PayloadTooLarge
from proxy_middleware.models import Replay

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class RequestBody(Ending):
    """A request body as the engine reads it.

    `receive` has one owner at a time, and is not cancelled before the request is over, since some servers would lose
    its chunk. An upload that is given up while it waits there gets what comes, and whoever reads the body again waits
    for that upload where the kept part ends.

    Attributes:
        ended: Whether everything has come.
        answered: Whether the last of the response is on its way.
        loop: The running event loop, where it is asyncio's.
        sending_since: Since when the server has been taking a piece of the response, by the monotonic clock.
    """

    # Defaults stand in the class, so that making one per request costs little.
    ended = False
    answered = False
    sending_since: float | None = None
    loop: asyncio.AbstractEventLoop | None = None
    _length: int | None = None
    _size = 0
    _spool: Spool | None = None
    _position: int | None = None  # Where in the spool to read on, while replaying.
    _turn = 0  # How often the body has been rewound: who began to read before that leaves everything as it is.
    _pending: asyncio.Task[Any] | None = None  # Who waits in `receive`, where the loop is asyncio's.
    _failure: Exception | None = None  # What that has come to.
    _pushed_back: bytes | None = None
    _unkept: bytes | None = None  # The piece for which the spool had no room, if nothing has come after it.

    def __init__(self, receive: Receive, limit: int | None, replay: Replay) -> None:
        self._receive = receive
        self._limit = limit
        self._replay = replay

    def expect(self, length: int | None) -> None:
        """So many bytes will come; None where only the end tells."""
        self._length = length
        self.ended = length == 0

    def keep(self) -> None:
        """From the start, keep what is read, so that it can be sent again."""
        if self._spool is None and not self._size:
            self._spool = Spool(self._replay, self._length)
        elif self._spool is None and self._pushed_back is not None:
            self._spool = Spool(self._replay, self._length)
            self._spool.add(self._pushed_back)

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        if self._position is None or self._spool is None:
            return self.ended and self._pushed_back is None
        return self.ended and self._position == self._spool.size and not self._spool.overflown

    @property
    def replayable(self) -> bool:
        """Whether the body can be read again from its start."""
        return self._spool is not None and not self._spool.overflown

    def rewind(self) -> None:
        """Starts over; only where it is replayable."""
        self._turn += 1
        self._position = 0
        self._pushed_back = None

    async def probe(self) -> bool:
        """Whether there is a body at all."""
        data = await self.read()
        if data:
            self._pushed_back = data
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
        whole = b"".join(pieces)
        if self._spool is not None and self._spool.overflown:
            self._spool.close()
            self._spool = Spool.holding(whole)  # The disk is full, or not there; what is signed is sent whole.
        return whole

    async def read(self) -> bytes:
        """The next piece, waiting for it; nothing only at the end.

        Raises:
            CallerLeft: The caller closed its connection before the end.
            InvalidRequest: More came than was announced.
            PayloadTooLarge: More came than is allowed.
        """
        if self._position is not None:
            return await self._read_again(self._position)
        if self._pushed_back is not None:
            data, self._pushed_back = self._pushed_back, None
            return data
        return await self._pull()

    async def _read_again(self, position: int) -> bytes:
        spool, turn = self._spool, self._turn
        assert spool is not None
        while position == spool.size and self._pending is not None:
            # An upload that was given up: what it gets may be kept. A bare `await` would pass a cancellation on to it.
            await asyncio.wait([self._pending])
            if self._turn != turn:
                return b""
        if position < spool.size:
            data = await _on_disk(spool.read, position) if spool.uses_disk() else spool.read(position)
            if self._turn == turn:
                self._position = position + len(data)
            return data
        self._position = None
        if self._unkept is not None:
            return self._unkept
        if spool.overflown:
            raise InternalError  # What would come next stands behind a gap.
        return b"" if self.ended else await self._pull()

    async def _pull(self) -> bytes:
        """The next piece from the server."""
        if self._failure is not None:
            raise self._failure
        self._pending = None if self.loop is None else asyncio.current_task(self.loop)
        self._unkept = None
        try:
            data, more = await self._receive_piece()
            self._count(len(data), more)
            if self._spool is not None and not self._spool.overflown:
                await self._add(self._spool, data)
        except Exception as error:
            if self._spool is not None:
                self._failure = error
            raise
        except asyncio.CancelledError:
            # The request is over; or else what was to come may be lost, and the body cannot be sent again.
            if self._spool is not None:
                self._spool.close()
            raise
        finally:
            self._pending = None
        # Not before: a replay that reads meanwhile would take what has been kept so far for the whole.
        self.ended = not more or self._size == self._length
        return data

    async def _receive_piece(self) -> tuple[bytes, bool]:
        """What comes next, and whether there is more."""
        data, more = b"", True
        while more and not data:
            message = await self._receive()
            if message["type"] != "http.request":
                raise CallerLeft
            data, more = message.get("body", b""), message.get("more_body", False)
        return data, more

    async def _add(self, spool: Spool, data: bytes) -> None:
        if spool.uses_disk(len(data)):
            await _on_disk(spool.add, data)
        else:
            spool.add(data)
        if spool.overflown:
            self._unkept = data

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
        self._turn += 1
        self._failure = None  # Its traceback leads back to here.
        if self._pending is not None:
            self._pending.cancel()
        if self._spool is not None:
            self._spool.close()


async def _on_disk(function: Callable[..., Any], argument: Any) -> Any:
    return await anyio.to_thread.run_sync(function, argument)
