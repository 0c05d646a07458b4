"""One connection of the asyncio engine, and the response that comes in on it.

No stream readers, no task and no timer per request: a response is parsed where it arrives, only a body that is still
coming from the caller has a task, and a connection has one timer, which looks at the deadline when it fires.
"""

import asyncio
import select
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Protocol, cast

from proxy_middleware._steps import Forward
from proxy_middleware._target import Origin
from proxy_middleware.errors import (
    ConnectionTerminated,
    HeadTimeout,
    ProtocolViolation,
    ReadTimeout,
    ResponseTruncated,
    WriteTimeout,
)
from proxy_middleware.upstream.http1 import LAST_CHUNK, Message, ResponseParser, encode_chunk, encode_head

# Bytes read at once.
READ_SIZE = 256 * 1024
# Bytes of a response that may wait for the caller before reading from the upstream pauses.
HIGH_WATER = 256 * 1024


class Owner(Protocol):
    """Whom a connection tells what has become of it."""

    def release(self, connection: "Connection") -> None:
        """It has done its request, and can do another."""

    def gone(self, connection: "Connection") -> None:
        """It has closed."""


class Response(Message):
    """One response as it comes in, and the upload that belongs to it.

    Attributes:
        arrival: Done once its head is complete, or with what kept it from becoming so.
        pump: The upload; held here, since a running loop keeps only weak references to its tasks.
    """

    retried = False
    streaming = False
    pump: asyncio.Task[None] | None = None
    _error: Exception | None = None
    _buffered = 0

    def __init__(self, connection: "Connection", idle: float | None) -> None:
        self.chunks = []
        self.idle = idle
        self._connection = connection
        self._waiter: asyncio.Future[None] = asyncio.Future(loop=connection.loop)
        self.arrival = self._waiter

    @property
    def at_end(self) -> bool:
        """Whether every byte of the body has been read."""
        return self.complete and not self.chunks

    @property
    def ready(self) -> bool:
        """Whether `read` would return at once."""
        return self.complete or bool(self.chunks)

    async def read(self) -> bytes:
        """What has arrived of the body, waiting for it where nothing has; nothing at the end.

        Raises:
            ResponseTruncated: The upstream broke off.
            ProxyError: A time-out, or bad framing.
        """
        while not self.chunks:
            if self.complete:
                return b""
            await self.wait()
        data = self.take()
        if self._buffered > HIGH_WATER and not self.complete:
            self._connection.resume(self)
        self._buffered = 0
        return data

    async def wait(self) -> None:
        """Until something has happened.

        Raises:
            Exception: What was the last thing to happen, and nothing is left to be read before it.
        """
        if self._error is None:
            self._waiter = self._connection.loop.create_future()
            await self._waiter
        if self._error is not None and not self.chunks:
            raise self._error

    def wake(self) -> None:
        """Something has happened."""
        waiter = self._waiter
        if self.head_complete and not waiter.done():
            waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """Nothing more happens."""
        self._error = error
        if self.head_complete:
            self.wake()
        elif not self._waiter.done():
            self._waiter.set_exception(error)

    def received(self, size: int) -> bool:
        """Counts what arrived; whether reading should pause."""
        # What is framing only leaves nothing to be read, and nobody who could read on.
        self._buffered = self._buffered + size if self.chunks else 0
        return self._buffered > HIGH_WATER

    def limit(self, seconds: float) -> None:
        """From now on nothing is waited for any longer, where there was no limit: events may be hours apart."""
        if self.idle is None:
            self.idle = seconds
            self._connection.limit(self)

    def abort(self) -> None:
        """Gives the response up; its connection is closed, unless all of it has arrived."""
        self._connection.give_up(self)

    async def aclose(self) -> None:
        """Gives the response up, and the upload; what that still waits for goes to whoever reads the body next."""
        self.abort()


