"""The response of an httpx or httpx2 transport, and what the errors of both libraries mean.

Imports neither: transports hand out what looks alike, and their errors are told by the names of their classes.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import anyio

from proxy_middleware._fields import Field, clean_values, is_token
from proxy_middleware._loops import spawn
from proxy_middleware._steps import Forward
from proxy_middleware.errors import (
    ConnectFailed,
    ConnectionTerminated,
    ConnectTimeout,
    HeadTimeout,
    InvalidRequest,
    InvalidTarget,
    PoolExhausted,
    ProtocolViolation,
    ReadTimeout,
    ResponseTruncated,
    UpstreamError,
    UpstreamTimeout,
    WriteTimeout,
)
from proxy_middleware.models import Timeouts
from proxy_middleware.upstream.dial import connect_error

_logger = logging.getLogger("proxy_middleware")


class _Answer:
    """What the two kinds of responses have in common.

    Attributes:
        status: Status code.
        reason: Reason phrase.
        fields: Header fields as sent.
        raw: The same as lines.
        kept: Never: all of them have to be looked at.
        taken: How many bytes of the body have been read.
        retried: Never: a transport does not tell.
        at_end: Whether every byte of the body has been read. Without a length, the read after the last byte tells.
    """

    retried = False
    kept = None
    taken = 0

    def __init__(self, answer: Any, forward: Forward, timeout: dict[str, float | None]) -> None:
        self.status: int = answer.status_code
        self.reason: bytes = answer.extensions.get("reason_phrase", b"")
        self.fields: list[Field] = list(answer.headers.raw)
        self.raw = [b"%b: %b" % field for field in self.fields]
        self.at_end = False
        self._unread = b""
        self._ended = False
        self._bodiless = forward.method == b"HEAD" or self.status in (204, 304)
        self._left = 0 if self._bodiless else _length(self.fields)
        # There the stream's end may come later than its last byte, and giving it up early costs no connection.
        self._http2 = answer.extensions.get("http_version") == b"HTTP/2"
        self._stream = answer.stream
        self._closed = False
        self._error: Exception | None = None
        timeout["read"] = _idle(self.fields, forward.timeouts)
        self._timeout = timeout

    @property
    def ready(self) -> bool:
        """Whether reading would not wait, as far as is known."""
        return self.at_end

    complete = ready

    def take(self) -> bytes:
        """What is left of a complete response: nothing."""
        return b""

    def limit(self, seconds: float) -> None:
        """From now on nothing is waited for any longer, where there was no limit: events may be hours apart."""
        if self._timeout["read"] is None:
            self._timeout["read"] = seconds

    def unread(self, data: bytes) -> None:
        """Puts back what was read, so that it is read again."""
        if data:
            self._unread, self._ended, self.at_end = data, self.at_end, False
            self.taken -= len(data)

    def _read_again(self) -> bytes:
        data, self._unread, self.at_end = self._unread, b"", self._ended
        self.taken += len(data)
        return data

    def _problem(self) -> str | None:
        """What is wrong with the head; the built-in engine's parser sees to that itself."""
        names = {name.lower() for name, _ in self.fields}
        if self.status < 200:
            return "The upstream sent an interim response that nobody asked for"
        if not clean_values(self.fields) or not all(is_token(name) for name, _ in self.fields):
            return "The upstream sent a malformed header field"
        if {b"content-length", b"transfer-encoding"} <= names:
            return "The upstream sent both Content-Length and Transfer-Encoding"
        return None

    def _count(self, data: bytes) -> None:
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise ProtocolViolation("The upstream sent more than it had announced")


def _length(fields: Iterable[Field]) -> int | None:
    """The body's length where Content-Length gives it (RFC 9112 section 6.3)."""
    names = {name.lower(): value for name, value in fields}
    length = names.get(b"content-length", b"")
    return int(length) if length.isdigit() and b"transfer-encoding" not in names else None


def _idle(fields: Iterable[Field], timeouts: Timeouts) -> float | None:
    for name, value in fields:
        if name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream"):
            # Events may be hours apart.
            return None
    return timeouts.idle


class AsyncResponse(_Answer):
    """One response of an asynchronous transport as it comes in."""

    def __init__(self, answer: Any, forward: Forward, timeout: dict[str, float | None]) -> None:
        super().__init__(answer, forward, timeout)
        self._chunks: AsyncIterator[bytes] = aiter(self._stream)

    async def begin(self) -> None:
        """Refuses what is no final response, and is at the end at once where no body follows."""
        if problem := self._problem():
            await self.aclose()
            raise ProtocolViolation(problem)
        if self._left == 0:
            await self._end()

    async def read(self) -> bytes:
        """What comes next of the body, never decoded; nothing at the end.

        Raises:
            ResponseTruncated: The upstream broke off.
            ProxyError: A time-out, or bad framing.
        """
        if self.at_end:
            return b""
        if self._unread:
            return self._read_again()
        data = await self._next()
        if data and self._left == 0:
            await self._end()
        return data

    async def _end(self) -> None:
        """Everything has come: has the transport notice it as well, so that the connection is free again."""
        if self._http2:
            self.at_end = True
            await self.aclose()
        else:
            await self._next()

    async def _next(self) -> bytes:
        if self._error is not None:
            raise self._error
        # In case that this read is cancelled: what has been broken off must not look complete to the next one.
        self._error = ResponseTruncated("The upstream's response broke off")
        try:
            async for data in self._chunks:
                if self._bodiless:
                    break
                if data:
                    self._count(data)
                    self.taken += len(data)
                    self._error = None
                    return data
        except Exception as error:
            self._error = after_head(error)
        else:
            self.at_end = not self._left
        await self.aclose()
        if not self.at_end:
            raise self._error from None
        return b""

    def abort(self) -> None:
        """Gives the response up; the connection is closed by a task of its own, since that may have to wait."""
        if not self._closed:
            _start_soon(self._close_unobserved)

    async def aclose(self) -> None:
        """Gives the response up; its connection is closed, unless all of it has arrived."""
        if self._closed:
            return
        self._closed = True
        if not self.at_end and self._error is None:
            self._error = ResponseTruncated("The response was given up")
        with anyio.CancelScope(shield=True):
            await _unwind(self._chunks)
            await self._stream.aclose()

    async def _close_unobserved(self) -> None:
        try:
            await self.aclose()
        except Exception as error:
            _logger.warning("Giving up a response failed with %s", type(error).__name__)


