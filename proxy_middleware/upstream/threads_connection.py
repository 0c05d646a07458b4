"""One connection of the threads engine, and the response that comes in on it.

The socket does not block. CPython polls before each call on a socket with a time-out; polling here instead saves one
call per request, and can look at both directions, and at the caller, at once.
"""

import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from proxy_middleware._steps import Forward
from proxy_middleware._target import Origin
from proxy_middleware.errors import (
    CallerLeft,
    ConnectionTerminated,
    HeadTimeout,
    ReadTimeout,
    ResponseTruncated,
    WriteTimeout,
)
from proxy_middleware.upstream.http1 import LAST_CHUNK, Message, ResponseParser, encode_chunk, encode_head

# More than a TLS record holds, so that nothing decrypted stays behind where poll() cannot see it.
RECEIVE = 64 * 1024
# Seconds of waiting after which the caller's socket is looked at; most requests are answered before.
PATIENCE = 0.2

READ, WRITE = select.POLLIN, select.POLLOUT
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Owner(Protocol):
    """Whom a connection tells what has become of it."""

    def release(self, connection: "Connection") -> None:
        """It has done its request, and can do another."""

    def gone(self, connection: "Connection") -> None:
        """It closes."""


class Response(Message):
    """One response as it comes in."""

    retried = False

    def __init__(self, connection: "Connection", idle: float | None) -> None:
        super().__init__()
        self._connection = connection
        self.idle = idle

    @property
    def at_end(self) -> bool:
        """Whether every byte of the body has been read."""
        return self.complete and not self.chunks

    def read(self) -> bytes:
        """What has arrived of the body, waiting for it where nothing has; nothing at the end.

        Raises:
            ResponseTruncated: The upstream broke off, or the response was given up.
            ProxyError: A time-out, bad framing, or what is wrong with the rest of the request's body.
            CallerLeft: Nobody waits for the response any more.
        """
        while not self.chunks:
            if self.complete:
                return b""
            self._connection.advance(self)
        return self.take()

    def limit(self, seconds: float) -> None:
        """From now on nothing is waited for any longer, where there was no limit: events may be hours apart."""
        if self.idle is None:
            self.idle = seconds

    def abort(self) -> None:
        """Gives the response up; its connection is closed, unless all of it has arrived."""
        self._connection.give_up(self)

    close = abort