class Connection(asyncio.BufferedProtocol):
    """One connection to an upstream: idle, or busy with one request.

    All connections of a loop read into one buffer: asyncio's own way, a new object of 256 KiB for every read, costs
    more than all the rest of a small response.
    """

    def __init__(
        self, owner: Owner, origin: Origin, loop: asyncio.AbstractEventLoop, head_limit: int, buffer: memoryview
    ) -> None:
        self.origin = origin
        self.has_place = False
        self._owner = owner
        self.loop = loop
        self._parser = ResponseParser(head_limit, lower_case=True)
        self._buffer = buffer
        self._response: Response | None = None
        self._uploaded = True
        self._ended = False
        self._lost = False
        self._deadline: float | None = None
        self._late: Callable[[], Exception] = ReadTimeout
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._writable: asyncio.Future[None] | None = None

    # The request.

    def send(self, forward: Forward, first: bytes, last: bool) -> Response:
        """Sends a request; its response is still to come.

        Args:
            forward: The request.
            first: The first bytes of its body.
            last: Whether these are all.
        """
        timeouts, method = forward.timeouts, forward.method
        self._response = response = Response(self, timeouts.idle)
        self._parser.begin(response, method == b"HEAD")
        head = encode_head(method, forward.target, forward.fields)
        if forward.chunked:
            first = encode_chunk(first) + (LAST_CHUNK if last else b"")
        self._transport.write(head + first if first else head)
        self._uploaded = last
        if last:
            self.watch(timeouts.head, HeadTimeout)
        else:
            self.watch(timeouts.idle, WriteTimeout)
            response.pump = self.loop.create_task(self._upload(forward, response))
        return response

    async def _upload(self, forward: Forward, response: Response) -> None:
        """Passes the rest of the caller's body on, as fast as the upstream takes it.

        Never cancelled for the connection's sake, since the caller's server may lose what it waits for: it looks after
        each wait whether the connection is still there. Whoever ends the request cancels who still waits in `read`.
        """
        body, idle = forward.body, forward.timeouts.idle
        try:
            while self.alive and not body.at_end:
                if self._writable is not None:
                    await self._writable
                    continue
                data = await body.read()
                if self.alive:
                    self._transport.write(encode_chunk(data) if forward.chunked else data)
                    self._moved(response, idle)
        except Exception as error:
            self._fail(error)
        else:
            if self.alive:
                self._finish_upload(forward, response)

    def _finish_upload(self, forward: Forward, response: Response) -> None:
        if forward.chunked:
            self._transport.write(LAST_CHUNK)
        self._uploaded = True
        if not response.streaming:
            self.watch(forward.timeouts.head, HeadTimeout)

    def _moved(self, response: Response, idle: float | None) -> None:
        """Some of the upload has gone out; where the response comes in already, that counts for it, too."""
        if not response.streaming:
            self.watch(idle, WriteTimeout)
        elif self._deadline is not None:
            self.watch(response.idle, ReadTimeout)

    def give_up(self, response: Response) -> None:
        """Closes the connection, if it is still busy with this response."""
        if self._response is response:
            self.close()

    def resume(self, response: Response) -> None:
        """Reads on, after the caller has taken what was there."""
        if self._response is response:
            self._transport.resume_reading()
            self.watch(response.idle, ReadTimeout)

    def limit(self, response: Response) -> None:
        """Sets the deadline for what comes next; `resume` does where reading has paused."""
        if self._response is response and self._transport.is_reading():
            self.watch(response.idle, ReadTimeout)

    def discard(self) -> None:
        """Closes an idle connection whose place has been given away already."""
        self.has_place = False
        self.close()

    @property
    def alive(self) -> bool:
        """Whether it can still be used, as far as is known."""
        return not self._transport.is_closing()

    def usable(self) -> bool:
        """Whether an idle connection is alive and has kept silent: what came before a request is no answer to it."""
        return not self._lost and not self._poll(0)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        # The loop may not have seen yet what has arrived.
        poll = select.poll()
        poll.register(transport.get_extra_info("socket"), select.POLLIN)
        self._poll = poll.poll

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        response = self._response
        if response is None:
            # Nobody asked: whatever this is, it must not become the answer to the next request.
            self.close()
            return
        try:
            self._parser.feed(self._buffer[:nbytes])
        except ProtocolViolation as error:
            self._fail(error)
            return
        if response.complete:
            if response.reusable and self._uploaded and not self._transport.get_write_buffer_size():
                self._response = None
                self._owner.release(self)
            else:
                self._closed()
                self._transport.abort()
        elif response.head_complete:
            if not response.streaming:
                self._begin_streaming(response)
            if response.received(nbytes):
                self._transport.pause_reading()
                self._deadline = None
            else:
                self.watch(response.idle, ReadTimeout)
        response.wake()

    def eof_received(self) -> None:
        self._lost = True
        tls = self._transport.get_extra_info("ssl_object")
        self._ended = tls is None or _has_closed(tls)
        # Nothing more can come; what is left of the request must not hold the end up.
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        response = self._response
        self._closed()
        if response is not None:
            try:
                if exc is not None or not self._ended:
                    self._parser.reset()
                self._parser.eof()
            except (ConnectionTerminated, ResponseTruncated) as error:
                response.fail(error)
            else:
                response.wake()
        self._parser.close()

    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # Endings.

    def _begin_streaming(self, response: Response) -> None:
        response.streaming = True
        for name, value in response.fields:
            if name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream"):
                # Events may be hours apart.
                response.idle = None

    def _fail(self, error: Exception) -> None:
        response = self._response
        self._closed()
        self._transport.abort()
        if response is not None:
            response.fail(error)

    def close(self) -> None:
        """Closes the connection at once, whatever it is busy with."""
        if self._response is None or self._response.head_complete:
            self._fail(ResponseTruncated("The connection to the upstream was closed"))
        else:
            self._fail(ConnectionTerminated())

    def _closed(self) -> None:
        self._lost = True
        self._response = None
        self._deadline = None
        self.resume_writing()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._owner.gone(self)

    # The deadline.

    def watch(self, seconds: float | None, late: Callable[[], Exception]) -> None:
        """Sets the deadline. The timer stays where it is, unless it would fire too late."""
        if seconds is None:
            self._deadline = None
            return
        self._late = late
        self._deadline = deadline = monotonic() + seconds
        if self._timer is None or self._timer_at > deadline:
            self._set_timer(deadline)

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.loop.call_later(deadline - monotonic(), self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if monotonic() < self._deadline:
            self._set_timer(self._deadline)
        else:
            self._fail(self._late())


def _has_closed(tls: ssl.SSLObject) -> bool:
    """Whether the peer ended TLS by close_notify; if not, anyone may have cut the connection (RFC 8446 section 6.1)."""
    try:
        return not tls.read(1)
    except ssl.SSLError:
        return False