async def _unwind(chunks: AsyncIterator[bytes]) -> None:
    """Has an iterator end as if its reader had been cancelled.

    The iterators of httpcore are nested generators, and closing the outermost leaves those within to the garbage
    collector, of which trio complains. What they have buffered (64 KiB at the most) comes before they notice.
    """
    left = 64 * 1024
    with anyio.CancelScope() as scope, suppress(Exception):  # Nobody is left whom the outcome concerns.
        scope.cancel()
        async for data in chunks:
            left -= len(data) + 1
            if left < 0:
                break
    if hasattr(chunks, "aclose"):
        await chunks.aclose()


_tasks: set[asyncio.Task[None]] = set()


def _start_soon(function: Callable[[], Any]) -> None:
    task = spawn(function)
    if isinstance(task, asyncio.Task):
        # A running loop keeps only weak references to its tasks.
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


class Response(_Answer):
    """One response of a blocking transport as it comes in."""

    def __init__(self, answer: Any, forward: Forward, timeout: dict[str, float | None]) -> None:
        super().__init__(answer, forward, timeout)
        self._chunks: Iterator[bytes] = iter(self._stream)

    def begin(self) -> None:
        """Refuses what is no final response, and is at the end at once where no body follows."""
        if problem := self._problem():
            self.close()
            raise ProtocolViolation(problem)
        if self._left == 0:
            self._end()

    def read(self) -> bytes:
        """What comes next of the body, never decoded; nothing at the end.

        Raises:
            ResponseTruncated: The upstream broke off.
            ProxyError: A time-out, or bad framing.
        """
        if self.at_end:
            return b""
        if self._unread:
            return self._read_again()
        data = self._next()
        if data and self._left == 0:
            self._end()
        return data

    def _end(self) -> None:
        if self._http2:
            self.at_end = True
            self.close()
        else:
            self._next()

    def _next(self) -> bytes:
        if self._error is not None:
            raise self._error
        self._error = ResponseTruncated("The upstream's response broke off")
        try:
            for data in self._chunks:
                if self._bodiless:
                    break
                if data:
                    self._count(data)
                    self.taken += len(data)
                    self._error = None
                    return data
        except Exception as error:
            self._error = after_head(error)
        else:
            self.at_end = not self._left
        self.close()
        if not self.at_end:
            raise self._error from None
        return b""

    def close(self) -> None:
        """Gives the response up; its connection is closed, unless all of it has arrived."""
        if self._closed:
            return
        self._closed = True
        if not self.at_end and self._error is None:
            self._error = ResponseTruncated("The response was given up")
        self._stream.close()

    abort = close


# Errors.

_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2"}

_BEFORE_HEAD: dict[str, type[Exception]] = {
    "ConnectTimeout": ConnectTimeout,
    "ReadTimeout": HeadTimeout,
    "WriteTimeout": WriteTimeout,
    "PoolTimeout": PoolExhausted,
    "TimeoutException": UpstreamTimeout,
    "ReadError": ConnectionTerminated,
    "WriteError": ConnectionTerminated,
    "RemoteProtocolError": ConnectionTerminated,
    "LocalProtocolError": InvalidRequest,
    "InvalidURL": InvalidTarget,
}


def before_head(error: Exception) -> Exception:
    """What a transport's error means while there is no response; what is not its own is given back."""
    names = _names(error)
    if not names:
        return connect_error(error) if isinstance(error, OSError | UnicodeError) else error
    if "ConnectError" in names:
        return _connect_failure(error)
    if "RemoteProtocolError" in names and any(_module(type(cause)) in ("h11", "h2") for cause in _causes(error)):
        # The parser did not like what came; else nothing did.
        return ProtocolViolation()
    return next((_BEFORE_HEAD[name] for name in names if name in _BEFORE_HEAD), UpstreamError)()


def after_head(error: Exception) -> Exception:
    """What a transport's error means while its response is read; what is not its own is given back."""
    names = _names(error)
    if "ReadTimeout" in names:
        return ReadTimeout()
    if names or isinstance(error, OSError):
        return ResponseTruncated("The upstream's response broke off")
    return error


def _names(error: Exception) -> list[str]:
    return [cls.__name__ for cls in type(error).__mro__ if _module(cls) in _LIBRARIES]


def _module(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _connect_failure(error: Exception) -> Exception:
    causes = list(_causes(error))
    for kind in (ssl.SSLError | socket.gaierror | UnicodeError, OSError):
        for cause in causes:
            if isinstance(cause, kind):
                return connect_error(cause)
    return ConnectFailed()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to an error, the latest first. httpcore blanks its causes; they stay as context."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