class Connection:
    """One connection to an upstream: idle, or busy with one request, for the thread that sent it.

    Attributes:
        has_place: Whether a place in the pool is taken for it.
        expires: When it has been idle for too long, by the monotonic clock.
        answered: Once it is closed, whether a byte of its last response had arrived.
    """

    def __init__(self, owner: Owner, origin: Origin, sock: socket.socket, head_limit: int) -> None:
        self.origin = origin
        self.has_place = False
        self.expires = 0.0
        self.answered = False
        self._owner = owner
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, READ)
        self._events = READ
        self._parser = ResponseParser(head_limit, lower_case=False)
        self._response: Response | None = None
        self._latest: Response | None = None
        self._caller: socket.socket | None = None
        self._body: Any = None
        self._chunked = False
        self._unsent: bytes | memoryview = b""
        self._sending = False
        self._uploaded = True
        self._broken = False

    # The request.

    def exchange(self, forward: Forward, first: bytes, last: bool, caller: socket.socket | None) -> Response:
        """Sends a request, and returns when its response's head has come.

        Args:
            forward: The request.
            first: The first bytes of its body.
            last: Whether these are all.
            caller: The socket on which the caller waits, if it is known.
        """
        response = Response(self, forward.timeouts.idle)
        self._parser.begin(response, forward.method == b"HEAD")
        self._response, self._latest, self._caller = response, response, caller
        self._body, self._chunked = (None if last else forward.body), forward.chunked
        self._unsent = encode_head(forward.method, forward.target, forward.fields) + self._framed(first, last)
        self._sending, self._uploaded = True, False
        try:
            self._flush()
            while self._sending and not response.head_complete:
                self._turn(forward.timeouts.idle, WriteTimeout)
            self._await_head(response, forward.timeouts.head)
        except BaseException:
            self.give_up(response)
            raise
        if not response.complete:
            _begin_streaming(response)
        return response

    def _await_head(self, response: Response, timeout: float | None) -> None:
        """Reads until the head is complete: one deadline for all of it, interim responses included."""
        if timeout is None:
            while not response.head_complete:
                self._turn(None, HeadTimeout)
            return
        deadline = time.monotonic() + timeout
        while not response.head_complete:
            self._turn(timeout, HeadTimeout)
            timeout = max(deadline - time.monotonic(), 0)

    def advance(self, response: Response) -> None:
        """Waits for more of a response, and meanwhile sends what is left of its request."""
        if self._response is not response:
            raise ResponseTruncated("The response was given up")
        try:
            self._turn(response.idle, ReadTimeout)
        except BaseException:
            self.give_up(response)
            raise

    def give_up(self, response: Response) -> None:
        """Closes the connection, if it is still busy with this response."""
        if self._response is response:
            self.close()

    # Waiting.

    def _turn(self, timeout: float | None, late: Callable[[], Exception]) -> None:
        """Waits until something can be read or sent, and does that. An answer comes first: it may end the upload."""
        ready = self._wait(READ | WRITE if self._sending else READ, timeout, late)
        if ready & ~WRITE:
            self._receive()
        elif ready:
            self._send()

    def _wait(self, events: int, timeout: float | None, late: Callable[[], Exception]) -> int:
        """What the connection is ready for: nothing where it was the caller who stirred."""
        if events != self._events:
            self._poll.modify(self._sock, events)
            self._events = events
        left = None if timeout is None else timeout * 1000
        if self._caller is None or self._sending:
            ready = self._poll.poll(left)
        else:
            patience = PATIENCE * 1000
            ready = self._poll.poll(patience if left is None else min(left, patience))
            if not ready and (left is None or left > patience):
                return self._wait_with(self._caller, left and left - patience, late)
        if not ready:
            raise late()
        return ready[0][1]

    def _wait_with(self, caller: socket.socket, left: float | None, late: Callable[[], Exception]) -> int:
        """Waits, for so many milliseconds, while looking whether the caller leaves."""
        self._poll.register(caller, READ)
        try:
            ready = dict(self._poll.poll(left))
        finally:
            self._poll.unregister(caller)
        if not ready:
            raise late()
        if caller.fileno() in ready:
            if _has_left(caller):
                raise CallerLeft
            # It has sent another request, which will keep its socket readable.
            self._caller = None
        return ready.get(self._sock.fileno(), 0)

    # Both directions.

    def _send(self) -> None:
        """Sends what is left, or, if that is nothing, the next piece of the caller's body."""
        if not self._unsent:
            data, last = self._body.read(), self._body.at_end
            self._unsent = self._framed(data, last)
            if last:
                self._body = None
        self._flush()

    def _framed(self, data: bytes, last: bool) -> bytes:
        if self._chunked:
            return encode_chunk(data) + (LAST_CHUNK if last else b"")
        return data

    def _flush(self) -> None:
        """Sends as much as the upstream takes now."""
        unsent = self._unsent
        if unsent:
            try:
                sent = self._sock.send(unsent)
            except _NOT_NOW:
                return
            except OSError as error:
                self._stop_sending(error)
                return
            self._unsent = b"" if sent == len(unsent) else memoryview(unsent)[sent:]
        if self._body is None and not self._unsent:
            self._sending, self._uploaded = False, True

    def _stop_sending(self, error: OSError) -> None:
        """The upstream takes no more, perhaps because it has answered already: what has arrived can still be read."""
        self._sending, self._body, self._unsent = False, None, b""
        # EPIPE follows a proper FIN. A reset is reported once only: reading would find what looks like one.
        self._broken = not isinstance(error, BrokenPipeError)

    def _receive(self) -> None:
        response = self._latest
        assert response is not None
        try:
            data = self._sock.recv(RECEIVE)
        except _NOT_NOW:
            return
        except OSError:
            # Under TLS also an end without close_notify, which anybody on the way can forge (RFC 8446 section 6.1).
            data, self._broken = b"", True
        if data:
            self._parser.feed(data)
        elif self._broken:
            raise (
                ResponseTruncated("The upstream reset the connection")
                if response.head_complete
                else (ConnectionTerminated())
            )
        else:
            self._parser.eof()
        if response.complete:
            self._finish(response.reusable)

    # Idle, and endings.

    def usable(self) -> bool:
        """Whether an idle connection has kept silent: neither closed, nor sent what nobody asked for."""
        if self._events != READ:
            self._poll.modify(self._sock, READ)
            self._events = READ
        return time.monotonic() < self.expires and not self._poll.poll(0)

    def _finish(self, reusable: bool) -> None:
        """The response is complete: the connection is free again, or of no more use."""
        if reusable and self._uploaded:
            self._response = self._caller = None
            self._owner.release(self)
        else:
            self.close()

    def close(self) -> None:
        """Closes the connection at once."""
        # First, so that nobody shuts down a descriptor that has another meaning by then.
        self._owner.gone(self)
        self.drop()

    def discard(self) -> None:
        """Closes an idle connection whose place has been given away already."""
        self.has_place = False
        self.close()

    def drop(self) -> None:
        """Closes this process's descriptor, and tells nobody: not the owner, nor the upstream by TLS."""
        self.answered |= self._latest is not None and self._latest.started
        self._response = self._latest = self._caller = self._body = None
        self._parser.close()
        self._sock.close()

    def interrupt(self) -> None:
        """Breaks the connection off, from another thread: the one that uses it finds it ended, and closes it."""
        self._broken = True
        with suppress(OSError):  # The upstream may have broken it off before.
            # The plain method, because the one of TLS would take its state away from under the other thread.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


def _begin_streaming(response: Response) -> None:
    for name, value in response.fields:
        if name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream"):
            # Events may be hours apart.
            response.idle = None


def _has_left(caller: socket.socket) -> bool:
    """Whether a readable socket is so because its peer has gone, not because it has sent something."""
    try:
        # The plain method, because the one of TLS does not peek.
        return not socket.socket.recv(caller, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
